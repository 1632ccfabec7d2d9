"""CellSelection: the cells of wide rows that a read asks for, and its text in the read API.

    columns    column *("," column)         as in `columns.unescaped_column`
    column     family ":" [qualifier]       without a qualifier: all cells of the family

As a query parameter the whole is percent-encoded once more.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes

import msgpack

from logstore.model.errors import Corrupted, UsageError
from logstore.model.folding.sibling import ends_of
from logstore.model.table import MAX_VERSIONS
from logstore.model.wide.cell import PackedCells, RowCells, WideCell
from logstore.model.wide.columns import Column, column_of, unescaped_column

MAX_COLUMNS = 1_000
_CELLS = -1  # of a packed row (`logstore.model.hard_rows.packed`)
_SAFE = "!$&'()*+-./:;=@_~"  # in a qualifier; no comma and no percent sign


class CellSelection(NamedTuple):
    """Selection of cells.

    `columns`: empty for all of them; an empty qualifier stands for all of the family. `versions`: how many of each cell
    at most, the newest.
    """

    columns: tuple[Column, ...] = ()
    versions: int = 1

    @property
    def text(self) -> str:
        """The columns in the form of the read API, empty for all."""
        return ",".join(f"{family}:{quote_from_bytes(qualifier, _SAFE)}" for family, qualifier in self.columns)

    def params(self) -> dict[str, str]:
        """Parameters of the read API that name these cells."""
        return {"versions": str(self.versions), **({"columns": self.text} if self.columns else {})}

    def families(self) -> set[str]:
        """Families that it names."""
        return {family for family, _ in self.columns}

    def of(self, packed: PackedCells, now_ms: int = 0) -> RowCells:
        """The cells of a row that it selects, as seen at `now_ms`: a cell whose newest value has ended is gone.

        Raises Corrupted.
        """
        try:
            selected = list(self._selected(msgpack.unpackb(packed)[_CELLS], now_ms))
            return RowCells((cell for cell, _ in selected), ends_of(end_ms for _, end_ms in selected))
        except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
            raise Corrupted(f"a row of {len(packed)} bytes cannot be read: {error}") from error

    def _selected(self, cells: Iterable[tuple[str, bytes, Any]], now_ms: int) -> Iterator[tuple[WideCell, int | None]]:
        whole = {family for family, qualifier in self.columns if not qualifier}
        named, every, most = set(self.columns), not self.columns, self.versions
        for family, qualifier, values in cells:
            if (every or family in whole or (family, qualifier) in named) and not _ended(values[0], now_ms):
                living = (one for one in values if not _ended(one, now_ms))
                for version, timestamp_ms, value, end_ms in islice(living, most):
                    yield WideCell(family, qualifier, version, timestamp_ms, value), end_ms


def _ended(value: tuple[int, int, bytes, int | None], now_ms: int) -> bool:
    return value[3] is not None and value[3] <= now_ms


def read_columns(raw: bytes) -> tuple[Column, ...]:
    """Columns of a text of the read API. Raises UsageError."""
    items = raw.split(b",")
    _check_count(len(items))
    return tuple(dict.fromkeys(unescaped_column(item) for item in items))


def selection_of(columns: object, versions: int) -> CellSelection:
    """The selection that a caller names; raises UsageError.

    `columns`: None for all, or texts "family:qualifier" and pairs (family, qualifier); see `column_of`.
    """
    if type(versions) is not int or not 1 <= versions <= MAX_VERSIONS:
        raise UsageError(f"versions is a whole number from 1 to {MAX_VERSIONS:,}, not {versions!r:.80}")
    if columns is None:
        return CellSelection((), versions)
    if isinstance(columns, (str, bytes)) or not isinstance(columns, Iterable):
        raise UsageError(f"columns is a list such as ['content:html', 'anchor:'], not {columns!r:.80}")
    found = [column_of(one) for one in columns]
    _check_count(len(found))
    return CellSelection(tuple(dict.fromkeys(found)), versions)


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_COLUMNS:
        raise UsageError(f"a read names 1 to {MAX_COLUMNS:,} columns, not {count:,}; leave them out for all cells")
