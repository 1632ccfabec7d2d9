"""Peer source: the tail of a partition that another node serves, by long polls that this reader's subscribers share.

The other node gives no more than it has applied. When it has the partition no more, or does not answer, the source
ends; subscribers look for the partition anew, and go on at their points.
"""

import asyncio
from collections.abc import Callable

from logstore.model.table import Table
from logstore.serve.changes.chunk import Chunk, Ring, cut
from logstore.serve.changes.peers.peer_changes import read_changes
from logstore.serve.read.peers.fan_out import FanOut
from logstore.serve.wire.problems import Problem

_WAIT_MS = 10_000  # of a poll, while nothing changes


class PeerSource:
    """The tail of one partition, of the node at `url`."""

    number = 0  # it follows no log

    def __init__(self, table: Table, partition: int, ring: Ring, fan_out: FanOut, url: str) -> None:
        self.table, self.partition, self.ring, self.url = table, partition, ring, url
        self._fan_out = fan_out

    def follow(self, on_news: Callable[[], None], on_end: Callable[["PeerSource", Problem], None]) -> None:
        """Begin, once. `on_end` is called with the reason when the source has ended by itself."""
        self._task = asyncio.create_task(self._follow(on_news, on_end))

    def close(self) -> None:
        """Stop asking the other node."""
        self._task.cancel()

    async def older(self, offset: int, deadline: float) -> list[Chunk]:
        """Chunks from an offset below the ring on; of no offset when nothing has come by `deadline`. Raises Problem."""
        left_ms = int((deadline - asyncio.get_running_loop().time()) * 1000)
        found = await self._page(offset, min(max(left_ms, 0), _WAIT_MS))
        return list(cut(found.below(self.ring.start)))

    async def _follow(self, on_news: Callable[[], None], on_end: Callable[["PeerSource", Problem], None]) -> None:
        try:
            while True:
                chunk = await self._page(self.ring.end, _WAIT_MS)
                if chunk.following > chunk.start:
                    for piece in cut(chunk):
                        self.ring.add(piece)
                    on_news()
        except Problem as problem:
            on_end(self, problem)

    async def _page(self, offset: int, wait_ms: int) -> Chunk:
        since = f"{self.table.epoch}-{self.partition}-{offset}"
        body = await self._fan_out.changes(self.table, self.url, [self.partition], since, wait_ms)
        found = read_changes(self.url, self.table, self.partition, offset, body)
        return Chunk(self.partition, offset, found.following, found.changes)
