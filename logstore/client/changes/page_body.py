"""Page body: a long poll's answer in msgpack, checked before anybody has an event of it."""

from typing import Literal

from msgspec import DecodeError, Struct
from msgspec.msgpack import Decoder

from logstore.client.transport.answer import HttpAnswer
from logstore.model.changes.row_body import BeforeBody, CellBody, SiblingBody
from logstore.model.errors import ServerError


class EventBody(Struct):
    """One event as it is sent."""

    event: Literal["put", "delete", "reset"]
    key: bytes = b""
    value: bytes | None = None
    version: int = -1
    partition: int = -1
    timestamp: int | None = None
    epoch: str | None = None
    siblings: list[SiblingBody] | None = None
    cells: list[CellBody] | None = None
    expires: int | None = None
    before: list[BeforeBody] | None = None
    before_reason: str | None = None


class ChangesBody(Struct):
    """One page as it is sent."""

    events: list[EventBody]
    next: str
    live: bool


_decode = Decoder(ChangesBody).decode


def changes_body(answer: HttpAnswer) -> ChangesBody:
    """The page that an answer is. Raises ServerError when it is none."""
    try:
        return _decode(answer.content)
    except DecodeError as error:
        raise ServerError(f"the server's answer is no page of changes: {error}", answer.status, {}) from error
