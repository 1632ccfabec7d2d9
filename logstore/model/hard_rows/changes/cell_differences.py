"""Cell differences: the cells in which two states of a row of a wide table differ, and what each side has of them."""

from collections.abc import Mapping
from typing import NamedTuple

from logstore.model.folding.entry import CELLS, Entry
from logstore.model.folding.terms import Column
from logstore.model.hard_rows.packed import unpack_row
from logstore.model.hard_rows.row import CellState

_NO_CELLS: Mapping[Column, CellState] = {}


class DifferingCell(NamedTuple):
    """Cell in which two rows differ; None: that side has no such cell."""

    column: Column
    left: CellState | None
    right: CellState | None

    @property
    def name(self) -> str:
        """Name of the cell, as people write it."""
        return column_name(self.column)


def column_name(column: Column) -> str:
    """A cell as `family:qualifier`; bytes that are no text are escaped."""
    family, qualifier = column
    return f"{family}:{qualifier.decode(errors='backslashreplace')}"


def differing_cells(left: bytes | None, right: bytes | None) -> list[DifferingCell]:
    """The cells in which two encoded entries differ, versions and older values included, in order.

    None where neither is a row of cells. Raises Corrupted.
    """
    one, other = _cells(left), _cells(right)
    columns = sorted({*one, *other})
    return [DifferingCell(name, one.get(name), other.get(name)) for name in columns if one.get(name) != other.get(name)]


def newest_values(raw: bytes) -> dict[Column, tuple[bytes, ...]]:
    """The newest values of a row: of each cell one, of a row of siblings all of them. Raises Corrupted."""
    row = unpack_row(Entry.decode(raw))
    return {column: tuple(one.payload for one in cell.members) for column, cell in row.cells.items()}


def _cells(raw: bytes | None) -> Mapping[Column, CellState]:
    entry = None if raw is None else Entry.decode(raw)
    return _NO_CELLS if entry is None or entry.kind != CELLS else unpack_row(entry).cells
