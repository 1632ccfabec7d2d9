"""Draft: a row while the edits of one record act on it, in order, each upon the results of those before it.

Of each cell only the last result is written, once, with the record's offset as its version. A cell that is deleted on
the way begins a new life, even if a later edit of the same record sets it again.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from logstore.model.folding.entry import VALUE, Entry
from logstore.model.folding.terms import Column
from logstore.model.hard_rows.changes.edits import Edit, Infeasible
from logstore.model.hard_rows.row import ABSENT, CellState, RowState
from logstore.model.hard_rows.rules import CELL_BYTES, ColumnFamily, Rules

COUNTER_BYTES = 8
_NEVER_LATER = 2**63 - 1  # ends are capped here


def end_of(log_time_ms: int, ttl_ms: int | None) -> int | None:
    """The log time at which a value that was written at a log time with this TTL ends; None: never."""
    return None if ttl_ms is None else min(log_time_ms + ttl_ms, _NEVER_LATER)


class Stamp(NamedTuple):
    """Version, time and TTL that a record gives to all that it writes."""

    offset: int
    timestamp_ms: int
    log_time_ms: int
    ttl_ms: int | None = None

    def end(self, ttl_ms: int | None) -> int | None:
        """The log time at which a value with this TTL ends; None: never."""
        return end_of(self.log_time_ms, ttl_ms)


class Draft:
    """A row on its way from one record to the next. `row`: as seen at the record's log time."""

    def __init__(self, row: RowState, stamp: Stamp, rules: Rules) -> None:
        self._row, self._stamp, self._rules = row, stamp, rules
        self._results: dict[Column, Entry | None] = {}  # None: deleted
        self._ended: set[Column] = set()  # cells whose life this record ends
        self._groups: set[str] = set()  # locality groups of which it names a cell or family

    def edit(self, edit: Edit) -> None:
        """Let one edit act; raises Infeasible when it cannot be done."""
        if edit.verb == "del-row":
            self._groups |= self._rules.groups
            self._delete([*self._row.cells, *self._results])
            return
        family = self._family(edit.family)
        self._groups.add(family.group)
        column = edit.family, edit.qualifier
        if edit.verb == "del-family":
            self._delete([one for one in (*self._row.cells, *self._results) if one[0] == edit.family])
        elif edit.verb == "del":
            self._delete([column])
        elif edit.verb == "set":
            ttl_ms = edit.ttl_ms if edit.ttl_ms is not None else self._stamp.ttl_ms
            self._set(column, edit.payload, self._stamp.end(family.ttl_ms if ttl_ms is None else ttl_ms))
        else:
            now = self._current(column)
            payload = _sum(now, edit.delta) if edit.verb == "incr" else (now.payload if now else b"") + edit.payload
            self._set(column, payload, self._end_upon(now, family))

    def done(self) -> RowState:
        """The row after the record; raises Infeasible when it has become too wide."""
        cells = dict(self._row.cells)
        for column, entry in self._results.items():
            before = cells.pop(column, None)
            if entry is not None:
                cells[column] = CellState(self._stamp.offset, (entry,), self._older(column, before))
        if len(cells) > self._rules.max_row_cells or (self._rules.wide and _bytes(cells) > self._rules.max_row_bytes):
            raise Infeasible("row-too-wide")
        if not cells:
            return ABSENT
        named = dict.fromkeys(self._groups, self._stamp.offset)
        return RowState(cells, {**self._row.versions, **named})

    def _family(self, name: str) -> ColumnFamily:
        family = self._rules.families.get(name)
        if family is None:
            raise Infeasible("unknown-family")
        return family

    def _current(self, column: Column) -> Entry | None:
        if column in self._results:
            return self._results[column]
        cell = self._row.cells.get(column)
        if cell is not None and len(cell.members) > 1:
            raise Infeasible("siblings")
        return cell.members[0] if cell else None

    def _end_upon(self, now: Entry | None, family: ColumnFamily) -> int | None:
        """The end of what builds on `now`: a new one where the record brings it, else the one that the cell has."""
        if self._stamp.ttl_ms is None and now is not None:
            return now.expires_ms
        return self._stamp.end(family.ttl_ms if self._stamp.ttl_ms is None else self._stamp.ttl_ms)

    def _set(self, column: Column, payload: bytes, end: int | None) -> None:
        if len(payload) > self._rules.place.max_value_bytes:
            raise Infeasible("too-large")
        entry = Entry(VALUE, self._stamp.offset, max(self._stamp.timestamp_ms, 0), payload, end)
        if entry.expired(self._stamp.log_time_ms):  # a TTL of 0 deletes
            self._delete([column])
        else:
            self._results[column] = entry

    def _delete(self, columns: Iterable[Column]) -> None:
        for column in columns:
            self._results[column] = None
            self._ended.add(column)

    def _older(self, column: Column, before: CellState | None) -> tuple[Entry, ...]:
        if before is None or column in self._ended:
            return ()
        beside = self._rules.families[column[0]].versions - 1
        return (*reversed(before.members), *before.older)[:beside]


def _bytes(cells: Mapping[Column, CellState]) -> int:
    """Bytes of a row: qualifiers, payloads of all versions, and a round sum for what is beside them."""
    values = sum(len(one.payload) + CELL_BYTES for cell in cells.values() for one in (*cell.members, *cell.older))
    return values + sum(len(qualifier) for _, qualifier in cells)


def _sum(now: Entry | None, delta: int) -> bytes:
    """The counter after an increment; absent is 0."""
    if now is not None and len(now.payload) != COUNTER_BYTES:
        raise Infeasible("wrong-length")
    total = (int.from_bytes(now.payload, signed=True) if now else 0) + delta
    try:
        return total.to_bytes(COUNTER_BYTES, signed=True)
    except OverflowError:
        raise Infeasible("overflow") from None
