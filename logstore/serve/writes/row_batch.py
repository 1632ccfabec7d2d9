"""Row batch: the body of `rows:write`, 1 to 1,000 mutations, parsed and checked as a whole before anything is written.

    application/x-ndjson    a JSON object a line
    application/msgpack     an array of maps

    {"key", "op": "put" | "delete" | "incr" | "append", "value", "delta", "if", "id", "ttl_ms", "seen"}

`op` is put when it is absent. Bytes are a string, or {"base64": "..."} in JSON, or bytes in msgpack. `if` is one of
{"absent": true}, {"present": true}, {"version": n} and {"value": ...}.
"""

import base64
import binascii
from collections.abc import Callable

import msgspec
from msgspec import Raw

from logstore.model.errors import LogStoreError, UsageError
from logstore.model.folding.terms import Condition
from logstore.model.key import check_key
from logstore.model.table import Table
from logstore.serve.read.outcomes import read_mutation_id
from logstore.serve.settings import MAX_BATCH_ROWS
from logstore.serve.wire.media_types import MSGPACK
from logstore.serve.wire.problems import Problem, problem_of
from logstore.serve.writes.row_record import (
    APPEND,
    COUNTER_BYTES,
    DELETE,
    INCR,
    LEAST_DELTA,
    MAX_TTL_MS,
    MOST_DELTA,
    OPERATIONS,
    PUT,
    RowRecord,
    check_seen,
)

NDJSON = "application/x-ndjson"
KINDS = (NDJSON, MSGPACK)
_ABSENT = Raw()
_BIN = (b"\xc4", b"\xc5", b"\xc6")  # how bytes begin in msgpack
_MOST_VERSION = (1 << 63) - 1
_MAX_LINES = 2 * MAX_BATCH_ROWS  # empty ones among them
Bytes = Callable[[Raw], bytes]


class _Expected(msgspec.Struct, forbid_unknown_fields=True):
    """The field "if"."""

    absent: bool = False
    present: bool = False
    version: int | None = None
    value: Raw = _ABSENT


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    """One mutation as it is sent. Bytes stay as they are until it is known that they are some."""

    key: Raw
    op: str = PUT
    value: Raw = _ABSENT
    delta: int | None = None
    expected: _Expected | None = msgspec.field(default=None, name="if")
    id: str | None = None
    ttl_ms: int | None = None
    seen: int | None = None


class _Base64(msgspec.Struct, forbid_unknown_fields=True):
    base64: str


_LINE = msgspec.json.Decoder(_Row)
_TEXT = msgspec.json.Decoder(str | _Base64)
_MAPS = msgspec.msgpack.Decoder(list[_Row])


def read_batch(kind: str, body: bytes, table: Table, level: str | None) -> list[RowRecord]:
    """The records of a body, all of one write level. Raises Problem with the place of the row that is wrong."""
    rows, to_bytes = (_of_msgpack(body), _msgpack_bytes) if kind == MSGPACK else (_of_lines(body), _json_bytes)
    if not 1 <= len(rows) <= MAX_BATCH_ROWS:
        raise Problem("bad-request", f"a request has 1 to {MAX_BATCH_ROWS:,} rows, this one has {len(rows):,}")
    return [_checked(place, row, to_bytes, table, level) for place, row in enumerate(rows)]


def _of_lines(body: bytes) -> list[_Row]:
    if body.count(b"\n") > _MAX_LINES:
        raise Problem("bad-request", f"a request has at most {MAX_BATCH_ROWS:,} rows, a line each")
    lines = [line for line in body.split(b"\n") if line.strip()]
    return [_line(place, line) for place, line in enumerate(lines[: MAX_BATCH_ROWS + 1])]


def _line(place: int, line: bytes) -> _Row:
    try:
        return _LINE.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(
            "bad-request", f"row {place} is not one: {str(error)[:200]}; nothing was written", row=place
        ) from error


