"""Wide rows of the store in memory: the refusals of the real one, and rows of what a partition holds."""

from logstore.client.read.row import Row, row_of
from logstore.client.wide.row import WideRow
from logstore.model.errors import NotWide, UsageError, WideTable
from logstore.model.folding.sibling import Value
from logstore.model.table import Table
from logstore.model.wide.cell import RowCells
from logstore.model.wide.selection import CellSelection


def check_cells(table: Table, cells: CellSelection | None) -> None:
    """Raise WideTable, NotWide, UsageError unless rows of the table hold what is asked for; `cells` None: values."""
    if cells is None and table.wide:
        raise WideTable(table.name)
    if cells is None:
        return
    if not table.wide:
        raise NotWide(table.name)
    unknown = sorted(cells.families() - table.families.keys() - {""})
    if unknown:
        raise UsageError(
            f"table {table.name!r} has no column family {unknown[0]!r}; it has "
            f"{', '.join(sorted(table.families)) or 'none'}"
        )


def memory_row(
    key: bytes, held: Value | RowCells, version: int, partition: int, token: str, source: str
) -> Row | WideRow:
    """The row of what a partition holds under a key."""
    if isinstance(held, RowCells):
        return WideRow(key, held.cells, version, partition, token, source)
    return row_of(key, held, version, partition, token, source)
