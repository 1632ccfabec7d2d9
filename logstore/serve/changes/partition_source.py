"""Partition source: the tail of one partition, given on only as far as the view of this node has applied it.

    log -> waiting (bounded) -> applied? -> ring -> subscribers

More than _MOST_WAITING bytes that are not applied are not kept: the log is left, and followed again from there later.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from logstore.model.changes.row_change import RowChange, changes_of, without_skipped
from logstore.model.folding.fold import FoldRules, Records
from logstore.model.hard_rows.rules import rules_of
from logstore.model.table import Table
from logstore.serve.changes.chunk import Chunk, Ring, cut
from logstore.serve.changes.decided import decided
from logstore.serve.state.catalog import Catalog
from logstore.serve.state.partition import next_offset_of
from logstore.serve.state.waiters import Waiters
from logstore.serve.wire.problems import Problem

if TYPE_CHECKING:
    from logstore.log.read.shared_tail import SharedTail

_MOST_WAITING = 8 << 20  # bytes
_LOOK_S = 1.0
_TURN_S = 0.01  # for which the event loop is held


class PartitionSource:
    """The tail of one partition that is served here."""

    url = None  # of another node

    def __init__(self, table: Table, partition: int, ring: Ring, catalog: Catalog, waiters: Waiters) -> None:
        self.table, self.partition, self.ring = table, partition, ring
        self._catalog, self._waiters = catalog, waiters
        self._waiting: deque[Chunk] = deque()
        self._waiting_bytes, self._following, self._left = 0, ring.end, False
        self._news = asyncio.Event()
        self._rules = FoldRules.of(table, partition)
        self._hard = rules_of(table, partition) if table.conditional else None
        self.number = 0  # of the follow whose records are taken

    def changes_of(self, records: Records) -> list[RowChange]:
        """The changes that records of this partition make. On any thread."""
        return changes_of(records, self._rules, self._hard)

    def follow(self, tail: "SharedTail", number: Callable[[], int], on_news: Callable[[], None]) -> None:
        """Begin, once; `number`: makes the number of a follow, `on_news` is called when the ring has grown."""
        self._tail, self._number, self._on_news = tail, number, on_news
        self._tail.follow(self.table.topic, self.partition, self._following, number())
        self._pump_task = asyncio.create_task(self._pump())

    def close(self) -> None:
        """Stop following the log."""
        self._pump_task.cancel()
        self._tail.leave(self.table.topic, self.partition)

    def arrived(self, following: int, changes: list[RowChange]) -> None:
        """Take what the log has next, up to `following`."""
        if self._left:
            return
        for chunk in cut(Chunk(self.partition, self._following, following, changes)):
            self._waiting.append(chunk)
            self._waiting_bytes += chunk.size_bytes
        self._following = following
        self._news.set()
        if self._waiting_bytes > _MOST_WAITING:
            self._left = True
            self._tail.leave(self.table.topic, self.partition)

    async def _pump(self) -> None:
        """Move what is applied from the queue into the ring, until the reader stops."""
        while True:
            await self._news.wait()
            try:
                is_more = self._publish(self._applied())
            except Problem:  # it does not answer so far any more; subscribers are told by their own look
                is_more = False
            if is_more:
                await asyncio.sleep(0)  # others have a turn
            elif not self._waiting:
                self._news.clear()
            elif not await self._bell():
                return

    async def _bell(self) -> bool:
        """Wait until something more may be applied; False when the reader stops."""
        loop, where = asyncio.get_running_loop(), (self.table.epoch, self.partition)
        try:
            await self._waiters.wait(where, self._waiting[0].start + 1, loop.time() + _LOOK_S)
        except Problem:  # too many wait, or the reader stops
            if self._waiters.closed:
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    def _applied(self) -> int:
        """Next offset of the view; 0 while it does not answer."""
        try:
            return next_offset_of(self._catalog.locate(self.table, self.partition))
        except Problem:  # subscribers are told by their own look
            return 0

    def _publish(self, applied: int) -> bool:
        """Publish what is applied, for _TURN_S; True when there is more of it. Raises Problem: the rest waits on."""
        before, clock = self.ring.end, asyncio.get_running_loop().time
        until_s = clock() + _TURN_S
        try:
            while self._waiting and self._waiting[0].start < applied:
                if clock() > until_s:
                    return True
                self._publish_first(applied)
        finally:
            if self.ring.end > before:
                self._on_news()
        if self._left and self._waiting_bytes < _MOST_WAITING // 2:
            self._left = False
            self._tail.follow(self.table.topic, self.partition, self._following, self._number())
        return False

    def _publish_first(self, applied: int) -> None:
        chunk = self._waiting[0]
        published = self._decided(self._without_skipped(chunk.below(applied)))
        self._waiting.popleft()
        self._waiting_bytes -= chunk.size_bytes
        if chunk.following > published.following:
            rest = chunk.from_offset(published.following)
            self._waiting.appendleft(rest)
            self._waiting_bytes += rest.size_bytes
        self.ring.add(published)

    def _decided(self, chunk: Chunk) -> Chunk:
        if self._hard is None:
            return chunk
        return decided(chunk, self._defined_now, self._catalog.locate(self.table, self.partition))

    def _without_skipped(self, chunk: Chunk) -> Chunk:
        """By the repairs that are known now: what is applied is skipped by none that comes later."""
        skips = self._defined_now.skips.get(self.partition, ())
        if not skips:
            return chunk
        return Chunk(chunk.partition, chunk.start, chunk.following, without_skipped(chunk.changes, skips))

    @property
    def _defined_now(self) -> Table:
        """The table's definition as it is known now; repairs and families come later than the source."""
        return (self._catalog.tables or {}).get(self.table.name, self.table)
