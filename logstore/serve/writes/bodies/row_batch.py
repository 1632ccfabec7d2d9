"""Row batch: the body of `rows:write`, 1 to 1,000 mutations, parsed and checked as a whole before anything is written.

    application/x-ndjson    a JSON object a line
    application/msgpack     an array of maps

    {"key", "op": "put" | "delete" | "incr" | "append" | "edit", "id", "ttl_ms", "seen", "rows"} and what a `RowPatch`
    says; `op` is put when it is absent

An edit of several rows has `rows`, each with its key and edits, in the place of `key` and `edits`.
"""

import binascii

import msgspec
from msgspec import Raw

from logstore.model.errors import LogStoreError, UsageError
from logstore.model.key import check_key
from logstore.model.table import Table
from logstore.serve.read.outcomes import read_mutation_id
from logstore.serve.settings import MAX_BATCH_ROWS
from logstore.serve.wire.media_types import MSGPACK
from logstore.serve.wire.problems import Problem, problem_of
from logstore.serve.writes.bodies.cell_edits import ABSENT, Bytes, RowOfEdits, edited_row, edited_rows
from logstore.serve.writes.bodies.row_patch import RowPatch, json_bytes, msgpack_bytes
from logstore.serve.writes.row_record import MAX_TTL_MS, PUT, RowRecord, check_seen

NDJSON = "application/x-ndjson"
KINDS = (NDJSON, MSGPACK)
_MAX_LINES = 2 * MAX_BATCH_ROWS  # empty ones among them


class _Row(RowPatch):
    """One of many mutations."""

    key: Raw = ABSENT
    id: str | None = None
    ttl_ms: int | None = None
    seen: int | None = None
    rows: list[RowOfEdits] | None = None


_LINE = msgspec.json.Decoder(_Row)
_MAPS = msgspec.msgpack.Decoder(list[_Row])


def read_batch(kind: str, body: bytes, table: Table, level: str | None) -> list[RowRecord]:
    """The records of a body, all of one write level. Raises Problem with the place of the row that is wrong."""
    rows, to_bytes = (_of_msgpack(body), msgpack_bytes) if kind == MSGPACK else (_of_lines(body), json_bytes)
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
    row.check_fields(rows=row.rows is not None)
    if row.ttl_ms is not None and (row.op != PUT or not 1 <= row.ttl_ms <= MAX_TTL_MS):
        raise UsageError("ttl_ms is a number of milliseconds from 1 on, of a put")
    if bool(bytes(row.key)) == (row.rows is not None):
        raise UsageError("a mutation has a key; an edit of several rows has rows, each with its key")
    condition = row.condition(to_bytes)
    mutation_id = None if row.id is None else read_mutation_id(row.id)
    check_seen(row.seen, row.op, condition)
    if row.rows is not None:
        return RowRecord.of_edit(edited_rows(row.rows, to_bytes), condition, mutation_id)
    key = check_key(to_bytes(row.key))
    if row.edits is not None:
        return RowRecord.of_edit(edited_row(key, row.edits, to_bytes), condition, mutation_id)
    return RowRecord(row.op, key, row.payload(to_bytes), condition, mutation_id, row.ttl_ms, row.seen)
