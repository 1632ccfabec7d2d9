"""Batch write: many rows at once, `POST /v1/tables/{table}/rows:write`.

Rows are checked together, and written each for itself: there is no transaction over them. Rows of one partition enter
the log in their order. The answer has a result for each, in the order of the request; its status is 200 when all had
their effect, else 207, or that of a problem when nothing was written.
"""

import asyncio
from http import HTTPStatus

import orjson

from logstore.serve.read.consistency_wait import ConsistencyWait, answer_token, deadline_of
from logstore.serve.settings import MAX_BATCH_BYTES, MAX_PARSED_BYTES
from logstore.serve.wire import media_types
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import Request
from logstore.serve.wire.response import Response, page
from logstore.serve.writes.bodies.row_batch import KINDS, read_batch
from logstore.serve.writes.gateway import Gateway
from logstore.serve.writes.write_answers import document_of
from logstore.serve.writes.write_terms import PARAMS, read_terms
from logstore.serve.writes.writes_in_flight import BodyHold, WritesInFlight

_PARAMS = PARAMS - {"key_encoding"}
_HINT = "write fewer rows at once"
_OF_ROWS = (b"if-match", b"if-none-match", b"ls-id", b"ls-ttl")


class BatchWrite:
    """The page of many writes."""

    def __init__(self, wait: ConsistencyWait, gateway: Gateway, flight: WritesInFlight) -> None:
        self._wait, self._gateway, self._flight = wait, gateway, flight

    async def post(self, request: Request, name: str) -> Response:
        """Answer many writes in steps.

        1 parse the request, 2 know the table, 3 take and check the body, 4 write, 5 answer row by row.
        """
        params = request.params(_PARAMS)
        terms = read_terms(request, params, of_row=False)
        level, write_level = terms.level, terms.write_level
        kind = _kind(request)
        table = await self._wait.table(name, level, deadline_of(level))
        self._gateway.check_answers(table, [])
        with BodyHold(self._flight) as hold:
            body = await request.body(MAX_BATCH_BYTES, _HINT, hold.grow)
            records = (
                read_batch(kind, body, table, write_level)
                if len(body) <= MAX_PARSED_BYTES
                else await asyncio.to_thread(read_batch, kind, body, table, write_level)
            )
            self._gateway.check_answers(table, records)
            fates = await self._gateway.write(table, records, level, deadline_of(level))
        results = [{"status": int(fate.status), **document_of(fate, table)} for fate in fates]
        positions: dict[int, int] = {}
        for position in (fate.position for fate in fates if fate.position is not None):
            positions[position.partition] = max(positions.get(position.partition, 0), position.offset + 1)
        token = answer_token(level, table.epoch, positions)
        status = HTTPStatus.OK if all(fate.is_done for fate in fates) else HTTPStatus.MULTI_STATUS
        answer = page(orjson.dumps({"results": results, "token": token}), media_types.JSON, status)
        return answer._replace(headers=[*answer.headers, (b"ls-token", token.encode())])


def _kind(request: Request) -> str:
    """The media type of the body. Raises Problem for what is none, and for terms of one row."""
    for name in _OF_ROWS:
        if request.header(name) is not None:
            raise Problem(
                "bad-request", f"{name.decode()} is of one row: here each row has its own", parameter=name.decode()
            )
    kind = (request.header(b"content-type") or "").partition(";")[0].strip().lower()
    if kind not in KINDS:
        raise Problem("unsupported-media-type", f"rows come as {' or '.join(KINDS)}, not {kind[:60]!r}")
    return kind
