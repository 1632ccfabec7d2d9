"""History in memory: the log that a store in memory keeps, as the source of a key's history."""

from collections.abc import Callable, Generator, Sequence

from logstore.client.history.decided import words_of
from logstore.client.history.span import KeyPlace, OutcomeWords, Span
from logstore.client.memory.partition import MemoryPartition
from logstore.model.history.carried import names_row
from logstore.model.history.logged import LoggedRecord


class MemorySources:
    """Sources of a key's history that never forget."""

    reach = 0
    missing = None
    known_from = 0

    def __init__(self, part: MemoryPartition, key: bytes) -> None:
        self.place, self.end, self._part = KeyPlace("", part.table, part.number, key), part.next_offset, part

    def timestamp_of_first(self) -> None:
        """Nothing is missing."""

    def first_later(self, time_ms: int) -> int:
        """The first offset whose log time is later than a time; the end where there is none yet."""
        return min(self._part.offset_at(time_ms), self.end)

    def spans(self, start: int, end: int) -> list[Span]:
        """Spans of `[start, end)`."""
        return [Span(start, end, archived=False)] if start < end else []

    def records(
        self, span: Span, *, newest: bool, scanned: Callable[[int], None]
    ) -> Generator[LoggedRecord, None, None]:
        """Records of the key in a span, in the order of the log or against it."""
        offsets = range(span.start, span.end)
        for offset in reversed(offsets) if newest else offsets:
            key, value, headers, timestamp_ms = self._part.log[offset]
            if key == self.place.key:
                yield LoggedRecord(offset, timestamp_ms, value, headers)
            elif self.place.table.multi_row and names_row(self.place.key, value, headers):
                yield LoggedRecord(offset, timestamp_ms, value, headers, key)
        scanned(len(offsets))

    def decide(self, offsets: Sequence[int]) -> list[OutcomeWords]:
        """Outcomes of conditional mutations, and the reasons. Requires: the table is conditional."""
        decisions = self._part.decisions
        assert decisions is not None, "only conditional tables have outcomes"
        return [words_of(decisions.outcome(offset, "", b"")) for offset in offsets]
