"""Scan: rows in byte order over all partitions, `GET /v1/tables/{table}/rows`, a page at a time.

A page ends at its limit, at 8 MiB, or after MAX_EXAMINED entries, so that a long run of tombstones cannot hold the
event loop: such a page may be short or even empty and still has a cursor. Every page reads each partition at one
committed state, and shows rows that may expire as they are at one instant. Partitions that other nodes serve are
gathered from there (`fan_out.py`) and merged.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from logstore.model.table import Table
from logstore.serve.read.consistency import Consistency, read_level
from logstore.serve.read.consistency_wait import ConsistencyWait, answer_token, deadline_of
from logstore.serve.read.encoding import arrow, columns, encode, held_by, negotiate, rows_of, with_token
from logstore.serve.read.merged_read import Floor
from logstore.serve.read.one_instant import rows_at, to_be_cut
from logstore.serve.read.page_merge import PageOfLegs, PagePart
from logstore.serve.read.page_read import read_page
from logstore.serve.read.parameters import cursor
from logstore.serve.read.parameters.cell_query import cells_of
from logstore.serve.read.parameters.scan_query import QUERY_PARAMS, Query, read_query
from logstore.serve.read.peers.fan_out import FanOut
from logstore.serve.state.catalog import Catalog
from logstore.serve.wire import media_types
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import Request
from logstore.serve.wire.response import Response

_OFFERS = (media_types.JSON, media_types.MSGPACK, media_types.ARROW, media_types.COLUMNS)


class ScanPage:
    """The page of many rows."""

    def __init__(self, catalog: Catalog, consistency_wait: ConsistencyWait, fan_out: FanOut) -> None:
        self._catalog, self._consistency_wait, self._fan_out = catalog, consistency_wait, fan_out

    async def get(self, request: Request, name: str) -> Response:
        """Answer a scan in steps.

        1 parse the request, 2 wait for the token, 3 ask other nodes for theirs, 4 read what is here, 5 merge, 6 answer;
        2 to 5 leg by leg until the page is full: a hash table has one leg, an ordered one each partition in the range.
        """
        params = request.params(QUERY_PARAMS)
        level = read_level(request, params)
        media_type = negotiate(request, _OFFERS)
        query = read_query(params)
        deadline = deadline_of(level)
        table = await self._consistency_wait.table(name, level, deadline)
        query = query._replace(cells=cells_of(table, query.cells))
        digest = query.digest(table.epoch, level.as_of.text if level.as_of else None)
        rest = query.behind(cursor.read(params["cursor"].decode("latin-1"), digest)) if "cursor" in params else query
        legs = deque(_legs(rest, table))
        growing = PageOfLegs(rest._replace(cells=to_be_cut(rest.cells), ends=True) if table.expiring else rest)
        while legs and not growing.is_full:
            growing.take(await self._leg(request, table, legs.popleft(), growing.rest, level, deadline))
            if legs:
                await asyncio.sleep(0)  # a page of many legs lets other requests in between
        page = growing.page(is_last=not legs)
        if table.expiring:
            page = page._replace(rows=rows_at(page.rows, page.time_ms, rest.cells))
        following = None if page.through is None else cursor.encode(page.through, digest)
        return _answer(media_type, query, page, table, level, following)

    async def _leg(
        self, request: Request, table: Table, leg: Sequence[int], query: Query, level: Consistency, deadline: float
    ) -> list[PagePart]:
        """Parts of the page that the partitions of one leg contribute. Raises Problem."""
        here, elsewhere = self._fan_out.split(table, leg, request)
        parts = await self._fan_out.scan(table, elsewhere, query, level, deadline) if elsewhere else []

        # Where each partition lies is asked again: it may have moved while this request waited.
        def read(floor: Floor) -> PagePart:
            return read_page([self._catalog.locate(table, p) for p in here], query, level.as_of, floor)

        if here or not parts:
            parts.append(await self._consistency_wait.read(table, here, level, deadline, read))
        return parts


def _answer(
    media_type: str, query: Query, part: PagePart, table: Table, level: Consistency, following: str | None
) -> Response:
    token = answer_token(level, table.epoch, part.positions, part.time_ms)
    positions = {str(partition): offset for partition, offset in sorted(part.positions.items())}
    tail: dict[str, Any] = {"cursor": following, "token": token, "positions": positions}
    if query.ends:
        tail["ends"] = [row.ends or None for row in part.rows]
    if media_type == media_types.ARROW:
        answer = arrow(part.rows, held_by(table, keys_only=query.keys_only), metadata=tail)
        return with_token(answer, token, part.time_ms)
    if media_type == media_types.COLUMNS:
        answer = columns(part.rows, tail, held_by(table, keys_only=query.keys_only))
        return with_token(answer, token, part.time_ms)
    return with_token(
        encode(media_type, lambda field: {"rows": rows_of(part.rows, field), **tail}), token, part.time_ms
    )


def _legs(query: Query, table: Table) -> list[Sequence[int]]:
    """Partitions to read, leg by leg. Raises Problem."""
    if query.partitions is None:
        return table.partitioning.legs(query.start, query.end, reverse=query.reverse)
    if query.partitions[-1] >= table.partitions:
        raise Problem(
            "bad-request", f"{table.name!r} has {table.partitions} partitions, counted from 0", parameter="partitions"
        )
    return table.partitioning.in_legs(query.partitions, reverse=query.reverse)
