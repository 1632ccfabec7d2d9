"""List body: what a page of a scan and a multi-get say (msgpack), decoded and checked in one go by msgspec.

Rows come in columns, or one by one from nodes that do not know that form.
"""

from itertools import repeat
from operator import attrgetter

from msgspec import Struct
from msgspec.msgpack import Decoder

from logstore.client.read.row import lacks_none
from logstore.model.folding.sibling import Siblings, Value
from logstore.model.wide.cell import WideCell

_NO_ROWS = "it has neither columns nor rows"
_LEAST_SIBLINGS = 2


class PageColumns(Struct, gc=False):
    """Columns of a page; no value where only keys were asked for."""

    key: list[bytes]
    version: list[int]
    partition: list[int]
    value: list[bytes | None] | None = None
    siblings: list[Siblings | None] | None = None  # of a table that keeps them
    cells: list[tuple[WideCell, ...]] | None = None  # of a wide table

    def values(self) -> list[Value | None]:
        """Value or siblings of each row. Raises ValueError for one that has neither."""
        found = _joined(self.value or [], self.siblings)
        if not lacks_none(found):
            raise ValueError("a row of the page has no value")
        return found


class ManyColumns(Struct, gc=False):
    """Columns of a multi-get; a value of None says that there is no such row."""

    key: list[bytes]
    version: list[int | None]
    partition: list[int]
    value: list[bytes | None] | None = None
    siblings: list[Siblings | None] | None = None
    cells: list[tuple[WideCell, ...] | None] | None = None

    def values(self) -> list[Value | None]:
        """Value or siblings of each row. Raises ValueError."""
        return _joined(self.value or [], self.siblings)


class _Item(Struct, gc=False):
    key: bytes
    version: int
    partition: int
    value: bytes | None = None


class _Result(Struct, gc=False):
    key: bytes
    found: bool = True
    value: bytes | None = None
    version: int | None = None
    partition: int = 0


class LeftOut(Struct, gc=False):
    """A key that was left out, and the word why."""

    key: bytes
    reason: str


class PageBody(Struct, gc=False):
    """A page of a scan."""

    token: str | None
    cursor: str | None
    columns: PageColumns | None = None
    rows: list[_Item] | None = None

    def in_columns(self) -> PageColumns:
        """Columns of its rows. Raises ValueError when there are none."""
        if self.columns is not None:
            return self.columns
        if self.rows is None:
            raise ValueError(_NO_ROWS)
        values: list[bytes | None] = [row.value for row in self.rows if row.value is not None]
        return PageColumns(
            [row.key for row in self.rows],
            [row.version for row in self.rows],
            [row.partition for row in self.rows],
            values,
        )


class ManyBody(Struct, gc=False):
    """An answer to a multi-get."""

    token: str | None
    unprocessed: list[LeftOut]
    columns: ManyColumns | None = None
    results: list[_Result] | None = None

    def in_columns(self) -> ManyColumns:
        """Columns of its rows. Raises ValueError when there are none."""
        if self.columns is not None:
            return self.columns
        if self.results is None:
            raise ValueError(_NO_ROWS)
        if any(row.found and row.value is None for row in self.results):
            raise ValueError("a row that was found has no value")
        return ManyColumns(
            [row.key for row in self.results],
            [row.version for row in self.results],
            [row.partition for row in self.results],
            [row.value if row.found else None for row in self.results],
        )


def _joined(values: list[bytes | None], siblings: list[Siblings | None] | None) -> list[Value | None]:
    """Value or siblings of each row. Raises ValueError where columns contradict each other."""
    if siblings is None:
        return values  # type: ignore[return-value]  # nobody writes into it
    if len(siblings) != len(values):
        raise ValueError("its columns are not of one length")
    if any(
        some is not None and (one is not None or len(some) < _LEAST_SIBLINGS)
        for one, some in zip(values, siblings, strict=True)
    ):
        raise ValueError("a row has a value and siblings, or siblings that are none")
    return [one if some is None else some for one, some in zip(values, siblings, strict=True)]


class _CellItem(Struct, gc=False):
    family: str
    qualifier: bytes
    version: int
    timestamp: int
    value: bytes


_CELL_FIELDS = attrgetter("family", "qualifier", "version", "timestamp", "value")


class CellsBody(Struct, gc=False):
    """A wide row, alone."""

    cells: list[_CellItem]


def wide_cells(body: bytes) -> tuple[WideCell, ...]:
    """Cells of a wide row's document, made without a frame for each. Raises ValueError."""
    return tuple(map(tuple.__new__, repeat(WideCell), map(_CELL_FIELDS, _wide_row_body(body).cells)))


page_body = Decoder(PageBody).decode
many_body = Decoder(ManyBody).decode
_wide_row_body = Decoder(CellsBody).decode


class _Positions(Struct, gc=False):
    positions: dict[str, int]


_POSITIONS = Decoder(_Positions)


def read_positions(body: bytes) -> dict[int, int]:
    """The next offsets at which a page was read, by partition. Raises ValueError."""
    return {int(partition): following for partition, following in _POSITIONS.decode(body).positions.items()}
