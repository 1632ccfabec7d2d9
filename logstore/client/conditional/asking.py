"""Requests for outcomes, one for all writes of a partition that wait for theirs.

A writer who finds nobody asking for outcomes of its partition asks by itself; others join the next request, and find
what it brought.
"""

import threading
from collections.abc import Callable, Sequence
from time import monotonic

from logstore.client.conditional.outcome import Outcome, outcome_of_answer, outcomes_of_answer
from logstore.client.conditional.outcome_desk import Answer, Ask, AskedPlace, OutcomeDesk, UndecidedWrite
from logstore.client.conditional.outcome_pages import LIST, at_position, list_of
from logstore.client.conditional.record import ConditionalRecord
from logstore.client.read.http import HttpReader
from logstore.model.errors import ConsistencyTimeout, LogStoreError
from logstore.model.position import Position

_MAX_READ_MS = 30_000
_GRACE_S = 1.0  # for the way there and back, beyond the server's own deadline


def asking(reader: HttpReader) -> Ask:
    """The way an `OutcomeDesk` asks: with `reader`, blocking."""

    def ask(writes: Sequence[UndecidedWrite], end_s: float) -> Sequence[Answer]:
        place, offsets = writes[0].place, [write.offset for write in writes]
        after = Position.of_write(place.epoch, place.partition, max(offsets))
        left_ms = min(max(round((end_s - monotonic()) * 1000), 1), _MAX_READ_MS)
        if len(writes) == 1:
            answer = reader.about_row(
                place.table, writes[0].key, at_position(after), after=after, deadline_ms=left_ms
            )  # fmt: skip
            return [outcome_of_answer(answer, writes[0].id)]
        content = list_of(place.partition, offsets)
        answer = reader.about_row(
            place.table, writes[0].key, LIST, after=after, deadline_ms=left_ms, content=content
        )  # fmt: skip
        return outcomes_of_answer(answer, place.epoch, place.partition, [(w.offset, w.id) for w in writes])

    return ask


class AskedWrite:
    """A single write whose writer waits for the outcome; `tell` is called once, on another thread."""

    def __init__(
        self, place: AskedPlace, offset: int, record: ConditionalRecord, end_s: float, tell: Callable[[Answer], None]
    ) -> None:
        self.place, self.offset, self.end_s = place, offset, end_s
        self.key, self.id, self._tell = record.key, record.id, tell

    def resolve(self, outcome: Answer) -> None:
        """Take the outcome, or the error for which it cannot be told."""
        self._tell(outcome)


def learn(
    desk: OutcomeDesk, reader: HttpReader, table: str, record: ConditionalRecord, position: Position, deadline_ms: int
) -> Outcome | None:
    """The outcome of a record in the log; None: it has none. Raises LogStoreError."""
    place = place_of(table, position)
    with desk.lead(place) as leads:
        if leads:
            answer = reader.about_row(
                table, record.key, at_position(position), after=position, deadline_ms=deadline_ms
            )  # fmt: skip
            return outcome_of_answer(answer, record.id)
    arrived, found = threading.Event(), list[Answer]()

    def tell(answer: Answer) -> None:
        found.append(answer)
        arrived.set()

    end_s = monotonic() + deadline_ms / 1000
    desk.want(AskedWrite(place, position.offset, record, end_s, tell))
    if not arrived.wait(deadline_ms / 1000 + _GRACE_S):
        raise late(position)
    return outcome_or_error(found[0])


def place_of(table: str, position: Position) -> AskedPlace:
    """The partition of a write's position."""
    ((epoch, partition),) = position.pieces
    return AskedPlace(table, epoch, partition)


def outcome_or_error(answer: Answer) -> Outcome | None:
    """Return the outcome in an answer. Raises the error that it is instead."""
    if isinstance(answer, LogStoreError):
        raise answer
    return answer


def late(position: Position) -> ConsistencyTimeout:
    """The error of an outcome that nobody told in time."""
    return ConsistencyTimeout(f"the outcome at offset {position.offset:,} was not told in time")
