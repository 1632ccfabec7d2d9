"""Encoding of changes: documents for a long poll in JSON or msgpack, and events of a stream (server-sent events).

event: put                                  put, delete, live, reset, end
data: {"event": "put", "key": ..., ...}     of a row with values side by side with `siblings` in the place of `value`,
                                            of a wide row with `cells`

id: <resume point>                          alone, behind the events that it covers
"""

from collections.abc import Callable, Iterable
from typing import Any

import orjson

from logstore.model.changes.before import CellBefore
from logstore.model.changes.resume_point import ResumePoint
from logstore.model.changes.row_change import RowChange
from logstore.serve.changes.chunk import Chunk
from logstore.serve.read.encoding import cell_document, json_bytes, value_fields

PUT, DELETE, LIVE, RESET, END = "put", "delete", "live", "reset", "end"


def document(
    change: RowChange, partition: int, field: Callable[[bytes], Any], *, before: bool = False
) -> dict[str, Any]:  # fmt: skip
    """A change as a document, ready for JSON or msgpack. `before`: with what its row was before."""
    return {
        "event": DELETE if change.value is None else PUT,
        "key": field(change.key),
        **_held(change, field),
        "version": change.version,
        "timestamp": change.time_ms,
        "partition": partition,
        **(_before(change, field) if before else {}),
    }


def _before(change: RowChange, field: Callable[[bytes], Any]) -> dict[str, Any]:
    if not change.before:
        return {"before": None, "before_reason": change.before_reason}
    return {"before": [_cell_before(one, field) for one in change.before]}


def _cell_before(one: CellBefore, field: Callable[[bytes], Any]) -> dict[str, Any]:
    if one.cell is None:
        return {"family": one.family, "qualifier": field(one.qualifier), "value": None, "reason": one.reason}
    return cell_document(one.cell, field)


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


def documents(
    chunks: Iterable[Chunk], field: Callable[[bytes], Any], *, before: bool = False
) -> list[dict[str, Any]]:  # fmt: skip
    """The changes of chunks, in order."""
    return [document(change, chunk.partition, field, before=before) for chunk in chunks for change in chunk.changes]


def events(chunk: Chunk, *, before: bool = False) -> bytes:
    """The events of a chunk but for the blank line behind the last, drawn once for all who are sent it."""
    if before:
        chunk.shared_before = chunk.shared_before or _drawn(chunk, before=True)
        return chunk.shared_before
    chunk.shared = chunk.shared or _drawn(chunk, before=False)
    return chunk.shared


def _drawn(chunk: Chunk, *, before: bool) -> bytes:
    return b"\n".join([event(str(one["event"]), one) for one in documents([chunk], json_bytes, before=before)])


def event(name: str, fields: dict[str, Any]) -> bytes:
    """One event, but for the blank line behind it."""
    return b"event: %b\ndata: %b\n" % (name.encode(), orjson.dumps(fields))


def with_id(text: bytes, point: ResumePoint) -> bytes:
    """Events, with the id that a client names when it comes back behind the last of them."""
    return b"%bid: %b\n\n" % (text, point.text.encode())
