"""Table tail: the sources of a table's partitions, and everybody who waits for news of any of them.

It begins with the first subscriber and ends _LINGER_S after the last has gone, so that one who asks again and again
finds what came meanwhile.
"""

import asyncio
from collections.abc import Iterable, Mapping

from logstore.model.table import Table
from logstore.serve.changes.chunk import Chunk, up_to
from logstore.serve.changes.partition_source import PartitionSource
from logstore.serve.changes.peers.peer_source import PeerSource
from logstore.serve.wire.problems import Problem

_LINGER_S = 30.0


class TableTail:
    """The tails of one table's partitions, on the event loop."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.sources: dict[int, PartitionSource | PeerSource] = {}
        self.beginning = asyncio.Lock()
        self._listening: set[asyncio.Future[None]] = set()
        self.used_s = asyncio.get_running_loop().time()
        self.trouble: Problem | None = None  # why a source ended a moment ago

    def raise_trouble(self) -> None:
        """Raise Problem when a source has just ended: none is begun in its place at once."""
        if self.trouble is not None:
            raise self.trouble

    def ready(self, at: Mapping[int, int], most_bytes: int) -> list[Chunk]:
        """Chunks behind these offsets, about as much of each partition. Requires: none is below its ring."""
        self.used_s = asyncio.get_running_loop().time()
        grown = [p for p, offset in at.items() if self.sources[p].ring.end > offset]
        found: list[Chunk] = []
        for partition in grown:
            found += up_to(self.sources[partition].ring.behind(at[partition]), most_bytes // len(grown))
        return found

    def below(self, at: Mapping[int, int]) -> int | None:
        """A partition whose offset is older than what its ring has; None: there is none."""
        return next((p for p, offset in at.items() if offset < self.sources[p].ring.start), None)

    def missing(self, partitions: Iterable[int]) -> list[int]:
        """Partitions that are not followed."""
        return [partition for partition in partitions if partition not in self.sources]

    def moved(self, homes: Mapping[int, str | None]) -> list[int]:
        """Partitions that are followed elsewhere than where they are served now."""
        return [p for p, url in homes.items() if (source := self.sources.get(p)) is not None and source.url != url]

    async def news(self, deadline: float) -> bool:
        """Wait until something may have changed; False at `deadline` (loop time)."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._listening.add(future)
        try:
            async with asyncio.timeout_at(deadline):
                await future
        except TimeoutError:
            return False
        finally:
            self._listening.discard(future)
            self.used_s = loop.time()
        return True

    def wake(self) -> None:
        """Let everybody look again."""
        for future in self._listening:
            if not future.done():
                future.set_result(None)

    def is_idle(self, now_s: float) -> bool:
        """True when nobody has asked for a while."""
        return not self._listening and now_s - self.used_s > _LINGER_S

    def drop(self, partition: int) -> None:
        """Let go of a partition's source; who asks for it begins another."""
        source = self.sources.pop(partition, None)
        if source is not None:
            source.close()
        self.wake()

    def close(self) -> None:
        """Stop following the logs."""
        for partition in list(self.sources):
            self.drop(partition)
