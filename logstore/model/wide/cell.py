"""WideCell: one version of a cell of a wide row; and the cells of a row that a read selects."""

from collections.abc import Iterable
from typing import NamedTuple

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


class RowCells:
    """Cells of a row that a read selects, by family and qualifier, newest version first. Its length is in bytes.

    `ends`: when each of them ends; empty: none does.
    """

    __slots__ = ("cells", "ends", "size_bytes")

    def __init__(self, cells: Iterable[WideCell], ends: Ends = ()) -> None:
        self.cells, self.ends = tuple(cells), ends
        self.size_bytes = sum(CELL_BYTES + len(one.qualifier) + len(one.value) for one in self.cells)

    @property
    def ends_ms(self) -> int | None:
        """End of the first of them; None: never."""
        return first_end(self.ends)

    def __len__(self) -> int:
        return self.size_bytes

    def __repr__(self) -> str:
        return f"RowCells({self.cells!r:.200})"
