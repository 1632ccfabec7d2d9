"""WideCell: one version of a cell of a wide row; and the cells of a row that a read selects."""

from typing import NamedTuple

from msgspec import Struct

from logstore.model.folding.sibling import Ends, first_end

CELL_BYTES = 128  # of a cell in an answer, beside its qualifier and value: names of fields, family, two numbers


class PackedCells(bytes):
    """The payload of a wide row: all of its cells and versions, packed; no value of a row."""


class WideCell(NamedTuple):
    """A version of a cell, as it was read."""

    family: str
    qualifier: bytes
    version: int  # offset of the mutation that wrote it
    timestamp_ms: int  # of that mutation, as the log has it
    value: bytes


class RowCells(Struct, frozen=True, gc=False):
    """Cells of a row that a read selects, by family and qualifier, newest version first. Its length is in bytes.

    `ends`: when each of them ends; empty: none does.
    """

    cells: tuple[WideCell, ...]
    ends: Ends = ()

    @property
    def ends_ms(self) -> int | None:
        """End of the first of them; None: never."""
        return first_end(self.ends)

    def __len__(self) -> int:
        return sum(CELL_BYTES + len(one.qualifier) + len(one.value) for one in self.cells)

    def __bool__(self) -> bool:
        return bool(self.cells)

    def __repr__(self) -> str:
        return f"RowCells({self.cells!r:.200})"
