"""Point reads: one value by its key, `GET|HEAD /v1/tables/{table}/rows/{key}`.

`row_head` draws the headers of an answer; the fast path (`fast_path.py`) sends the same bytes, and a test holds that.
"""

import re
from asyncio import to_thread

from logstore.model.errors import Corrupted
from logstore.model.folding.sibling import Siblings
from logstore.model.wide.cell import PackedCells
from logstore.serve.read.consistency import PARAMS, Consistency, read_level
from logstore.serve.read.consistency_wait import ConsistencyWait, answer_token, deadline_of
from logstore.serve.read.encoding import json_bytes, sibling_documents
from logstore.serve.read.merged_read import Floor, read_cell
from logstore.serve.read.parameters.cell_query import CELL_PARAMS, cells_of, read_cell_query
from logstore.serve.read.parameters.cells_asked import ROW_FORMS, CellsAsked
from logstore.serve.read.parameters.row_key import decode_key
from logstore.serve.settings import MAX_PARSED_BYTES
from logstore.serve.state.catalog import Catalog
from logstore.serve.state.partition import Cell, ServedPartition
from logstore.serve.wire import media_types
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import Request
from logstore.serve.wire.response import Headers, Response

_PARAMS = PARAMS | CELL_PARAMS | {"key_encoding"}
_BY_ACCEPT = (b"vary", b"accept")
_TAG = re.compile(r'(?:W/)?("[^"]*")')


class PointRead:
    """The page of single rows."""

    def __init__(self, catalog: Catalog, consistency_wait: ConsistencyWait) -> None:
        self._catalog, self._consistency_wait = catalog, consistency_wait

    async def get(self, request: Request, name: str, raw_key: bytes) -> Response:
        """Answer a point read in steps.

        1 parse the request, 2 find the partition, 3 wait for the token, 4 read entry and position at once, 5 answer.
        """
        params = request.params(_PARAMS)
        level, asked = read_level(request, params), read_cell_query(params)
        key = decode_key(raw_key, params)
        deadline = deadline_of(level)
        table = await self._consistency_wait.table(name, level, deadline)
        cells = cells_of(table, asked)
        media_type = _media_type(request, (media_types.BYTES,) if cells is None else ROW_FORMS)
        partition = table.partitioning.of(key)

        def read(floor: Floor) -> tuple[ServedPartition, int, Cell]:
            served = self._catalog.locate(table, partition)
            return served, *read_cell(served, key, level.as_of, floor)

        served, next_offset, cell = await self._consistency_wait.read(table, (partition,), level, deadline, read)
        self._catalog.reads[cell.source] += 1
        if cells is not None:
            form = CellsAsked.of(cells, media_type)
            return await _wide_answer(request, served, next_offset, cell, level, key, form)
        return _answer(request, served, next_offset, cell, level)


def row_head(served: ServedPartition, next_offset: int, cell: Cell, token: str, mark: str = "") -> Headers:
    """The headers that say what an answer is. `mark`: the rest of its ETag, where a row has several forms."""
    head: Headers = []
    version = cell.version
    if version is not None:
        head.append((b"etag", _etag(served, cell, mark).encode()))
    head.append((b"ls-partition", b"%d" % served.partition))
    if version is not None:
        head.append((b"ls-version", b"%d" % version))
    head.append((b"ls-applied", b"%d" % next_offset))
    lag = served.lag(next_offset)
    if lag is not None:
        head.append((b"ls-lag", b"%d" % lag))
    if cell.seen_ms:
        head.append((b"ls-time", b"%d" % cell.seen_ms))
    return [*head, (b"ls-source", cell.source.encode()), (b"ls-token", token.encode())]


def _media_type(request: Request, offers: tuple[str, ...]) -> str:
    chosen = media_types.choose(request.header(b"accept"), offers)
    if chosen is None:
        raise Problem("not-acceptable", f"a row of this table is {' or '.join(offers)}; accept that, or */*")
    return chosen


