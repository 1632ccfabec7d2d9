"""Cell query: the cells of wide rows that a request asks for, `columns=` and `versions=`."""

from collections.abc import Mapping

from logstore.model.errors import UsageError
from logstore.model.table import MAX_VERSIONS, Table
from logstore.model.wide.selection import CellSelection, read_columns
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import integer, text

CELL_PARAMS = frozenset({"columns", "versions"})


def read_cell_query(params: Mapping[str, bytes]) -> CellSelection | None:
    """The cells that parameters name; None where they say nothing of cells. Raises Problem."""
    if not params.keys() & CELL_PARAMS:
        return None
    try:
        columns = read_columns(params["columns"]) if "columns" in params else ()
    except UsageError as error:
        raise Problem("bad-request", str(error), parameter="columns") from error
    versions = integer(text(params["versions"], "versions"), "versions", 1, MAX_VERSIONS) if "versions" in params else 1
    return CellSelection(columns, versions)


def cells_of(table: Table, asked: CellSelection | None) -> CellSelection | None:
    """The cells to read of a table's rows; None: they have one value each. Raises Problem for cells that it has not."""
    if not table.wide:
        if asked is not None:
            raise Problem(
                "bad-request", f"the rows of table {table.name!r} have one value each: columns and versions are for "
                "tables made with `table create --wide`", table=table.name, wide=False,
            )  # fmt: skip
        return None
    selection = asked or CellSelection()
    unknown = sorted(selection.families() - table.families.keys() - {""})
    if unknown:
        raise Problem(
            "bad-request", f"table {table.name!r} has no column family {unknown[0]!r}; it has "
            f"{', '.join(sorted(table.families)) or 'none'}", table=table.name, parameter="columns",
        )  # fmt: skip
    return selection
