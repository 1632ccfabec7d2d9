"""One instant: rows of a list, read from several partitions and nodes, as seen at the latest instant of any.

What has ended never comes back. So a row that was seen earlier, with the ends of what it holds, tells what is left:

    a row holds             its ends
    a value                 of that
    keys only were asked    the end of the whole row
    siblings                of each
    cells                   of each; all versions are read then, for an older one may take the place of one that ends
"""

from collections.abc import Iterable, Iterator
from itertools import groupby, islice, repeat
from operator import itemgetter

from logstore.model.folding.sibling import Ends, ends_of
from logstore.model.table import MAX_VERSIONS
from logstore.model.wide.cell import RowCells, WideCell
from logstore.model.wide.selection import CellSelection
from logstore.serve.read.encoding import EncodedRow, FoundKey, Held
from logstore.serve.state.partition import Cell

_END = itemgetter(1)
_CellEnd = tuple[WideCell, int | None]


def to_be_cut(cells: CellSelection | None) -> CellSelection | None:
    """The selection with which rows are read that are cut to `cells` later."""
    return cells if cells is None or cells.versions == 1 else cells._replace(versions=MAX_VERSIONS)


def rows_at(rows: Iterable[EncodedRow], now_ms: int, cells: CellSelection | None) -> list[EncodedRow]:
    """The rows of which something is left at `now_ms`, and that. Requires: they were seen at that time or earlier."""
    return [left for row in rows if (left := _row_at(row, now_ms, cells)) is not None]


def found_at(found: FoundKey, now_ms: int, cells: CellSelection | None) -> FoundKey:
    """The result as it is at `now_ms`. Requires: it was read at that time or earlier."""
    if found.value is None:
        return found
    held, ends = _left(found.value, found.ends, now_ms, cells)
    return found._replace(value=held, ends=ends)


def visible_ends(held: Held, cell: Cell) -> Ends:
    """Ends of what is shown of a row: of its value, or of each sibling or cell."""
    return held.ends if isinstance(held, RowCells) else cell.ends


def last_end(held: Held, ends: Ends) -> Ends:
    """The end of the whole row; empty: something of it stays."""
    if isinstance(held, RowCells):
        ends = tuple(newest for (_, newest), *_ in _by_cell(held))
    left = [one for one in ends if one is not None]
    return (max(left),) if left and len(left) == len(ends) else ()


def _row_at(row: EncodedRow, now_ms: int, cells: CellSelection | None) -> EncodedRow | None:
    if row.value is None:
        return None if _has_ended(row.ends, now_ms) else row
    held, ends = _left(row.value, row.ends, now_ms, cells)
    return None if held is None else row._replace(value=held, ends=ends)


def _left(held: Held, ends: Ends, now_ms: int, cells: CellSelection | None) -> tuple[Held | None, Ends]:
    """Rest of what a row holds, and when that ends; None: nothing is left."""
    if isinstance(held, RowCells):
        left = _cells_left(held, now_ms, 1 if cells is None else cells.versions)
        return (left, left.ends) if left else (None, ())
    if not isinstance(held, tuple) or not ends:
        return (None, ()) if _has_ended(ends, now_ms) else (held, ends)
    living = [(one, end) for one, end in zip(held, ends, strict=True) if end is None or end > now_ms]
    if len(living) > 1:
        return tuple(one for one, _ in living), ends_of(end for _, end in living)
    return (living[0][0].value, ends_of([living[0][1]])) if living else (None, ())


def _cells_left(row: RowCells, now_ms: int, versions: int) -> RowCells:
    left: list[_CellEnd] = []
    for values in _by_cell(row):
        if _lives(values[0], now_ms):  # with its newest value the cell is gone
            left += islice((one for one in values if _lives(one, now_ms)), versions)
    return RowCells(tuple(cell for cell, _ in left), ends_of(map(_END, left)))


def _lives(value: _CellEnd, now_ms: int) -> bool:
    return value[1] is None or value[1] > now_ms


def _by_cell(row: RowCells) -> Iterator[list[_CellEnd]]:
    """The values of each cell with their ends, the newest first."""
    values = zip(row.cells, row.ends or repeat(None), strict=False)
    return (list(of_cell) for _, of_cell in groupby(values, key=lambda one: one[0][:2]))


def _has_ended(ends: Ends, now_ms: int) -> bool:
    """True where all has an end, and that has come."""
    return bool(ends) and all(one is not None and one <= now_ms for one in ends)