def _of_msgpack(body: bytes) -> list[_Row]:
    if (count := _array_count(body)) is None or count > MAX_BATCH_ROWS:
        raise Problem("bad-request", f"the body is an array of 1 to {MAX_BATCH_ROWS:,} maps; nothing was written")
    try:
        return _MAPS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(
            "bad-request", f"the body is no array of rows: {str(error)[:200]}; nothing was written"
        ) from error


def _array_count(body: bytes) -> int | None:
    """Elements that an array of msgpack says it has; None: it is none."""
    if body[:1] in (b"\xdc", b"\xdd"):
        return int.from_bytes(body[1 : 3 if body[0] == 0xDC else 5])
    return body[0] & 0x0F if body and body[0] & 0xF0 == 0x90 else None


def _json_bytes(raw: Raw) -> bytes:
    found = _TEXT.decode(raw)
    return found.encode() if isinstance(found, str) else base64.b64decode(found.base64, validate=True)


def _msgpack_bytes(raw: Raw) -> bytes:
    if bytes(raw)[:1] in _BIN:
        return msgspec.msgpack.decode(raw, type=bytes)
    return msgspec.msgpack.decode(raw, type=str).encode()


def _checked(place: int, row: _Row, to_bytes: Bytes, table: Table, level: str | None) -> RowRecord:
    try:
        record = _record(row, to_bytes)._replace(level=level).with_id(table)
        record.check_takes(table)
    except Problem as problem:
        problem.fields["row"] = place
        raise
    except LogStoreError as error:
        found = problem_of(error)
        found.fields["row"] = place
        raise found from error
    except (msgspec.DecodeError, UnicodeError, binascii.Error, RecursionError) as error:
        raise Problem(
            "bad-request", f"row {place}: bytes are a string, bytes (msgpack) or {{\"base64\": ...}} ({error!s:.100}); "
            "nothing was written", row=place,
        ) from error  # fmt: skip
    return record


def _record(row: _Row, to_bytes: Bytes) -> RowRecord:
    """The record. Raises Problem, UsageError, and what `to_bytes` raises."""
    if row.op not in OPERATIONS:
        raise UsageError(f"op is one of {', '.join(OPERATIONS)}, not {row.op[:40]!r}")
    if row.ttl_ms is not None and (row.op != PUT or not 1 <= row.ttl_ms <= MAX_TTL_MS):
        raise UsageError("ttl_ms is a number of milliseconds from 1 on, of a put")
    condition = None if row.expected is None else _condition(row.expected, to_bytes)
    mutation_id = None if row.id is None else read_mutation_id(row.id)
    check_seen(row.seen, row.op, condition)
    return RowRecord(
        row.op, check_key(to_bytes(row.key)), _value(row, to_bytes), condition, mutation_id, row.ttl_ms, row.seen
    )  # fmt: skip


def _value(row: _Row, to_bytes: Bytes) -> bytes | None:
    given = bool(bytes(row.value))
    if given != (row.op in (PUT, APPEND)) or (row.delta is not None) != (row.op == INCR):
        raise UsageError("put and append have a value, incr has a delta, delete has neither")
    if row.op == DELETE:
        return None
    if row.delta is None:
        return to_bytes(row.value)
    if not LEAST_DELTA <= row.delta <= MOST_DELTA:
        raise UsageError("delta is a whole number of 64 bits")
    return row.delta.to_bytes(COUNTER_BYTES, signed=True)


def _condition(expected: _Expected, to_bytes: Bytes) -> Condition:
    if expected.version is not None and not 0 <= expected.version <= _MOST_VERSION:
        raise UsageError("a version is an offset: a whole number from 0 on")
    found = [
        *([Condition("absent")] if expected.absent else []),
        *([Condition("present")] if expected.present else []),
        *([] if expected.version is None else [Condition("version", expected.version)]),
        *([Condition.of_value(to_bytes(expected.value))] if bytes(expected.value) else []),
    ]
    if len(found) != 1:
        raise UsageError("`if` has one of absent (true), present (true), version and value")
    return found[0]
