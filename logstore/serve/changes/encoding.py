"""Encoding of changes: documents for a long poll in JSON or msgpack, and events of a stream (server-sent events).

event: put                                  put, delete, live, reset, end
data: {"event": "put", "key": ..., ...}     of a row with values side by side with `siblings` in the place of `value`,
                                            of a wide row with `cells`

id: <resume point>                          alone, behind the events that it covers
"""

from collections.abc import Callable, Iterable
from typing import Any

import orjson

from logstore.model.changes.resume_point import ResumePoint
from logstore.model.changes.row_change import RowChange
from logstore.serve.changes.chunk import Chunk
from logstore.serve.read.encoding import json_bytes, value_fields

PUT, DELETE, LIVE, RESET, END = "put", "delete", "live", "reset", "end"


def document(change: RowChange, partition: int, field: Callable[[bytes], Any]) -> dict[str, Any]:
    """A change as a document, ready for JSON or msgpack."""
    return {
        "event": DELETE if change.value is None else PUT,
        "key": field(change.key),
        **_held(change, field),
        "version": change.version,
        "timestamp": change.time_ms,
        "partition": partition,
    }


def _held(change: RowChange, field: Callable[[bytes], Any]) -> dict[str, Any]:
    """Fields of what a row holds; `expires` stands beside each value, sibling or cell that ends."""
    if change.value is None:
        return {"value": None}
    fields = value_fields(change.value, field)
    parts = [fields] if isinstance(change.value, bytes) else next(iter(fields.values()))
    for part, end_ms in zip(parts, change.ends, strict=False):  # no ends: nothing of it does
        if end_ms is not None:
            part["expires"] = end_ms
    return fields


def documents(chunks: Iterable[Chunk], field: Callable[[bytes], Any]) -> list[dict[str, Any]]:
    """The changes of chunks, in order."""
    return [document(change, chunk.partition, field) for chunk in chunks for change in chunk.changes]


def events(chunk: Chunk) -> bytes:
    """The events of a chunk but for the blank line behind the last, drawn once for all who are sent it."""
    if chunk.shared is None:
        documents = (document(change, chunk.partition, json_bytes) for change in chunk.changes)
        chunk.shared = b"\n".join([event(str(one["event"]), one) for one in documents])
    return chunk.shared


def event(name: str, fields: dict[str, Any]) -> bytes:
    """One event, but for the blank line behind it."""
    return b"event: %b\ndata: %b\n" % (name.encode(), orjson.dumps(fields))


def with_id(text: bytes, point: ResumePoint) -> bytes:
    """Events, with the id that a client names when it comes back behind the last of them."""
    return b"%bid: %b\n\n" % (text, point.text.encode())
