"""Partition in memory: its log, folded record by record, and every version of its rows."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from logstore.client.memory.decisions import MemoryDecisions
from logstore.model.folding.entry import TOMBSTONE, Entry
from logstore.model.folding.fold import fold_row
from logstore.model.folding.mutation import Delete, Headers, Put, parse
from logstore.model.folding.sibling import Value
from logstore.model.hard_rows.packed import side_by_side
from logstore.model.table import Table
from logstore.model.wide.cell import PackedCells, RowCells
from logstore.model.wide.selection import CellSelection


class MemoryRecord(NamedTuple):
    """A record of the log, which only this process sees."""

    key: bytes | None  # None: a control record's
    value: bytes | None
    headers: Headers
    timestamp_ms: int


class MemoryPartition:
    """A partition's log and rows."""

    def __init__(self, table: Table, number: int) -> None:
        self.table, self.number = table, number
        self.log: list[MemoryRecord] = []
        self._log_times_ms: list[int] = []  # at each offset
        self._changed: list[tuple[bytes, ...]] = []  # rows, by the record at each offset
        self._versions: dict[bytes, list[Entry]] = {}  # of each row, oldest first
        self._sorted: list[bytes] = []
        self.decisions = MemoryDecisions(table, number) if table.conditional else None

    @property
    def next_offset(self) -> int:
        """The offset of the next record."""
        return len(self.log)

    def append(self, record: MemoryRecord) -> int:
        """Append a checked record and fold it; returns its offset."""
        offset = self.next_offset
        changed = self._folded(offset, record)
        self._append(record, tuple(changed))
        for key, entry in changed.items():
            self._versions.setdefault(key, []).append(entry)
        return offset

    def change_rules(self, record: MemoryRecord, revision: int, table: Table) -> None:
        """Append the control record of a revision; what comes behind it is folded by that one of the definition."""
        assert self.decisions is not None, "wide tables are conditional"
        self.decisions.change_rules(table, revision, record.timestamp_ms)
        self.table = table
        self._append(record)

    def _append(self, record: MemoryRecord, changed: tuple[bytes, ...] = ()) -> None:
        self.log.append(record)
        self._changed.append(changed)
        self._log_times_ms.append(max(record.timestamp_ms, self._log_times_ms[-1] if self._log_times_ms else 0))

    def _folded(self, offset: int, record: MemoryRecord) -> dict[bytes, Entry]:
        """Entries of the rows that the record at `offset` changes."""
        key, value, headers, timestamp_ms = record
        assert key is not None, "a mutation has a key"
        if self.decisions is not None:
            return self.decisions.decide(offset, timestamp_ms, key, value, headers, self.entry)
        mutation = parse(
            key, value, headers, max_value_bytes=self.table.max_value_bytes, right_partition=lambda _: True
        )
        assert isinstance(mutation, Put | Delete), "the client's own checks let nothing else through"
        versions = self._versions.get(key)
        return {key: fold_row(versions[-1] if versions else None, mutation, offset, timestamp_ms)}

    def entry(self, key: bytes, upto: int | None = None, now_ms: int = 0) -> Entry | None:
        """The value that a row has, or had before offset `upto`, as seen at `now_ms`; None: it is not there."""
        versions = self._versions.get(key, [])
        at = len(versions) if upto is None else bisect_left(versions, upto, key=lambda entry: entry.version)
        found = versions[at - 1] if at else None
        if found is None or found.kind == TOMBSTONE:
            return None
        log_time_ms = self._log_times_ms[-1 if upto is None else upto - 1]
        return None if found.expired(max(now_ms, log_time_ms)) else found

    def value_at(
        self, key: bytes, upto: int, now_ms: int, cells: CellSelection | None = None
    ) -> tuple[Value | RowCells, int] | None:
        """Value or siblings of a row, or the cells of it that are asked for, and its version; as `entry`."""
        found = self.entry(key, upto, now_ms)
        if found is None:
            return None
        instant_ms = max(now_ms, self._log_times_ms[upto - 1])
        if cells is not None:
            selected = cells.of(PackedCells(found.payload), instant_ms)
            return (selected, found.version) if selected else None
        value = side_by_side(found, instant_ms)[0]
        return None if value is None else (value, found.version)

    def log_time_ms(self, offset: int = -1) -> int:
        """Log time at the record at `offset`, by default the last one. Requires: there is one."""
        return self._log_times_ms[offset]

    def changed_at(self, offset: int) -> Iterator[tuple[bytes, Entry]]:
        """Rows that the record at `offset` changed, and their entries then."""
        for key in self._changed[offset]:
            versions = self._versions[key]
            yield key, versions[bisect_right(versions, offset, key=lambda entry: entry.version) - 1]

    def living(self) -> Iterator[tuple[bytes, Entry]]:
        """Rows that are there, and their entries, by the log's time."""
        for key in self._versions:
            entry = self.entry(key)
            if entry is not None:
                yield key, entry

    def offset_at(self, time_ms: int) -> int:
        """The first offset whose log time is later than `time_ms`."""
        return bisect_right(self._log_times_ms, time_ms)

    def rows(
        self, start: bytes, end: bytes | None, upto: int, now_ms: int, cells: CellSelection | None
    ) -> Iterator[tuple[bytes, Value | RowCells, int]]:
        """Rows of the keys in `[start, end)`, in order: key, what it holds, version."""
        if len(self._sorted) != len(self._versions):  # keys come, and never go
            self._sorted = sorted(self._versions)
        last = len(self._sorted) if end is None else bisect_left(self._sorted, end)
        for key in self._sorted[bisect_left(self._sorted, start) : last]:
            found = self.value_at(key, upto, now_ms, cells)
            if found is not None:
                yield key, *found