def _etag(served: ServedPartition, cell: Cell, mark: str = "") -> str:
    """The ETag of a row: its version, and its end where it has one."""
    end = "" if cell.expires_ms is None else f"-{cell.expires_ms}"
    return f'"{served.head}{cell.version}{end}{mark}"'


def _answer(request: Request, served: ServedPartition, next_offset: int, cell: Cell, level: Consistency) -> Response:
    token = answer_token(level, served.epoch, {served.partition: next_offset}, cell.seen_ms)
    head = row_head(served, next_offset, cell, token)
    if cell.payload is None:
        raise _not_found(served, cell, head)
    if _matches(request.header(b"if-none-match"), _etag(served, cell)):
        return Response(304, head, b"")
    if isinstance(cell.payload, tuple):
        raise _several(served, cell, cell.payload, head)
    return Response(
        200,
        [(b"content-type", media_types.BYTES.encode()), (b"content-length", b"%d" % len(cell.payload)), *head],
        cell.payload,
    )


async def _wide_answer(
    request: Request, served: ServedPartition, next_offset: int, cell: Cell, level: Consistency, key: bytes,
    asked: CellsAsked,
) -> Response:  # fmt: skip
    """The answer of a wide row. A large one is drawn beside the event loop."""
    token = answer_token(level, served.epoch, {served.partition: next_offset}, cell.seen_ms)
    packed = cell.payload
    if packed is None:
        head = [*row_head(served, next_offset, cell, token, asked.mark), _BY_ACCEPT]
        raise _not_found(served, cell, head, wide=True)
    if not isinstance(packed, PackedCells):
        raise Corrupted(f"row {key[:100]!r} of table {served.table!r} has a value in the place of cells")
    small = len(packed) <= MAX_PARSED_BYTES
    found = asked.cells.of(packed, cell.seen_ms) if small else await to_thread(asked.cells.of, packed, cell.seen_ms)
    cell.expires_ms = found.ends_ms  # what is shown changes then, without another version
    head = [*row_head(served, next_offset, cell, token, asked.mark), _BY_ACCEPT]
    if not found:
        detail = "the row has none of the cells that columns names"
        raise Problem(
            "not-found", detail, headers=head, table=served.table, partition=served.partition, version=cell.version,
            wide=True,
        )  # fmt: skip
    if _matches(request.header(b"if-none-match"), _etag(served, cell, asked.mark)):
        return Response(304, head, b"")
    body = asked.body(key, found, cell.version) if small else await to_thread(asked.body, key, found, cell.version)
    content: Headers = [(b"content-type", asked.media_type.encode()), (b"content-length", b"%d" % len(body))]
    return Response(200, [*content, *head], body)


def _not_found(served: ServedPartition, cell: Cell, head: Headers, *, wide: bool = False) -> Problem:
    deleted = {"deleted": True, "version": cell.version} if cell.version is not None else {}
    detail = "the row was deleted" if deleted else "no row has this key"
    more = {**deleted, **({"wide": True} if wide else {})}
    return Problem("not-found", detail, headers=head, table=served.table, partition=served.partition, **more)


def _several(served: ServedPartition, cell: Cell, siblings: Siblings, head: Headers) -> Problem:
    """The answer of a row with values side by side (RFC 9110, 15.4.1: the choice is the reader's)."""
    return Problem(
        "siblings", f"{len(siblings)} values stand side by side; merge them, and put the result with what was read: "
        f"seen={cell.version}", headers=head, table=served.table, partition=served.partition, version=cell.version,
        siblings=sibling_documents(siblings, json_bytes),
    )  # fmt: skip


def _matches(condition: str | None, etag: str) -> bool:
    """If-None-Match by weak comparison (RFC 9110, section 13.1.2)."""
    return condition is not None and (condition.strip() == "*" or etag in _TAG.findall(condition))
