"""Change feed of a reader: the tails that subscribers share, and a read that waits.

read:  1 the table is still this one, its partitions answer here
       2 sources for partitions that are not followed yet
       3 what is older than a ring comes from the log, or the node that has the partition, the rest from the rings
       4 nothing: wait for news
"""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from logstore.model.changes.resume_point import NOW, ResumePoint
from logstore.model.changes.row_change import RowChange
from logstore.model.errors import LogStoreError, LogUnreachable
from logstore.model.folding.fold import Records
from logstore.model.table import Table
from logstore.process import logs
from logstore.process.figures import Family, counter, gauge
from logstore.serve.changes.chunk import Chunk, Ring, up_to
from logstore.serve.changes.decided import decided
from logstore.serve.changes.partition_source import PartitionSource
from logstore.serve.changes.past_changes import PastChanges, not_retained, unreadable
from logstore.serve.changes.peers.peer_changes import read_now
from logstore.serve.changes.peers.peer_source import PeerSource
from logstore.serve.changes.table_tail import TableTail
from logstore.serve.read.peers.fan_out import FanOut
from logstore.serve.state.catalog import Catalog
from logstore.serve.state.partition import next_offset_of
from logstore.serve.state.waiters import Waiters
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import Request
from logstore.view.feed.view_records import STOPPED

if TYPE_CHECKING:
    from logstore.log.kafka.offsets import Bounds
    from logstore.log.read.shared_tail import SharedTail

T = TypeVar("T")
Homes = Mapping[int, str | None]  # partition -> the URL of the node that serves it; None: it is served here

MOST_SUBSCRIBERS = 4_096
MOST_SOURCES = 128
_RING_BYTES = 2 << 20  # of changes, of one partition; what subscribers are sent of them takes as much again
_BACK = 2_000  # offsets before the view's position at which a ring begins, for those who come back
_MOST_UNDER_WAY = 8  # batches between the thread of the tail and the event loop
_LOOK_S = 0.5
_CLOSE_S = 2.0
READ_BYTES = 1 << 20

log = logs.get(__name__)


class _Parts(NamedTuple):
    """Parts that all tails of this node's partitions share, from the first subscriber on."""

    tail: "SharedTail"
    past: PastChanges


class TableChangedError(Exception):
    """The name stands for another topic now: promoted, or made again."""


class ChangeFeed:
    """The change feeds of all tables that this reader serves."""

    def __init__(self, catalog: Catalog, waiters: Waiters, fan_out: FanOut, bootstrap: str | None) -> None:
        """`bootstrap`: Kafka's address; None: the reader was not told it, and serves no feed."""
        self._catalog, self._waiters, self._fan_out, self._bootstrap = catalog, waiters, fan_out, bootstrap
        self._tails: dict[str, TableTail] = {}  # by epoch
        self._by_number: dict[int, PartitionSource] = {}
        self._numbers = itertools.count(1)
        self._parts: _Parts | None = None
        self._watching: asyncio.Task[None] | None = None
        self.closing = False
        self.subscribers = self.events = self.cut_off = 0

    async def read(
        self, table: Table, at: Mapping[int, int], request: Request, deadline: float, most_bytes: int = READ_BYTES
    ) -> list[Chunk]:  # fmt: skip
        """Chunks behind these offsets by partition, in order within each; none at `deadline` (loop time).

        Raises Problem, TableChangedError.
        """
        while True:
            tail = await self._tail(table, self._homes(table, at, request))
            below = tail.below(at)
            if below is not None:
                older = await self._older(tail.sources[below], at[below], deadline)
                return up_to((chunk for chunk in older if chunk.following > at[below]), most_bytes)
            found = tail.ready(at, most_bytes)
            if found or not await tail.news(deadline):
                return found

    def holds(self, point: ResumePoint) -> bool:
        """True when what follows a point of the tail is within the rings."""
        pieces = point.position.pieces
        sources = [(tail.sources.get(p), at) for (epoch, p), at in pieces.items() if (tail := self._tails.get(epoch))]
        return all(source is None or at >= source.ring.start for source, at in sources)

    async def now(self, table: Table, partitions: Iterable[int], request: Request) -> dict[int, int]:
        """Partition -> where the view of the node that serves it stands now. Raises Problem."""
        return await self._positions(table, self._homes(table, partitions, request))

    async def _positions(self, table: Table, homes: Homes) -> dict[int, int]:
        owners: dict[str, list[int]] = {}
        for partition, url in homes.items():
            if url is not None:
                owners.setdefault(url, []).append(partition)
        asked = [self._there(table, url, there) for url, there in owners.items()]
        found = {p: offset for some in await asyncio.gather(*asked) for p, offset in some.items()}
        return found | {p: next_offset_of(self._catalog.locate(table, p)) for p, url in homes.items() if url is None}

    async def _there(self, table: Table, url: str, partitions: list[int]) -> dict[int, int]:
        return read_now(url, table, partitions, await self._fan_out.changes(table, url, partitions, NOW, 0))

    async def _older(self, source: PartitionSource | PeerSource, offset: int, deadline: float) -> list[Chunk]:
        """Chunks of what is older than the source's ring. Raises Problem."""
        if isinstance(source, PeerSource):
            return await source.older(offset, deadline)
        table, partition = source.table, source.partition
        past = await self._shared_parts().past.read(table, partition, offset, source.ring.start)
        return [decided(past[0], table, self._catalog.locate(table, partition))] if table.conditional else past

    async def later_than(self, table: Table, time_ms: int) -> dict[int, int]:
        """Partition -> the first offset whose log time is later. Raises Problem: of changes that are gone, too."""
        from logstore.log.read.past_records import first_later  # noqa: PLC0415 - loads Kafka's client

        bounds = await self._bounds(table)
        first = await self._ask(table, lambda bootstrap: first_later(bootstrap, table, time_ms))
        found = {p: bounds[p].end if offset is None else offset for p, offset in first.items()}
        for partition, offset in found.items():
            if 0 < offset == bounds[partition].start:
                raise not_retained(table, partition, offset, "the log begins there, what came before it is gone")
        return found

    @contextlib.contextmanager
    def subscribed(self) -> Iterator[None]:
        """Count a subscriber inside the block. Raises Problem when there are too many."""
        if self.subscribers >= MOST_SUBSCRIBERS:
            raise Problem(
                "overloaded", f"{self.subscribers:,} consumers read changes here already; ask another node", status=429
            )
        self.subscribers += 1
        try:
            yield
        finally:
            self.subscribers -= 1

    def close(self) -> None:
        """Tell every subscriber that this reader stops."""
        self.closing = True
        for tail in self._tails.values():
            tail.wake()

    async def stop(self) -> None:
        """Stop following, and let the connections go."""
        self.closing = True
        for tail in self._tails.values():
            tail.close()
        if self._watching is not None:
            self._watching.cancel()
        if self._parts is not None:
            await asyncio.to_thread(self._parts.tail.close, _CLOSE_S)

    def families(self, labels: dict[str, str]) -> Iterable[Family]:
        """Figures of the feed."""
        sources = sum(len(tail.sources) for tail in self._tails.values())
        for name, text, value in (
            ("logstore_changes_subscribers", "Streams and long polls of the change feed.", self.subscribers),
            ("logstore_changes_partitions", "Partitions whose log is followed for the change feed.", sources),
        ):
            yield gauge(name, text, [(labels, value)])
        yield counter("logstore_changes_events", "Changes sent to subscribers.", [(labels, self.events)])
        yield counter(
            "logstore_changes_cut_off", "Subscribers cut off for reading too slowly.", [(labels, self.cut_off)]
        )

    def _homes(self, table: Table, partitions: Iterable[int], request: Request) -> Homes:
        """Partition -> the URL of the node that serves it; None: it is served here.

        Raises TableChangedError, or Problem when a partition does not answer.
        """
        if self.closing:
            raise Problem("overloaded", "this reader is stopping; ask again, another one answers")
        if self._catalog.table(table.name).epoch != table.epoch:
            raise TableChangedError
        here, elsewhere = self._fan_out.split(table, partitions, request)
        for partition in here:
            served = self._catalog.locate(table, partition)
            if served.state == STOPPED:
                raise served.stopped(None)
        return dict.fromkeys(here) | {p: url for url, there in elsewhere.items() for p in there}

    async def _tail(self, table: Table, homes: Homes) -> TableTail:
        """The table's tail, with a source for each of these partitions. Raises Problem."""
        tail = self._tails.get(table.epoch)
        if tail is None:
            tail = self._tails[table.epoch] = TableTail(table)
        tail.used_s = asyncio.get_running_loop().time()
        for partition in tail.moved(homes):
            self._drop(tail, partition)
        while tail.missing(homes):
            async with tail.beginning:
                if missing := tail.missing(homes):
                    await self._begin(tail, {partition: homes[partition] for partition in missing})
        return tail

    async def _begin(self, tail: TableTail, homes: Homes) -> None:
        if sum(len(other.sources) for other in self._tails.values()) + len(homes) > MOST_SOURCES:
            raise Problem("overloaded", f"this reader follows {MOST_SOURCES} partitions already; ask another node")
        tail.raise_trouble()
        self._watching = self._watching or asyncio.create_task(self._watch())
        table, bounds = tail.table, await self._bounds(tail.table) if None in homes.values() else {}
        for partition, applied in (await self._positions(table, homes)).items():
            if url := homes[partition]:
                peer = PeerSource(table, partition, Ring(applied, _ring_bytes(table)), self._fan_out, url)
                peer.follow(tail.wake, partial(self._ended, tail))
                tail.sources[partition] = peer
                continue
            ring = Ring(min(applied, max(bounds[partition].start, applied - _BACK)), _ring_bytes(table))
            source = PartitionSource(table, partition, ring, self._catalog, self._waiters)
            self._follow(source, tail)
            tail.sources[partition] = source
        self._tails[table.epoch] = tail

    def _ended(self, tail: TableTail, source: PeerSource, problem: Problem) -> None:
        """Let go of a source that another node answers no more; who wants it looks for the partition anew."""
        if tail.sources.get(source.partition) is source:
            tail.trouble = problem
            self._drop(tail, source.partition)

    def _follow(self, source: PartitionSource, tail: TableTail) -> None:
        def number() -> int:
            self._by_number.pop(source.number, None)
            source.number = next(self._numbers)
            self._by_number[source.number] = source
            return source.number

        source.follow(self._shared_parts().tail, number, tail.wake)

    async def _bounds(self, table: Table) -> "dict[int, Bounds]":
        from logstore.log.read.past_records import bounds_of  # noqa: PLC0415 - loads Kafka's client

        return await self._ask(table, lambda bootstrap: bounds_of(bootstrap, table))

    async def _ask(self, table: Table, question: Callable[[str], T]) -> T:
        """Ask Kafka on a thread. Raises Problem."""
        try:
            return await asyncio.to_thread(question, self._need_kafka())
        except LogStoreError as error:
            raise unreadable(table, 0, error) from error

    def _need_kafka(self) -> str:
        if self._bootstrap is None:
            raise Problem("log-unreachable", "this reader was not told Kafka's address, which the change feed needs")
        return self._bootstrap

    def _shared_parts(self) -> "_Parts":
        if self._parts is not None and self._parts.tail.is_alive:
            return self._parts
        from logstore.log.read.shared_tail import SharedTail  # noqa: PLC0415 - loads Kafka's client

        bootstrap, before = self._need_kafka(), self._parts
        tail = SharedTail(bootstrap, self._delivery(asyncio.get_running_loop()))
        past = PastChanges(bootstrap) if before is None else before.past
        self._parts = _Parts(tail, past)
        return self._parts

    def _delivery(self, loop: asyncio.AbstractEventLoop) -> "Callable[[int, Records | str], None]":
        """Delivery by the thread of the tail: it waits while the event loop has more to take than it should."""
        room = threading.BoundedSemaphore(_MOST_UNDER_WAY)

        def take(number: int, found: list[RowChange] | str, following: int) -> None:
            room.release()
            self._arrived(number, found, following)

        def deliver(number: int, came: Records | str) -> None:
            source = self._by_number.get(number)
            if source is None:
                return
            found = came if isinstance(came, str) else source.changes_of(came)
            following = 0 if isinstance(came, str) else came.offsets[-1] + 1
            while not room.acquire(timeout=_LOOK_S):
                if self.closing:
                    return
            loop.call_soon_threadsafe(take, number, found, following)

        return deliver

    def _arrived(self, number: int, found: list[RowChange] | str, following: int) -> None:
        source = self._by_number.get(number)
        if source is None:
            return
        if not isinstance(found, str):
            source.arrived(following, found)
            return
        log.warning("the log is not followed for the change feed", table=source.table.name,
                    partition=source.partition, reason=found)  # fmt: skip
        tail = self._tails.get(source.table.epoch)
        if tail is not None:
            tail.trouble = unreadable(source.table, source.partition, LogUnreachable(found))
            self._drop(tail, source.partition)

    def _drop(self, tail: TableTail, partition: int) -> None:
        source = tail.sources.get(partition)
        if source is not None:
            self._by_number.pop(source.number, None)
            tail.drop(partition)

    async def _watch(self) -> None:
        """Let subscribers look when a table or a partition is another's now, and end tails that nobody needs."""
        loop = asyncio.get_running_loop()
        before: dict[str, object] = {}
        while True:
            await asyncio.sleep(_LOOK_S)
            for epoch, tail in list(self._tails.items()):
                now = self._standing(tail)
                if before.get(epoch, now) != now:
                    tail.wake()
                before[epoch] = now
                tail.trouble = None
                if tail.is_idle(loop.time()):
                    for partition in list(tail.sources):
                        self._drop(tail, partition)
                    del self._tails[epoch], before[epoch]

    def _standing(self, tail: TableTail) -> object:
        """All that decides whether a subscriber may go on."""
        table = (self._catalog.tables or {}).get(tail.table.name)
        served = [self._catalog.served.get((tail.table.epoch, p)) for p in range(tail.table.partitions)]
        return table and table.epoch, [one and (one.state, one.answers) for one in served]


def _ring_bytes(table: Table) -> int:
    return max(_RING_BYTES, 2 * table.max_value_bytes)
