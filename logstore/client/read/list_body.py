"""List body: what a page of a scan and a multi-get say (msgpack), decoded and checked in one go by msgspec.

Rows come in columns, or one by one from nodes that do not know that form.
"""

from msgspec import Struct
from msgspec.msgpack import Decoder

_NO_ROWS = "it has neither columns nor rows"


class PageColumns(Struct, gc=False):
    """Columns of a page; no value where only keys were asked for."""

    key: list[bytes]
    version: list[int]
    partition: list[int]
    value: list[bytes] | None = None


class ManyColumns(Struct, gc=False):
    """Columns of a multi-get; a value of None says that there is no such row."""

    key: list[bytes]
    value: list[bytes | None]
    version: list[int | None]
    partition: list[int]


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
        values = [row.value for row in self.rows if row.value is not None]
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
            [row.value if row.found else None for row in self.results],
            [row.version for row in self.results],
            [row.partition for row in self.results],
        )


page_body = Decoder(PageBody).decode
many_body = Decoder(ManyBody).decode
