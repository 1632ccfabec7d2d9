"""Multiget: many rows by their keys, `POST /v1/tables/{table}/rows:get`.

Results come in the order of the request, duplicates too. What a bound or a stopped partition left out is listed as
"unprocessed" with its reason: `page-full`, or the word of the problem that a read of that key alone would have met.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from logstore.model.errors import Corrupted
from logstore.model.folding.sibling import size_bytes
from logstore.model.table import Table
from logstore.model.wide.cell import PackedCells
from logstore.model.wide.selection import CellSelection
from logstore.serve.read.as_of import AsOf
from logstore.serve.read.consistency import PARAMS, Consistency, read_level
from logstore.serve.read.consistency_wait import ConsistencyWait, answer_token, deadline_of
from logstore.serve.read.encoding import (
    EncodedRow,
    Field,
    FoundKey,
    columns,
    encode,
    held_by,
    negotiate,
    value_fields,
    with_token,
)
from logstore.serve.read.merged_read import FellBehind, Floor, MergedRead, merged
from logstore.serve.read.one_instant import found_at
from logstore.serve.read.parameters.cell_query import CELL_PARAMS, cells_of, read_cell_query
from logstore.serve.read.parameters.key_list import read_keys
from logstore.serve.read.peers.fan_out import FanOut
from logstore.serve.settings import MAX_PAGE_BYTES
from logstore.serve.state.catalog import Catalog
from logstore.serve.wire import media_types
from logstore.serve.wire.problems import Problem, problem_of
from logstore.serve.wire.request import Request, boolean
from logstore.serve.wire.response import Response

PAGE_FULL = "page-full"
_PARAMS = PARAMS | CELL_PARAMS | {"key_encoding", "ends"}
_OFFERS = (media_types.JSON, media_types.MSGPACK, media_types.COLUMNS)
_LEFT_OUT = frozenset({"partition-stopped", "starting", "not-owner"})


class MultiGet:
    """The page of many keys."""

    def __init__(self, catalog: Catalog, consistency_wait: ConsistencyWait, fan_out: FanOut) -> None:
        self._catalog, self._consistency_wait, self._fan_out = catalog, consistency_wait, fan_out

    async def post(self, request: Request, name: str) -> Response:
        """Answer a multi-get in steps.

        1 parse the request, 2 wait for the token, 3 ask other nodes for theirs, 4 read what is here, 5 answer in order.
        """
        params = request.params(_PARAMS)
        level = read_level(request, params)
        media_type, asked = negotiate(request, _OFFERS), read_cell_query(params)
        tells_ends = boolean(params.get("ends"), "ends")
        keys = await read_keys(request, params)
        deadline = deadline_of(level)
        table = await self._consistency_wait.table(name, level, deadline)
        cells = cells_of(table, asked)
        wanted = list(zip(keys, table.partitioning.listed(keys), strict=True))
        here, elsewhere = self._fan_out.split(table, sorted({p for _, p in wanted}), request, strict=False)
        refused, floor = await self._wait(table, here, level, deadline)
        remote: dict[bytes, FoundKey] = {}
        positions: dict[int, int] = {}
        time_ms = 0  # the latest instant at which rows that may expire were seen
        if elsewhere:
            remote, positions, time_ms = await self._fan_out.keys(table, elsewhere, wanted, level, deadline, cells)
        while True:
            read_at: dict[int, int] = {}
            try:
                seen = floor._replace(time_ms=max(floor.time_ms, time_ms))  # not earlier than what other nodes saw
                found, read_ms = self._read(table, wanted, remote, refused, read_at, level.as_of, seen, cells)
                break
            except FellBehind:  # it began again meanwhile: what was waited for is waited for again
                refused, floor = await self._wait(table, here, level, deadline)
        positions |= read_at
        time_ms = max(time_ms, read_ms)
        if table.expiring:  # of other nodes, each of which saw them at an instant of its own
            found = [found_at(one, time_ms, cells) for one in found]
        token = answer_token(level, table.epoch, positions, time_ms)
        more = {"ends": [one.ends or None for one in found if one.reason is None]} if tells_ends else {}
        if media_type == media_types.COLUMNS:
            answer = _columns(found, {**_tail(found, token, positions, bytes), **more}, held_by(table))
            return with_token(answer, token, time_ms)
        answer = encode(media_type, lambda field: {**_document(found, token, positions, field), **more})
        return with_token(answer, token, time_ms)

    async def _wait(
        self, table: Table, here: Iterable[int], level: Consistency, deadline: float
    ) -> tuple[dict[int, str], Floor]:  # fmt: skip
        """Partitions that do not answer, with the word why; and how far the others must be.

        A token that is not reached fails the request as a whole.
        """
        refused, offsets, wanted = {}, dict[int, int](), list(here)
        with self._consistency_wait.demanding(table, wanted, level):
            for partition in wanted:
                try:
                    floor = await self._consistency_wait.partitions(table, (partition,), level, deadline)
                    offsets.update(floor.offsets)
                    self._catalog.locate(table, partition).open(past=level.as_of is not None)
                except Problem as problem:
                    if problem.word not in _LEFT_OUT:
                        raise
                    refused[partition] = problem.word
                except Corrupted as error:
                    refused[partition] = problem_of(error).word
        return refused, Floor(offsets, level.instant_ms(self._catalog.broker_clock))

    def _read(
        self,
        table: Table,
        wanted: Sequence[tuple[bytes, int]],
        remote: Mapping[bytes, FoundKey],
        refused: dict[int, str],
        positions: dict[int, int],
        as_of: AsOf | None,
        floor: Floor,
        cells: CellSelection | None,
    ) -> tuple[list[FoundKey], int]:
        """Entries in the order of the request, until the page is full; every partition at one committed state.

        And the latest instant at which rows that may expire were seen.
        """
        found: list[FoundKey] = []
        size = 0
        with ExitStack() as stack:
            readings = {
                partition: opened
                for partition in dict.fromkeys(partition for key, partition in wanted if key not in remote)
                if (opened := self._open(stack, table, partition, refused, as_of, floor)) is not None
            }
            positions.update({partition: opened.next_offset for partition, opened in readings.items()})
            now_ms = max((opened.now_ms for opened in readings.values()), default=0)
            for opened in readings.values():  # all are seen at the one instant that the answer names
                opened.now_ms = now_ms
            for key, partition in wanted:
                if size > MAX_PAGE_BYTES:
                    one = FoundKey(key, partition, reason=PAGE_FULL)
                elif key in remote:
                    one = remote[key]
                else:
                    one = _read_one(readings, key, partition, refused)
                if cells is not None:
                    one = _selected(one, cells, now_ms)
                size += len(key) + size_bytes(one.value)
                over = size > MAX_PAGE_BYTES and found and one.reason is None
                found.append(FoundKey(key, partition, reason=PAGE_FULL) if over else one)
            return found, now_ms

    def _open(
        self, stack: ExitStack, table: Table, partition: int, refused: dict[int, str], as_of: AsOf | None, floor: Floor
    ) -> MergedRead | None:
        """The reading of a partition; None where it does not answer, which `refused` tells then."""
        if partition in refused:
            return None
        try:
            return stack.enter_context(merged(self._catalog.locate(table, partition), as_of, floor))
        except (Problem, Corrupted) as error:
            refused[partition] = _word(error)
            return None


def _read_one(readings: Mapping[int, MergedRead], key: bytes, partition: int, refused: dict[int, str]) -> FoundKey:
    if partition in refused:
        return FoundKey(key, partition, reason=refused[partition])
    try:
        cell = readings[partition].cell(key)
    except (Problem, Corrupted) as error:
        refused[partition] = _word(error)
        return FoundKey(key, partition, reason=refused[partition])
    return FoundKey(key, partition, cell.payload, cell.version, ends=cell.ends)


def _word(error: Problem | Corrupted) -> str:
    """Word of a trouble of one partition, whose keys are left out; raises any other, which fails the request."""
    if isinstance(error, Corrupted):
        return problem_of(error).word
    if error.word not in _LEFT_OUT:  # such as that the row's past is not kept
        raise error
    return error.word


def _selected(one: FoundKey, cells: CellSelection, now_ms: int) -> FoundKey:
    """The result with the cells that are asked for; none is found where there is none of them."""
    if not isinstance(one.value, PackedCells):
        return one
    selected = cells.of(one.value, now_ms)
    return one._replace(value=selected, ends=selected.ends) if selected else FoundKey(one.key, one.partition)


def _document(found: Iterable[FoundKey], token: str, positions: Mapping[int, int], field: Field) -> dict[str, Any]:
    results = [_result(one, field) for one in found if one.reason is None]
    return {"results": results, **_tail(found, token, positions, field)}


def _columns(found: Iterable[FoundKey], tail: Mapping[str, Any], held: str | None) -> Response:
    rows = (EncodedRow(one.key, one.value, one.version, one.partition) for one in found if one.reason is None)
    return columns(rows, tail, held)


def _tail(found: Iterable[FoundKey], token: str, positions: Mapping[int, int], field: Field) -> dict[str, Any]:
    unprocessed = [{"key": field(one.key), "reason": one.reason} for one in found if one.reason is not None]
    ordered = {str(partition): offset for partition, offset in sorted(positions.items())}
    return {"unprocessed": unprocessed, "token": token, "positions": ordered}


def _result(one: FoundKey, field: Field) -> dict[str, Any]:
    result: dict[str, Any] = {"key": field(one.key), "found": one.value is not None, "partition": one.partition}
    if one.value is not None:
        return {**result, **value_fields(one.value, field), "version": one.version}
    return {**result, "deleted": True, "version": one.version} if one.version is not None else result
