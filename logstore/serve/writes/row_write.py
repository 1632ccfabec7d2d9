"""Row write: one row put, deleted or changed, `PUT|DELETE|PATCH /v1/tables/{table}/rows/{key}`.

What PATCH does to the row is a `RowPatch` in JSON or msgpack: incr, append or edit.
"""

import asyncio
from http import HTTPStatus

import orjson

from logstore.model.errors import NotConditional
from logstore.model.table import Table
from logstore.serve.read.consistency import Consistency
from logstore.serve.read.consistency_wait import ConsistencyWait, answer_token, deadline_of
from logstore.serve.read.parameters.row_key import decode_key
from logstore.serve.settings import MAX_BATCH_BYTES, MAX_PARSED_BYTES
from logstore.serve.wire import media_types
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import Request
from logstore.serve.wire.response import Headers, Response
from logstore.serve.writes.bodies.row_patch import PATCH_KINDS, read_patch
from logstore.serve.writes.gateway import Gateway
from logstore.serve.writes.row_record import DELETE, PUT, RowRecord
from logstore.serve.writes.write_answers import Fate, as_problem, document_of
from logstore.serve.writes.write_terms import PARAMS, WriteTerms, read_terms
from logstore.serve.writes.writes_in_flight import BodyHold, WritesInFlight

_HINT = "split the value, or create the table with a larger --max-value-bytes"
_LESS = "split the edit, or write less at once"
_PROBLEM = b"application/problem+json"


class RowWrite:
    """The page of single rows, as it is written."""

    def __init__(self, wait: ConsistencyWait, gateway: Gateway, flight: WritesInFlight) -> None:
        self._wait, self._gateway, self._flight = wait, gateway, flight

    async def put(self, request: Request, name: str, raw_key: bytes) -> Response:
        """Put a row: its value is the body."""
        return await self._write(request, name, raw_key, PUT)

    async def delete(self, request: Request, name: str, raw_key: bytes) -> Response:
        """Delete a row."""
        return await self._write(request, name, raw_key, DELETE)

    async def patch(self, request: Request, name: str, raw_key: bytes) -> Response:
        """Change a row by what it is: the steps of `_write`, but the body says which record it is."""
        params = request.params(PARAMS)
        terms, key = read_terms(request, params), decode_key(raw_key, params)
        kind = _kind(request, terms)
        table = await self._wait.table(name, terms.known_by, deadline_of(terms.level))
        self._gateway.check_answers(table, [])
        with BodyHold(self._flight) as hold:
            _check_content(request)
            body = await request.body(MAX_BATCH_BYTES, _LESS, hold.grow)
            change = (
                read_patch(kind, body, key)
                if len(body) <= MAX_PARSED_BYTES
                else await asyncio.to_thread(read_patch, kind, body, key)
            )
            record = _with_terms(change, terms, table)
            record.check_takes(table)
            self._gateway.check_answers(table, [record])
            [fate] = await self._gateway.write(table, [record], terms.level, deadline_of(terms.level))
        return _answer(fate, table, terms.level)

    async def _write(self, request: Request, name: str, raw_key: bytes, operation: str) -> Response:
        """Answer a write in steps.

        1 parse the request, 2 know the table and what it takes, 3 take the body, 4 write, 5 answer.
        """
        params = request.params(PARAMS)
        terms, key = read_terms(request, params), decode_key(raw_key, params)
        table = await self._wait.table(name, terms.known_by, deadline_of(terms.level))
        record = _record(operation, key, terms, table)
        record.check_takes(table)
        self._gateway.check_answers(table, [record])
        with BodyHold(self._flight) as hold:
            if operation == PUT:
                _check_content(request)
                record = record._replace(value=await request.body(table.max_value_bytes, _HINT, hold.grow))
            else:
                _check_no_body(request)
            # counted from here: how long a body may take to arrive is the protocol's to say
            [fate] = await self._gateway.write(table, [record], terms.level, deadline_of(terms.level))
        return _answer(fate, table, terms.level)


def _record(operation: str, key: bytes, terms: WriteTerms, table: Table) -> RowRecord:
    """The record, without its value. One that the log decides has an id, for whoever loses the answer."""
    record = RowRecord(operation, key, None, ttl_ms=terms.ttl_ms, seen=terms.seen)
    if operation == DELETE and terms.ttl_ms is not None:
        raise Problem("bad-request", "a delete has no LS-Ttl: what is deleted has ended", parameter="ls-ttl")
    return _with_terms(record, terms, table)


def _with_terms(record: RowRecord, terms: WriteTerms, table: Table) -> RowRecord:
    """The record with condition, id and level of the headers."""
    if record.condition is not None and (terms.condition or terms.tag) is not None:
        raise Problem("bad-request", "a write has one condition: If-Match, If-None-Match, or `if` in its body")
    condition = terms.condition if record.condition is None else record.condition
    record = record._replace(condition=condition, id=terms.id, level=terms.write_level)
    if terms.tag is not None:
        if not table.conditional:
            raise NotConditional(table.name)
        record = record._replace(condition=terms.tag.condition(table, record.partition(table)))
    return record.with_id(table)


def _answer(fate: Fate, table: Table, level: Consistency) -> Response:
    if fate.refusal is not None:
        raise as_problem(fate.refusal)
    document = document_of(fate, table)
    media_type = media_types.JSON.encode() if fate.status < HTTPStatus.BAD_REQUEST else _PROBLEM
    headers: Headers = [(b"content-type", media_type)]
    if (etag := fate.etag(table)) is not None:
        headers.append((b"etag", etag.encode()))
    partition = fate.record.partition(table)
    headers.append((b"ls-partition", b"%d" % partition))
    if (version := fate.version()) is not None:
        headers.append((b"ls-version", b"%d" % version))
    positions = {} if fate.position is None else {partition: fate.position.offset + 1}
    token = answer_token(level, table.epoch, positions)
    body = orjson.dumps({**document, "token": token})
    return Response(
        fate.status, [*headers, (b"ls-token", token.encode()), (b"content-length", b"%d" % len(body))], body
    )


def _kind(request: Request, terms: WriteTerms) -> str:
    """The media type of a change. Raises Problem for what is none, and for terms that a change has not."""
    if terms.ttl_ms is not None or terms.seen is not None:
        raise Problem("bad-request", "LS-Ttl and LS-Seen are of whole values: a change has neither")
    kind = (request.header(b"content-type") or "").partition(";")[0].strip().lower()
    if kind not in PATCH_KINDS:
        raise Problem("unsupported-media-type", f"a change comes as {' or '.join(PATCH_KINDS)}, not {kind[:60]!r}")
    return kind


def _check_content(request: Request) -> None:
    """Raise Problem for a body that is not the whole value as it stands."""
    coding = request.header(b"content-encoding")
    if coding is not None and coding.strip().lower() != "identity":
        raise Problem("unsupported-media-type", "a value is stored as it stands: send it without Content-Encoding")
    if request.header(b"content-range") is not None:
        raise Problem("bad-request", "a put writes a whole value: send it without Content-Range")


def _check_no_body(request: Request) -> None:
    """Raise Problem for a delete with a body, which somebody expects to matter."""
    length = request.header(b"content-length")
    if request.header(b"transfer-encoding") is not None or length not in (None, "0"):
        raise Problem("bad-request", "a delete has no body")
