"""Held: what an entry of a row holds for its readers at an instant, and when each part of that ends."""

from logstore.model.folding.entry import CELLS, TOMBSTONE, VALUE, Entry
from logstore.model.folding.sibling import Ends, Value, ends_of
from logstore.model.hard_rows.packed import side_by_side
from logstore.model.wide.cell import PackedCells, RowCells
from logstore.model.wide.selection import CellSelection

_ALL_CELLS = CellSelection()  # the newest value of each


def held_at(entry: Entry, now_ms: int) -> tuple[Value | RowCells | None, Ends]:
    """Value, siblings or cells of a row, with their ends; None when nothing is left. Raises Corrupted."""
    if entry.kind == TOMBSTONE or entry.expired(now_ms):
        return None, ()
    if entry.kind == VALUE:
        return entry.payload, ends_of([entry.expires_ms])
    if entry.kind == CELLS:
        cells = _ALL_CELLS.of(PackedCells(entry.payload), now_ms)
        return (cells, cells.ends) if cells else (None, ())
    return side_by_side(entry, now_ms)
