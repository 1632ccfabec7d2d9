"""Encoding of the rows of a scan or multi-get: JSON, msgpack, columns of msgpack or Arrow.

JSON      keys and values are strings where they are valid UTF-8, else {"base64": "..."}, padded
msgpack   keys and values are raw bytes
columns   the same with a list of each field, not a map of each row: a third of the work at both ends
Arrow     a stream of one schema: key, value, version, partition; cursor, token and positions in the schema's metadata
          (scans only)

A row with values side by side has `siblings`, a list of {"version", "value"}, in the place of its value. In columns
both are there: one of them is null, and siblings are lists of [version, value]. A wide row has `cells`, a list of
{"family", "qualifier", "version", "timestamp", "value"}; in columns each is a list of these, and in Arrow a row.
"""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack
import orjson

from logstore.model.folding.sibling import Ends, Siblings, Value
from logstore.model.table import Table
from logstore.model.wide.cell import RowCells, WideCell
from logstore.serve.settings import MAX_ACCEPT_BYTES
from logstore.serve.wire import media_types
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import Request
from logstore.serve.wire.response import Response

_MAX_TOKEN_HEADER = 8 * 1024
Field = Callable[[bytes], Any]
Held = Value | RowCells  # by a row


class EncodedRow(NamedTuple):
    """A row as it was read; `value` None: only keys were asked for, or there is none. `ends`: see `one_instant`."""

    key: bytes
    value: Held | None
    version: int | None
    partition: int
    ends: Ends = ()


class FoundKey(NamedTuple):
    """Result for one key: `reason` is set when the key was left out. `ends`: see `one_instant`."""

    key: bytes
    partition: int
    value: Held | None = None
    version: int | None = None
    reason: str | None = None
    ends: Ends = ()


def json_bytes(raw: bytes) -> Any:
    """Bytes in a JSON document."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def negotiate(request: Request, offers: tuple[str, ...]) -> str:
    """The media type of the answer; raises Problem."""
    accept = request.header(b"accept")
    if accept is not None and len(accept) > MAX_ACCEPT_BYTES:
        raise Problem(
            "headers-too-large", f"Accept has at most {MAX_ACCEPT_BYTES:,} bytes", limit_bytes=MAX_ACCEPT_BYTES
        )
    chosen = media_types.choose(accept, offers)
    if chosen is None:
        raise Problem("not-acceptable", f"this list comes as {', '.join(offers)}")
    return chosen


def encode(media_type: str, document: Callable[[Field], dict[str, Any]]) -> Response:
    """An answer in JSON or msgpack; `document` is given what makes a field of bytes."""
    body = msgpack.packb(document(bytes)) if media_type == media_types.MSGPACK else orjson.dumps(document(json_bytes))
    return _list(media_type, body)


def held_by(table: Table, *, keys_only: bool = False) -> str | None:
    """Field of lists that has what rows of a table hold: value, siblings or cells; None where keys alone are asked for.

    Siblings are rows that may have several values.
    """
    if keys_only:
        return None
    return "cells" if table.wide else "siblings" if table.siblings else "value"


def columns(rows: Iterable[EncodedRow], tail: Mapping[str, Any], held: str | None) -> Response:
    """An answer in columns, and what follows them; a value or version of None says that there is no such row.

    `held`: see `held_by`.
    """
    fields: dict[str, Sequence[Any]] = dict(zip(EncodedRow._fields, zip(*rows, strict=True), strict=False))
    fields = fields or dict.fromkeys(EncodedRow._fields, ())
    del fields["ends"]
    if held is None:
        del fields["value"]
    elif held == "siblings":
        fields["value"], fields["siblings"] = _apart(fields["value"])
    elif held == "cells":
        fields["cells"] = [value.cells if isinstance(value, RowCells) else None for value in fields.pop("value")]
    return _list(media_types.COLUMNS, msgpack.packb({"columns": fields, **tail}))


def _list(media_type: str, body: bytes) -> Response:
    return Response(
        200,
        [(b"content-type", media_type.encode()), (b"content-length", b"%d" % len(body)), (b"vary", b"accept")],
        body,
    )


def _apart(values: Iterable[Any]) -> tuple[list[bytes | None], list[Siblings | None]]:
    """Single values, and siblings: a column each."""
    pairs = [(None, value) if isinstance(value, tuple) else (value, None) for value in values]
    return [one for one, _ in pairs], [several for _, several in pairs]


def sibling_documents(siblings: Siblings, field: Field) -> list[dict[str, Any]]:
    """Siblings as documents, ready for JSON or msgpack."""
    return [{"version": one.version, "value": field(one.value)} for one in siblings]


def cell_documents(row: RowCells, field: Field) -> list[dict[str, Any]]:
    """Cells as documents, ready for JSON or msgpack."""
    return [cell_document(cell, field) for cell in row.cells]


def cell_document(cell: WideCell, field: Field) -> dict[str, Any]:
    """A cell as a document, ready for JSON or msgpack."""
    family, qualifier, version, at_ms, value = cell
    return {
        "family": family,
        "qualifier": field(qualifier),
        "version": version,
        "timestamp": at_ms,
        "value": field(value),
    }


def value_fields(value: Held | None, field: Field) -> dict[str, Any]:
    """Fields of a row's document that say what it holds: its value, its siblings, its cells, or nothing."""
    if isinstance(value, RowCells):
        return {"cells": cell_documents(value, field)}
    if isinstance(value, tuple):
        return {"siblings": sibling_documents(value, field)}
    return {} if value is None else {"value": field(value)}


