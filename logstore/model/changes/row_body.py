"""Row body: the parts of a row of the change feed in msgpack, as nodes send them to clients and to each other."""

from msgspec import Struct

from logstore.model.changes.before import CellBefore
from logstore.model.wide.cell import WideCell


class SiblingBody(Struct):
    """One of the values of a row as it is sent."""

    version: int
    value: bytes
    expires: int | None = None


class CellBody(Struct):
    """One of the cells of a wide row as it is sent."""

    family: str
    qualifier: bytes
    version: int
    timestamp: int
    value: bytes
    expires: int | None = None


class BeforeBody(Struct):
    """A cell's value before a record, as it is sent."""

    family: str
    qualifier: bytes
    version: int | None = None
    timestamp: int | None = None
    value: bytes | None = None
    reason: str | None = None

    @property
    def cell(self) -> CellBefore:
        """The cell, with its value before."""
        if self.version is None or self.timestamp is None or self.value is None:
            return CellBefore(self.family, self.qualifier, None, self.reason)
        cell = WideCell(self.family, self.qualifier, self.version, self.timestamp, self.value)
        return CellBefore(self.family, self.qualifier, cell)
