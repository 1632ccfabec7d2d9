"""Feed client: follows every worker of the node, and acknowledges what this reader serves.

1 connect; while nobody listens, try again after 50 ms, then twice as long, up to a second
2 the worker sends its whole dictionary, then every change; each chunk is folded into the catalog at once
3 acknowledge the revision of the tables, once every view that the node claims is open, the newest mark that was heard,
  and at once which snapshots were found damaged: [table, epoch, partition, name] each, and of which partitions a
  record with a later time is waited for: [epoch, partition, time] each
"""

import asyncio
import contextlib
import logging
import os
import socket
from pathlib import Path

from logstore.serve.state.catalog import Catalog
from logstore.serve.state.worker_feed import GRACE_S, WorkerFeed
from logstore.view import paths
from logstore.view.feed.acknowledgement import Acknowledgement
from logstore.view.feed.adoption_records import AdoptionKey, AdoptionRecord
from logstore.view.feed.changes import Change
from logstore.view.feed.fields import UnreadableRecord
from logstore.view.feed.log_records import EndsRecord
from logstore.view.feed.position_records import AppliedKey, AppliedRecord, TimesKey, TimesRecord
from logstore.view.feed.stream import FeedReader, connect

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_CHUNK = 1 << 18

log = logging.getLogger(__name__)


class FeedClient:
    """The connections to all workers of the node."""

    def __init__(self, data_dir: Path, workers: int, catalog: Catalog) -> None:
        self._data_dir, self._catalog = data_dir, catalog
        self.feeds = [WorkerFeed(i) for i in range(workers)]
        self._sockets: dict[int, socket.socket] = {}
        self._acked: dict[int, Acknowledgement] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._telling: set[asyncio.Task[None]] = set()
        self.served_revision = -1
        catalog.views.snapshots.on_damage = self._tell
        catalog.ticks.on_change = self._tell

    def start(self) -> None:
        """Begin to follow; what the workers left on disk is served until they speak."""
        recalled = [feed.recall(self._data_dir) for feed in self.feeds]
        if any(recalled):
            self._catalog.rebuild(self.feeds)
        self._tasks = [asyncio.create_task(self._follow(feed)) for feed in self.feeds]

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
        self._sockets[feed.worker] = sock
        feed.begin()
        grace: asyncio.TimerHandle | None = None
        try:
            while data := await loop.sock_recv(sock, _CHUNK):
                spoke = True
                self._hear(feed, reader.decode(data))
                grace = grace or loop.call_later(GRACE_S * 2, self._refresh)
                await self._acknowledge()
        finally:
            if grace is not None:
                grace.cancel()
            del self._sockets[feed.worker]
            self._acked.pop(feed.worker, None)
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
                case (_, EndsRecord() as ends):
                    self._catalog.heard_ends(ends)

    def _refresh(self) -> None:
        self._catalog.rebuild(self.feeds)
        if self._catalog.tables is not None and not self._catalog.missing():
            self.served_revision = self._catalog.revision

    async def _acknowledge(self) -> None:
        """Tell every worker that is there; only what is new to it."""
        loop, damaged = asyncio.get_running_loop(), self._catalog.views.snapshots.damaged()
        ticks = self._catalog.ticks.listed()
        for feed in self.feeds:
            sock = self._sockets.get(feed.worker)
            ack = Acknowledgement(os.getpid(), self.served_revision, feed.mark, damaged, ticks)
            due = self.served_revision >= 0 or damaged or ticks
            if sock is not None and due and self._acked.get(feed.worker) != ack:
                self._acked[feed.worker] = ack
                with contextlib.suppress(OSError):  # its own task sees it hang up
                    await loop.sock_sendall(sock, ack.encode())

    def _tell(self) -> None:
        task = asyncio.get_running_loop().create_task(self._acknowledge())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