def rows_of(rows: Iterable[EncodedRow], field: Field) -> list[dict[str, Any]]:
    """Rows as documents, ready for JSON or msgpack."""
    return [
        {"key": field(key), **value_fields(value, field), "version": version, "partition": partition}
        if not isinstance(value, bytes)
        else {"key": field(key), "value": field(value), "version": version, "partition": partition}
        for key, value, version, partition, _ in rows
    ]


def arrow(rows: list[EncodedRow], held: str | None, *, metadata: Mapping[str, Any]) -> Response:
    """An answer as an Arrow stream. `held`: see `held_by`; siblings have a column of their own, cells a row each."""
    import pyarrow as pa  # noqa: PLC0415 - 40 MB that most readers never need

    columns = _arrow_cells(rows) if held == "cells" else _arrow_rows(rows, held)
    table = pa.table(columns).replace_schema_metadata({name: orjson.dumps(value) for name, value in metadata.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return _list(media_types.ARROW, sink.getvalue().to_pybytes())


def _arrow_cells(rows: list[EncodedRow]) -> dict[str, Any]:
    import pyarrow as pa  # noqa: PLC0415 - as above

    found = [(row, cell) for row in rows if isinstance(row.value, RowCells) for cell in row.value.cells]
    return {
        "key": pa.array([row.key for row, _ in found], pa.binary()),
        "family": pa.array([cell.family for _, cell in found], pa.string()),
        "qualifier": pa.array([cell.qualifier for _, cell in found], pa.binary()),
        "cell_version": pa.array([cell.version for _, cell in found], pa.int64()),
        "timestamp": pa.array([cell.timestamp_ms for _, cell in found], pa.timestamp("ms", "UTC")),
        "value": pa.array([cell.value for _, cell in found], pa.binary()),
        "version": pa.array([row.version for row, _ in found], pa.int64()),
        "partition": pa.array([row.partition for row, _ in found], pa.int32()),
    }


def _arrow_rows(rows: list[EncodedRow], held: str | None) -> dict[str, Any]:
    import pyarrow as pa  # noqa: PLC0415 - as above

    values, several = _apart(row.value for row in rows)
    columns = {
        "key": pa.array([row.key for row in rows], pa.binary()),
        "value": pa.array(values, pa.binary()),
        "version": pa.array([row.version for row in rows], pa.int64()),
        "partition": pa.array([row.partition for row in rows], pa.int32()),
    }
    if held is None:
        del columns["value"]
    elif held == "siblings":
        members = [None if some is None else [one._asdict() for one in some] for some in several]
        columns["siblings"] = pa.array(members, pa.list_(pa.struct({"version": pa.int64(), "value": pa.binary()})))
    return columns


def with_token(answer: Response, token: str, time_ms: int = 0) -> Response:
    """The answer with its token as a header too, where clients take a header of that length, and the instant of it."""
    if time_ms:
        answer.headers.append((b"ls-time", b"%d" % time_ms))
    if len(token) <= _MAX_TOKEN_HEADER:
        answer.headers.extend([(b"ls-source", b"view"), (b"ls-token", token.encode())])
    return answer
