"""Subscription: a consumer's way through the feed: snapshot part, tail, and the reset when the table is another now.

It holds nothing but a point; whoever comes back with that point goes on behind it, on any reader.
"""

import asyncio
from typing import NamedTuple

from logstore.model.changes.resume_point import START, ResumePoint
from logstore.model.position import Position
from logstore.model.table import Table
from logstore.serve.changes.change_feed import ChangeFeed, TableChangedError
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


class Subscription:
    """One consumer of one table."""

    def __init__(
        self, request: Request, name: str, prefix: bytes, feed: ChangeFeed, pages: SnapshotPart,
        catalog: Catalog, consistency_wait: ConsistencyWait,
    ) -> None:  # fmt: skip
        self._request, self._name, self.prefix = request, name, prefix
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
        if point != START and not any(epoch == table.epoch for epoch, _ in point.position.pieces):
            raise Problem(
                "bad-token", f"the id names no partition of {table.name!r}; begin with since=beginning or now"
            )
        return table

    def now(self, table: Table) -> ResumePoint:
        """The point at which this node stands. Raises Problem."""
        stood = self._feed.positions(table, range(table.partitions))
        return ResumePoint(Position({(table.epoch, partition): offset for partition, offset in stood.items()}))

    async def next(self, point: ResumePoint, wait_s: float) -> Batch:
        """Batch behind `point`: a page of the snapshot part, or changes, or nothing after `wait_s`. Raises Problem."""
        try:
            table = await self.table(point, int(_PAGE_S * 1000))
            if point.scanned is not None:
                chunks, following = await self._pages.page(self._request, table, point, self.prefix, _in(_PAGE_S))
                return Batch(chunks, following)
            at = point.offsets(table.epoch, table.partitions)
            chunks = await self._feed.read(table, at, _in(wait_s))
            return self._batch(table, at, chunks)
        except TableChangedError:
            return Batch([], START, self._catalog.table(self._name).epoch)

    def _batch(self, table: Table, at: dict[int, int], chunks: list[Chunk]) -> Batch:
        for chunk in chunks:
            at[chunk.partition] = chunk.following
        position = Position({(table.epoch, partition): offset for partition, offset in at.items()})
        return Batch([chunk.of_prefix(self.prefix) for chunk in chunks], ResumePoint(position))


def _in(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds
