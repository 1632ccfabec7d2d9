"""CellSelection: the cells of wide rows that a read asks for, and its text in the read API.

    columns    column *("," column)         as in `columns.unescaped_column`
    column     family ":" [qualifier]       without a qualifier: all cells of the family

As a query parameter the whole is percent-encoded once more.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, NamedTuple
from urllib.parse import quote_from_bytes

from msgspec import Meta, Raw
from msgspec.msgpack import Decoder

from logstore.model.errors import Corrupted, UsageError
from logstore.model.folding.packed_values import ENDING
from logstore.model.folding.sibling import ends_of
from logstore.model.table import MAX_VERSIONS
from logstore.model.wide.cell import RowCells, WideCell
from logstore.model.wide.columns import Column, column_of, unescaped_column

MAX_COLUMNS = 1_000
_NAMED_CELLS = list[tuple[str, bytes, Raw]]  # of a packed row (`logstore.model.folding.packed_values`)
_row_cells = Decoder(tuple[Raw, _NAMED_CELLS]).decode
_ending_row_cells = Decoder(tuple[Raw, Raw, _NAMED_CELLS]).decode
_Value = tuple[int, int, bytes, int | None]
_values = Decoder(Annotated[list[_Value], Meta(min_length=1)]).decode  # of the cells that are asked for, and no others
_new = tuple.__new__  # of a NamedTuple, without a frame of its own
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

    def of(self, packed: bytes, now_ms: int = 0) -> RowCells:
        """The cells of a packed row that it selects, as seen at `now_ms`: a cell whose newest value has ended is gone.

        Raises Corrupted.
        """
        decode = _ending_row_cells if packed[:1] == ENDING else _row_cells
        most, (whole, named) = self.versions, _sets(self.columns)
        cells: list[WideCell] = []
        ends: list[int | None] = []
        try:
            for family, qualifier, raw in decode(packed)[-1]:
                if whole is not None and family not in whole and (family, qualifier) not in named:
                    continue
                values = _values(raw)
                if len(values) > 1 or values[0][3] is not None:
                    values = _living(values, now_ms)
                for version, timestamp_ms, value, end_ms in values[:most]:
                    cells.append(_new(WideCell, (family, qualifier, version, timestamp_ms, value)))
                    ends.append(end_ms)
        except (ValueError, RecursionError) as error:
            raise Corrupted(f"a row of {len(packed)} bytes cannot be read: {error}") from error
        return RowCells(tuple(cells), ends_of(ends))


def _living(values: list[_Value], now_ms: int) -> list[_Value]:
    """The values of a cell that have not ended; none where its newest has."""
    living = [one for one in values if one[3] is None or one[3] > now_ms]
    return living if living[:1] == values[:1] else []


@lru_cache(64)  # of all rows of a page, and of requests that come again and again
def _sets(columns: tuple[Column, ...]) -> tuple[frozenset[str] | None, frozenset[Column]]:
    """Families that are named whole, and cells that are named; None: no column is named, so all are."""
    whole = frozenset(family for family, qualifier in columns if not qualifier)
    return whole if columns else None, frozenset(columns)


def read_columns(raw: bytes) -> tuple[Column, ...]:
    """Columns of a text of the read API. Raises UsageError."""
    items = raw.split(b",")
    _check_count(len(items))
    return tuple(dict.fromkeys(unescaped_column(item) for item in items))


def selection_of(columns: object, versions: int) -> CellSelection:
    """The selection that a caller names; raises UsageError.

    `columns`: None for all, or texts "family:qualifier" and pairs (family, qualifier); see `column_of`.
    """
    if type(columns) is list and type(versions) is int and {*map(type, columns)} == {str}:
        return _remembered(tuple(columns), versions)
    return _selection_of(columns, versions)


def _selection_of(columns: object, versions: int) -> CellSelection:
    if type(versions) is not int or not 1 <= versions <= MAX_VERSIONS:
        raise UsageError(f"versions is a whole number from 1 to {MAX_VERSIONS:,}, not {versions!r:.80}")
    if columns is None:
        return CellSelection((), versions)
    if isinstance(columns, (str, bytes)) or not isinstance(columns, Iterable):
        raise UsageError(f"columns is a list such as ['content:html', 'anchor:'], not {columns!r:.80}")
    named = tuple(columns)
    _check_count(len(named))
    return CellSelection(tuple(dict.fromkeys(map(column_of, named))), versions)


_remembered = lru_cache(64)(_selection_of)  # a program asks for the same cells again and again


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_COLUMNS:
        raise UsageError(f"a read names 1 to {MAX_COLUMNS:,} columns, not {count:,}; leave them out for all cells")
