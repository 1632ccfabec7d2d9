"""Row body: the parts of a row of the change feed in msgpack, as nodes send them to clients and to each other."""

from msgspec import Struct


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
