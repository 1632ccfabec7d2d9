"""Merged read of one partition at one committed state: the view above, its base snapshot below.

The view's entry is the newer one and wins; its tombstone is an answer.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

from logstore.model.errors import Starting
from logstore.model.folding.sorted_merge import overlay
from logstore.serve.read.as_of import AsOf, AsOfReads, look_back
from logstore.serve.state.partition import SNAPSHOT, VIEW, Cell, ServedPartition
from logstore.view.conditional.decisions import DecisionReading
from logstore.view.layout import State
from logstore.view.reader import Reading

Items = Iterator[tuple[bytes, bytes]]


class Floor(NamedTuple):
    """Floor of a reading: what it must have applied, and the instant at which rows are seen.

    `offsets`: partition -> the next offset that it must have at least; absent: any. `time_ms`: of rows that may expire.
    """

    offsets: Mapping[int, int] = MappingProxyType({})
    time_ms: int = 0


class FellBehind(Starting):
    """The view stands below what was waited for: it began again meanwhile."""


def check_floor(served: ServedPartition, next_offset: int, floor: Floor) -> None:
    """Check a reading that stands at `next_offset`; raises FellBehind when it is below `floor`."""
    least = floor.offsets.get(served.partition, 0)
    if next_offset < least:
        raise FellBehind(
            f"partition {served.partition} of {served.table!r} began again while it was waited for: it stands at "
            f"{next_offset:,}, wanted {least:,}"
        )


class MergedRead:
    """Read of one partition; `next_offset` is where its view stands."""

    def __init__(self, served: ServedPartition, reading: Reading, as_of: AsOf | None, floor: Floor) -> None:
        """Begin to read.

        Raises Problem when the partition has stopped, or has no answer for the point; FellBehind.
        """
        self.next_offset = served.next_offset(reading.raw_state)
        check_floor(served, self.next_offset, floor)
        self._reading, self._base = reading, served.base
        self._as_of = None if as_of is None else look_back(served, reading.state, as_of)
        self.now_ms = _instant(served, reading.raw_state, self._as_of, floor)  # 0: no row of the table expires

    def cell(self, key: bytes) -> Cell:
        """Entry of a row; raises Problem when its entry at the point is not known."""
        raw, source = self.entry(key)
        return Cell(raw, source, self.now_ms)

    def entry(self, key: bytes) -> tuple[bytes | None, str]:
        """Entry of a row as it is stored, and where; raises as `cell`."""
        as_of = self._as_of
        if as_of is not None and as_of.exact is not None:
            return as_of.exact.get(key), SNAPSHOT
        raw, source = self._reading.get(key), VIEW
        if raw is None and self._base is not None:
            raw, source = self._base.get(key), SNAPSHOT
        if as_of is not None:
            as_of.check(key, raw)
        return raw, source

    @property
    def decisions(self) -> DecisionReading | None:
        """Outcomes and ids of the present state; None: the table is plain. Raises Corrupted, NotYet."""
        return self._reading.decisions

    def scan(self, start: bytes, end: bytes | None, *, reverse: bool) -> Items:
        """Rows of `[start, end)` as (row key, encoded entry), in byte order, or from the end downwards.

        Tombstones are entries too.
        """
        as_of, base = self._as_of, self._base
        if as_of is not None and as_of.exact is not None:
            return as_of.exact.scan(start, end, reverse=reverse)
        found = self._reading.scan(start, end, reverse=reverse)
        if base is not None:
            found = overlay(found, base.scan(start, end, reverse=reverse), reverse=reverse)
        return found if as_of is None else _checked(found, as_of, start)


@contextmanager
def merged(served: ServedPartition, as_of: AsOf | None, floor: Floor) -> Iterator[MergedRead]:
    """The partition at one committed state, not below `floor`. Keep it short, as any reading.

    Raises Problem when it does not answer, FellBehind.
    """
    with served.open(past=as_of is not None).reading() as reading:
        yield MergedRead(served, reading, as_of, floor)


def read_cell(served: ServedPartition, key: bytes, as_of: AsOf | None, floor: Floor) -> tuple[int, Cell]:
    """Next offset and row of one committed state; raises as `merged`."""
    if as_of is not None:
        with merged(served, as_of, floor) as merged_read:
            return merged_read.next_offset, merged_read.cell(key)
    raw_state, raw = served.open().point(key)
    next_offset = served.next_offset(raw_state)
    check_floor(served, next_offset, floor)
    now_ms = _instant(served, raw_state, None, floor)
    if raw is None and served.base is not None:
        return next_offset, Cell(served.base.get(key), SNAPSHOT, now_ms)
    return next_offset, Cell(raw, VIEW, now_ms)


def _instant(served: ServedPartition, raw_state: bytes, as_of: AsOfReads | None, floor: Floor) -> int:
    """The instant at which rows are seen, never before log time: what has ended by log time has ended for everybody.

    Of the past: the time that was asked for; at a snapshot's own cut nothing is left that had ended. 0: no row expires.
    """
    if served.reader is None or not served.reader.expiring:
        return 0
    if as_of is not None:
        return as_of.instant_ms
    return max(State.decode(raw_state).log_time_ms, floor.time_ms)


def _checked(found: Items, as_of: AsOfReads, start: bytes) -> Items:
    """Entries found, as long as they are those of the point."""
    if as_of.gaps():
        raise as_of.refusal(next(found, (start, b""))[0])
    for item in found:
        as_of.check(*item)
        yield item
