"""Packed rows: a row of several values in one entry, so that it is written, read and moved whole.

    row                                       kind of its entry      payload
    one value, of the row's own version       0 value                the value
    no cell                                   1 tombstone            none
    values side by side                       2 siblings             its members
    cells (wide tables)                       3 cells                group versions and cells, with all their values

The payloads (`logstore.model.folding.packed_values`) are msgpack in its shortest form, groups and cells in rising
order: one row has one encoding, whatever made it. The entry's version is the row's, its timestamp that of the record
that changed it last, its expiry the end of the whole row. Golden bytes: `tests/test_packed.py`.
"""

from collections.abc import Sequence
from typing import Any

import msgpack

from logstore.model.errors import Corrupted
from logstore.model.folding.entry import CELLS, SIBLINGS, TOMBSTONE, VALUE, Entry
from logstore.model.folding.packed_values import DAMAGE, PackedValue, pack_cells
from logstore.model.folding.sibling import Ends, Sibling, Value, ends_of
from logstore.model.hard_rows.row import ABSENT, PLAIN_COLUMN, CellState, RowState
from logstore.model.hard_rows.rules import DEFAULT_GROUP

_GROUPS, _CELLS = -2, -1


def pack_row(row: RowState, offset: int, timestamp_ms: int, *, wide: bool) -> Entry:
    """The entry of a row that the record at `offset` changed last. `wide`: its table's rows are cells."""
    timestamp_ms = max(timestamp_ms, 0)
    if not row.cells:
        return Entry(TOMBSTONE, offset, timestamp_ms)
    assert row.version is not None, "a row with cells has a version"
    if wide:
        groups = sorted(map(list, row.versions.items()))
        return Entry(CELLS, row.version, timestamp_ms, pack_cells(groups, _cells_of(row)), _end_of(row))
    members = row.cells[PLAIN_COLUMN].members
    if len(members) == 1 and members[0].version == row.version:
        return members[0]
    return Entry(SIBLINGS, row.version, timestamp_ms, msgpack.packb([_packed(one) for one in members]), _end_of(row))


def unpack_row(entry: Entry) -> RowState:
    """The row that an entry holds; raises Corrupted when its payload is none."""
    if entry.kind == TOMBSTONE:
        return ABSENT
    if entry.kind == VALUE:
        return _of_members(entry.version, (entry,))
    try:
        found = msgpack.unpackb(entry.payload, raw=False, use_list=True)
        if entry.kind == SIBLINGS:
            return _of_members(entry.version, tuple(map(_unpacked, found)))
        return _of_cells(found)
    except DAMAGE as error:
        raise Corrupted(f"a row of {len(entry.payload)} bytes cannot be read: {error}") from error


def side_by_side(entry: Entry, now_ms: int) -> tuple[Value | None, Ends]:
    """Value or siblings of a plain row's entry at `now_ms`, and their ends.

    None: nothing is left; of one value that is left, that one; else all siblings. Raises as `unpack_row`.
    """
    cell = unpack_row(entry).at(now_ms).cells.get(PLAIN_COLUMN)
    members = () if cell is None else cell.members
    ends = ends_of(one.expires_ms for one in members)
    if len(members) < 2:
        return (members[0].payload if members else None), ends
    return tuple(Sibling(one.version, one.payload) for one in members), ends


def _of_members(version: int, members: tuple[Entry, ...]) -> RowState:
    return RowState({PLAIN_COLUMN: CellState(version, members)}, {DEFAULT_GROUP: version})


def _end_of(row: RowState) -> int | None:
    """The log time from which on nothing of the row is left; None: something stays."""
    ends = [one.expires_ms for cell in row.cells.values() for one in cell.members]
    return None if None in ends else max(end for end in ends if end is not None)


def _cells_of(row: RowState) -> list[Any]:
    return [
        [family, qualifier, [_packed(one) for one in (*cell.members, *cell.older)]]
        for (family, qualifier), cell in sorted(row.cells.items())
    ]


def _of_cells(found: Sequence[Any]) -> RowState:
    cells = {}
    for family, qualifier, values in found[_CELLS]:
        newest, *older = map(_unpacked, values)
        cells[family, qualifier] = CellState(newest.version, (newest,), tuple(older))
    return RowState(cells, dict(found[_GROUPS]))


def _packed(one: Entry) -> PackedValue:
    return [one.version, one.timestamp_ms, one.payload, one.expires_ms]


def _unpacked(found: Sequence[Any]) -> Entry:
    version, timestamp_ms, payload, expires_ms = found
    return Entry(VALUE, version, timestamp_ms, payload, expires_ms)
