"""WideRow: a row of cells, as it was read."""

from msgspec import Struct

from logstore.client.checks import Text
from logstore.model.position import Position
from logstore.model.wide.cell import WideCell
from logstore.model.wide.columns import column_of

Column = Text | tuple[str, Text]  # "family:qualifier", or the two


class WideRow(Struct, frozen=True, gc=False):
    """A wide row, or the cells of it that were asked for: at least one.

        row = store.get_row("pages", "org.example/", columns=["content:", "anchor:"], versions=3)
        row["content", b"html"], row["content:html"]  # its newest value; KeyError where there is no such cell
        [cell.version for cell in row.versions_of("content:html")]

    key        of the row
    cells      by family and qualifier, newest version first
    version    of the row: offset of the last mutation that named a cell of it
    partition  where the row is
    token      of the answer: read elsewhere after it, and at least this is seen
    source     "view" or "snapshot": where the row was; empty in a list
    """

    key: bytes
    cells: tuple[WideCell, ...]
    version: int
    partition: int
    token: str
    source: str = ""

    @property
    def position(self) -> Position:
        """The token as a position, for `after`."""
        return Position.parse(self.token)

    def versions_of(self, column: Column) -> list[WideCell]:
        """The versions of a cell that were read, the newest first; empty where there is no such cell."""
        named = column_of(column)
        return [cell for cell in self.cells if cell[:2] == named]

    def family(self, name: str) -> dict[bytes, bytes]:
        """The newest value of each cell of a family, by qualifier."""
        return {cell.qualifier: cell.value for cell in reversed(self.cells) if cell.family == name}

    def get(self, column: Column, default: bytes | None = None) -> bytes | None:
        """The newest value of a cell; `default` where there is no such cell."""
        found = self.versions_of(column)
        return found[0].value if found else default

    def __getitem__(self, column: Column) -> bytes:
        value = self.get(column)
        if value is None:
            raise KeyError(column)
        return value

    def __contains__(self, column: Column) -> bool:
        return self.get(column) is not None
