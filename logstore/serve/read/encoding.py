"""Encoding of the rows of a scan or multi-get: JSON, msgpack, columns of msgpack or Arrow.

JSON      keys and values are strings where they are valid UTF-8, else {"base64": "..."}, padded
msgpack   keys and values are raw bytes
columns   the same with a list of each field, not a map of each row: a third of the work at both ends
Arrow     a stream of one schema: key, value, version, partition; cursor, token and positions in the schema's metadata
          (scans only)

A row with values side by side has `siblings`, a list of {"version", "value"}, in the place of its value. In columns
both are there: one of them is null, and siblings are lists of [version, value].
"""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack
import orjson

from logstore.model.folding.sibling import Siblings, Value
from logstore.serve.settings import MAX_ACCEPT_BYTES
from logstore.serve.wire import media_types
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import Request
from logstore.serve.wire.response import Response

_MAX_TOKEN_HEADER = 8 * 1024
Field = Callable[[bytes], Any]


class EncodedRow(NamedTuple):
    """A row as it was read; `value` None: only keys were asked for, or there is none."""

    key: bytes
    value: Value | None
    version: int | None
    partition: int


class FoundKey(NamedTuple):
    """Result for one key: `reason` is set when the key was left out."""

    key: bytes
    partition: int
    value: Value | None = None
    version: int | None = None
    reason: str | None = None


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


def columns(
    rows: Iterable[EncodedRow], tail: Mapping[str, Any], *, keys_only: bool = False, siblings: bool = False
) -> Response:
    """An answer in columns, and what follows them; a value or version of None says that there is no such row.

    `siblings`: rows of the table may have several values.
    """
    fields: dict[str, Sequence[Any]] = dict(zip(EncodedRow._fields, zip(*rows, strict=True), strict=False))
    fields = fields or dict.fromkeys(EncodedRow._fields, ())
    if keys_only:
        del fields["value"]
    elif siblings:
        fields["value"], fields["siblings"] = _apart(fields["value"])
    return _list(media_types.COLUMNS, msgpack.packb({"columns": fields, **tail}))


def _list(media_type: str, body: bytes) -> Response:
    return Response(
        200,
        [(b"content-type", media_type.encode()), (b"content-length", b"%d" % len(body)), (b"vary", b"accept")],
        body,
    )


def _apart(values: Iterable[Value | None]) -> tuple[list[bytes | None], list[Siblings | None]]:
    """Single values, and siblings: a column each."""
    pairs = [(None, value) if isinstance(value, tuple) else (value, None) for value in values]
    return [one for one, _ in pairs], [several for _, several in pairs]


def sibling_documents(siblings: Siblings, field: Field) -> list[dict[str, Any]]:
    """Siblings as documents, ready for JSON or msgpack."""
    return [{"version": one.version, "value": field(one.value)} for one in siblings]


def value_fields(value: Value | None, field: Field) -> dict[str, Any]:
    """Fields of a row's document that say what it holds: its value, its siblings, or nothing."""
    if isinstance(value, tuple):
        return {"siblings": sibling_documents(value, field)}
    return {} if value is None else {"value": field(value)}


def rows_of(rows: Iterable[EncodedRow], field: Field) -> list[dict[str, Any]]:
    """Rows as documents, ready for JSON or msgpack."""
    return [
        {"key": field(key), **value_fields(value, field), "version": version, "partition": partition}
        if value is None or isinstance(value, tuple)
        else {"key": field(key), "value": field(value), "version": version, "partition": partition}
        for key, value, version, partition in rows
    ]


def arrow(
    rows: list[EncodedRow], *, keys_only: bool, metadata: Mapping[str, Any], siblings: bool = False
) -> Response:  # fmt: skip
    """An answer as an Arrow stream. `siblings`: rows of the table may have several values, which have a column then."""
    import pyarrow as pa  # noqa: PLC0415 - 40 MB that most readers never need

    values, several = _apart(row.value for row in rows)
    columns = {
        "key": pa.array([row.key for row in rows], pa.binary()),
        "value": pa.array(values, pa.binary()),
        "version": pa.array([row.version for row in rows], pa.int64()),
        "partition": pa.array([row.partition for row in rows], pa.int32()),
    }
    if keys_only:
        del columns["value"]
    elif siblings:
        members = [None if some is None else [one._asdict() for one in some] for some in several]
        columns["siblings"] = pa.array(members, pa.list_(pa.struct({"version": pa.int64(), "value": pa.binary()})))
    table = pa.table(columns).replace_schema_metadata({name: orjson.dumps(value) for name, value in metadata.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return _list(media_types.ARROW, sink.getvalue().to_pybytes())


def with_token(answer: Response, token: str, time_ms: int = 0) -> Response:
    """The answer with its token as a header too, where clients take a header of that length, and the instant of it."""
    if time_ms:
        answer.headers.append((b"ls-time", b"%d" % time_ms))
    if len(token) <= _MAX_TOKEN_HEADER:
        answer.headers.extend([(b"ls-source", b"view"), (b"ls-token", token.encode())])
    return answer
