"""Decided mutations: outcomes of conditional ones as nodes remember them, in the words of a history."""

from collections.abc import Callable

from logstore.client.conditional.outcome import Outcome, outcome_of_answer
from logstore.client.conditional.outcome_pages import at_position
from logstore.client.history.span import Decide, KeyPlace
from logstore.client.read.budget import DEADLINE_MS
from logstore.client.read.http import HttpReader
from logstore.model.errors import LogStoreError, NotRetained
from logstore.model.position import Position


class AskedOutcomes:
    """Outcomes of one key's mutations, asked of a node one by one.

    Where it does not answer, or has forgotten, no more is asked that it would not answer either.
    """

    def __init__(self, reader: Callable[[], HttpReader], place: KeyPlace, deadline_ms: int = DEADLINE_MS) -> None:
        """`reader` is called for the first outcome; what it raises is the reason for which none is known."""
        self._reader, self._place, self._deadline_ms = reader, place, deadline_ms
        self._forgotten_to = -1  # offset up to which outcomes are not remembered any more
        self._silence: str | None = None

    def __call__(self, offset: int) -> tuple[str, str | None]:
        """The outcome of the mutation at an offset, and the reason."""
        if self._silence is None and offset > self._forgotten_to:
            try:
                return self._asked(offset)
            except NotRetained:
                self._forgotten_to = offset
            except LogStoreError as error:
                self._silence = f"what became of it could not be asked: {error}"
        return "undecided", self._silence or "what became of it is not remembered any more"

    def _asked(self, offset: int) -> tuple[str, str | None]:
        table, partition, key = self._place.table, self._place.partition, self._place.key
        position = Position.of_write(table.epoch, partition, offset)
        answer = self._reader().about_row(
            table.name, key, at_position(position), after=position, deadline_ms=self._deadline_ms
        )  # fmt: skip
        outcome = outcome_of_answer(answer, None)
        return ("undecided", "the node that was asked has no outcome of it") if outcome is None else words_of(outcome)


def asking(reader: Callable[[], HttpReader], deadline_ms: int = DEADLINE_MS) -> Callable[[KeyPlace], Decide]:
    """Function of a key's place that gives the outcomes of its mutations."""
    return lambda place: AskedOutcomes(reader, place, deadline_ms)


def words_of(outcome: Outcome) -> tuple[str, str | None]:
    """The outcome's word, and the reason for which it is not "applied"."""
    if outcome.outcome == "rejected":
        stood = "the row was absent" if outcome.version is None else f"the row was at version {outcome.version:,}"
        return "rejected", f"its condition did not hold: {stood}"
    if outcome.outcome == "duplicate":
        return "duplicate", f"the record at offset {outcome.first:,} has the same id, and was {outcome.first_outcome}"
    return outcome.outcome, outcome.reason
