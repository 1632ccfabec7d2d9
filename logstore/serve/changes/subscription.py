"""Subscription: a consumer's way through the feed: snapshot part, tail, and the reset when the table is another now.

It holds nothing but a point; whoever comes back with that point goes on behind it, on any reader.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from logstore.model.changes.resume_point import START, ResumePoint
from logstore.model.position import Position
from logstore.model.table import Table
from logstore.serve.changes.change_feed import READ_BYTES, ChangeFeed, TableChangedError
from logstore.serve.changes.chunk import Chunk
from logstore.serve.changes.snapshot_part import SnapshotPart
from logstore.serve.read.consistency import SESSION, Consistency
from logstore.serve.read.consistency_wait import ConsistencyWait
from logstore.serve.state.catalog import Catalog
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import Request

_PAGE_S = 10.0  # for a page of the snapshot part, whatever the wait for changes


class Batch(NamedTuple):
    """Changes, and the point behind them. `reset`: the epoch of the topic that the table has now; it begins again."""

    chunks: list[Chunk]
    point: ResumePoint
    reset: str | None = None


class Interest(NamedTuple):
    """Rows that a consumer wants: those whose key begins with `prefix`, of these partitions; None: of all."""

    prefix: bytes = b""
    partitions: tuple[int, ...] | None = None


class Subscription:
    """One consumer of one table."""

    def __init__(
        self, request: Request, name: str, rows: Interest, feed: ChangeFeed, pages: SnapshotPart,
        catalog: Catalog, consistency_wait: ConsistencyWait,
    ) -> None:  # fmt: skip
        self._request, self._name, self._rows = request, name, rows
        self._feed, self._pages, self._catalog, self._consistency_wait = feed, pages, catalog, consistency_wait

    async def table(self, point: ResumePoint, deadline_ms: int) -> Table:
        """The table, once the epochs of the point are known here.

        Raises Problem; TableChangedError for a point of the table's past.
        """
        level = Consistency(SESSION, point.position, deadline_ms)
        try:
            table = await self._consistency_wait.table(self._name, level, _in(deadline_ms / 1000))
        except Problem as problem:
            if problem.word == "epoch-changed":
                raise TableChangedError from problem
            raise
        self.partitions(table)
        if point != START and not any(epoch == table.epoch for epoch, _ in point.position.pieces):
            raise Problem(
                "bad-token", f"the id names no partition of {table.name!r}; begin with since=beginning or now"
            )
        return table

    def partitions(self, table: Table) -> Sequence[int]:
        """Partitions that the consumer wants. Raises Problem for one that the table has not."""
        listed = self._rows.partitions
        if listed is None:
            return range(table.partitions)
        if not 0 <= listed[-1] < table.partitions:
            raise Problem(
                "bad-request", f"{table.name!r} has {table.partitions} partitions, counted from 0",
                parameter="partitions",
            )  # fmt: skip
        return listed

    async def now(self, table: Table) -> ResumePoint:
        """The point at which the nodes that serve the partitions stand. Raises Problem."""
        stood = await self._feed.now(table, self.partitions(table), self._request)
        return ResumePoint(Position({(table.epoch, partition): offset for partition, offset in stood.items()}))

    async def next(self, point: ResumePoint, wait_s: float, most_bytes: int = READ_BYTES) -> Batch:
        """Batch behind `point`: a page of the snapshot part, or changes, or nothing after `wait_s`. Raises Problem."""
        try:
            table = await self.table(point, int(_PAGE_S * 1000))
            if point.scanned is not None:
                chunks, following = await self._pages.page(
                    self._request, table, self.partitions(table), point, self._rows.prefix, _in(_PAGE_S)
                )  # fmt: skip
                return Batch(chunks, following)
            at = point.offsets(table.epoch, self.partitions(table))
            chunks = await self._feed.read(table, at, self._request, _in(wait_s), most_bytes)
            return self._batch(table, at, chunks)
        except TableChangedError:
            return Batch([], START, self._catalog.table(self._name).epoch)

    def _batch(self, table: Table, at: dict[int, int], chunks: list[Chunk]) -> Batch:
        for chunk in chunks:
            at[chunk.partition] = chunk.following
        position = Position({(table.epoch, partition): offset for partition, offset in at.items()})
        return Batch([chunk.of_prefix(self._rows.prefix) for chunk in chunks], ResumePoint(position))


def _in(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds
