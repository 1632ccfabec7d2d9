"""Feed client: follows every worker of the node, and acknowledges what this reader serves.

1 connect; while nobody listens, try again after 50 ms, then twice as long, up to a second
2 the worker sends its whole dictionary, then every change; each chunk is folded into the catalog at once
3 acknowledge the revision of the tables, once every view that the node claims is open, the newest mark that was heard,
  and at once which snapshots were found damaged: [table, epoch, partition, name] each, of which partitions a record
  with a later time is waited for: [epoch, partition, time] each, and of which an end or a barrier of the log (a worker
  that was restarted meanwhile is told again). One acknowledgement is on its way at most, however slow the worker
  reads, and the next one a few milliseconds later at the earliest
"""

import asyncio
import contextlib
import logging
import os
import socket
from pathlib import Path

from logstore.serve.state.catalog import Catalog
from logstore.serve.state.log_points import BARRIER, END
from logstore.serve.state.worker_feed import GRACE_S, WorkerFeed
from logstore.view import paths
from logstore.view.feed.acknowledgement import Acknowledgement
from logstore.view.feed.adoption_records import AdoptionKey, AdoptionRecord
from logstore.view.feed.changes import Change
from logstore.view.feed.fields import UnreadableRecord
from logstore.view.feed.log_records import BarrierKey, ClockRecord, EndKey, EndsRecord, LogPointRecord
from logstore.view.feed.position_records import AppliedKey, AppliedRecord, TimesKey, TimesRecord
from logstore.view.feed.stream import FeedReader, connect

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_GATHER_S = 0.003  # between two acknowledgements: under load one names the points that many requests wait for
_CHUNK = 1 << 18

log = logging.getLogger(__name__)


class FeedClient:
    """The connections to all workers of the node."""

    def __init__(self, data_dir: Path, workers: int, catalog: Catalog, *, embedded: bool = False) -> None:
        """`embedded`: in a program of its own, for which the node never waits."""
        self._data_dir, self._catalog, self._embedded = data_dir, catalog, embedded
        self.feeds = [WorkerFeed(i) for i in range(workers)]
        self._bells: dict[int, asyncio.Event] = {}  # of the workers that are there: there may be news for them
        self._tasks: list[asyncio.Task[None]] = []
        self.served_revision = -1
        catalog.views.snapshots.on_damage = self.tell
        catalog.ticks.on_change = self.tell
        catalog.points.on_change = self.tell

    def start(self) -> None:
        """Begin to follow; what the workers left on disk is served until they speak."""
        recalled = [feed.recall(self._data_dir) for feed in self.feeds]
        if any(recalled):
            self._catalog.rebuild(self.feeds)
        self._tasks = [asyncio.create_task(self._follow(feed)) for feed in self.feeds]

    def follow(self, worker: int) -> None:
        """Follow one more worker, which the node has by now."""
        feed = WorkerFeed(worker)
        self.feeds.append(feed)
        if feed.recall(self._data_dir):
            self._catalog.rebuild(self.feeds)
        self._tasks.append(asyncio.create_task(self._follow(feed)))

    async def stop(self) -> None:
        """Close the connection to the feed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, feed: WorkerFeed) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            try:
                sock = connect(paths.feed_path(self._data_dir, feed.worker))
            except OSError:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
                continue
            with contextlib.closing(sock):
                try:
                    spoke = await self._listen(feed, sock)
                except OSError:  # it hung up
                    spoke = False
                except UnreadableRecord as error:  # what is known stays, and the next connection begins anew
                    log.warning("worker %d says what this reader cannot read: %s", feed.worker, error)
                    spoke = False
                except Exception:  # not a worker, or a definition of a later version
                    log.exception("what worker %d says cannot be taken in", feed.worker)
                    spoke = False
            pause = _FIRST_PAUSE_S if spoke else min(pause * 2, _LONGEST_PAUSE_S)
            await asyncio.sleep(pause)

    async def _listen(self, feed: WorkerFeed, sock: socket.socket) -> bool:
        """Listen until the worker hangs up; True when it said something."""
        loop, reader = asyncio.get_running_loop(), FeedReader()
        spoke = False
        self._bells[feed.worker] = bell = asyncio.Event()
        speaking = loop.create_task(self._acknowledge(feed, sock, bell))
        feed.begin()
        grace: asyncio.TimerHandle | None = None
        try:
            while data := await loop.sock_recv(sock, _CHUNK):
                spoke = True
                self._hear(feed, reader.decode(data))
                grace = grace or loop.call_later(GRACE_S * 2, self._refresh)
                self.tell()
                if speaking.done():
                    speaking.result()
        finally:
            if grace is not None:
                grace.cancel()
            speaking.cancel()
            del self._bells[feed.worker]
            await asyncio.gather(speaking, return_exceptions=True)
            feed.end()
            self._refresh()
        return spoke

    def _hear(self, feed: WorkerFeed, changes: list[Change]) -> None:
        more = [feed.hear(change) for change in changes]
        if any(more):
            self._refresh()
        for change in changes:
            match change:
                case (AppliedKey() as key, AppliedRecord() as stands):
                    self._catalog.applied(key.epoch, key.partition, stands)
                case (AdoptionKey() as key, (AdoptionRecord() | None) as adoption):
                    self._catalog.heard_adoption(key.epoch, key.partition, adoption)
                case (TimesKey() as key, TimesRecord() as times):
                    self._catalog.ticked(key.epoch, key.partition, times)
                case (_, ClockRecord() as clock):
                    self._catalog.broker_clock.heard(clock)
                case (_, EndsRecord() as ends):
                    self._catalog.heard_ends(ends)
                case (EndKey() as key, (LogPointRecord() | None) as point):
                    self._catalog.heard_point(END, (key.epoch, key.partition), point)
                case (BarrierKey() as key, (LogPointRecord() | None) as point):
                    self._catalog.heard_point(BARRIER, (key.epoch, key.partition), point)

    def _refresh(self) -> None:
        self._catalog.rebuild(self.feeds)
        if self._catalog.tables is not None and not self._catalog.missing():
            self.served_revision = self._catalog.revision

    async def _acknowledge(self, feed: WorkerFeed, sock: socket.socket, bell: asyncio.Event) -> None:
        """Tell a worker what is new to it, until cancelled; raises OSError when it hangs up."""
        loop, last = asyncio.get_running_loop(), Acknowledgement()
        while await bell.wait():
            bell.clear()
            ack = self._state(feed)
            if ack != Acknowledgement(ack.pid, mark=ack.mark) and _is_news(ack, last):
                last = ack
                await loop.sock_sendall(sock, ack.encode())
                await asyncio.sleep(_GATHER_S)

    def _state(self, feed: WorkerFeed) -> Acknowledgement:
        catalog = self._catalog
        return Acknowledgement(
            os.getpid(), self.served_revision, feed.mark, catalog.views.snapshots.damaged(), catalog.ticks.listed(),
            catalog.points.listed(END), catalog.points.listed(BARRIER), self._embedded,
        )  # fmt: skip

    def tell(self) -> None:
        """Tell the workers what is new to them. On the event loop."""
        for bell in self._bells.values():
            bell.set()


def _is_news(ack: Acknowledgement, last: Acknowledgement) -> bool:
    """True unless all that has changed is that fewer points are wanted: the worker knows which ones it has answered."""
    if ack._replace(ends=(), barriers=()) != last._replace(ends=(), barriers=()):
        return True
    return not (set(ack.ends) <= set(last.ends) and set(ack.barriers) <= set(last.barriers))
