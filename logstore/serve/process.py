"""Reader process: from its options to its end.

1 bind a socket of its own; the kernel spreads connections over all readers of the port (SO_REUSEPORT)
2 follow the feeds of the node's workers, open the views
3 serve until SIGTERM or SIGINT
4 stop: accept no more, tell who waits for a token to ask elsewhere, finish what runs, close the views
"""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
import orjson
import uvicorn
import uvloop

from logstore.model.errors import SetupError
from logstore.process import descriptors, logs
from logstore.process.heartbeat import Heartbeat
from logstore.serve.app import App
from logstore.serve.changes.change_feed import ChangeFeed
from logstore.serve.changes.changes_page import ChangesPage
from logstore.serve.fast_path import FastPath, NoFastPath
from logstore.serve.metrics.counts import Metrics
from logstore.serve.metrics.page import MetricsPage
from logstore.serve.protocol import Connections, protocol_class
from logstore.serve.read.consistency_wait import ConsistencyWait
from logstore.serve.read.multiget import MultiGet
from logstore.serve.read.outcomes import OutcomePages
from logstore.serve.read.peers.fan_out import FanOut
from logstore.serve.read.point import PointRead
from logstore.serve.read.scan import ScanPage
from logstore.serve.request_log import RequestLog
from logstore.serve.settings import ReaderSettings, check_bind, need_log
from logstore.serve.state.catalog import Catalog
from logstore.serve.state.feed_client import FeedClient
from logstore.serve.state.waiters import Waiters
from logstore.serve.status_pages import Pages
from logstore.serve.store_status import StoreStatus

if TYPE_CHECKING:
    from logstore.serve.writes.pages import WritePages

_BACKLOG = 4_096
_BEAT_S = 1.0
_LOOK_S = 0.1  # at its own readiness, until it is ready
_YOUNG = 50_000  # objects between collections: requests make few that outlive them

log = logs.get(__name__)


class ReaderProcess:
    """Parts of a reader, put together."""

    def __init__(self, settings: ReaderSettings) -> None:
        self._settings = settings
        self._waiters = Waiters(settings.max_waiters)
        self._catalog = Catalog(settings.node, self._waiters)
        self._feeds = FeedClient(settings.data_dir, settings.workers, self._catalog)
        self._fan_out = FanOut(self._catalog)
        metrics = Metrics(settings.index, self._catalog, self._waiters)
        self._page = MetricsPage(settings.data_dir, metrics, self._catalog)
        self._changes = ChangeFeed(self._catalog, self._waiters, self._fan_out, settings.bootstrap)
        metrics.more.append(self._changes.families)
        request_log = RequestLog(settings.slow_ms / 1000, every=settings.access_log)
        consistency_wait = ConsistencyWait(self._catalog, self._waiters)
        self._pages = Pages(settings, self._catalog, self._feeds)
        self._writes = self._write_pages(consistency_wait) if settings.writes else None
        if self._writes is not None:
            metrics.more.append(self._writes.gateway.families)
        self._status = StoreStatus(self._catalog, self._feeds, self._pages)
        self._app = App(
            PointRead(self._catalog, consistency_wait), ScanPage(self._catalog, consistency_wait, self._fan_out),
            MultiGet(self._catalog, consistency_wait, self._fan_out), OutcomePages(self._catalog, consistency_wait),
            ChangesPage(self._catalog, consistency_wait, self._fan_out, self._changes),
            self._pages, self._status, self._page, request_log, self._writes,
        )  # fmt: skip
        fast_path = NoFastPath if settings.access_log else FastPath
        self._connections = Connections(settings, fast_path(self._catalog, metrics, request_log))
        metrics.connections = lambda: len(self._connections.open)

    def _write_pages(self, consistency_wait: ConsistencyWait) -> "WritePages":
        from logstore.serve.writes.pages import WritePages  # noqa: PLC0415 - loads librdkafka, which readers do without

        return WritePages.made(need_log(self._settings), self._catalog, consistency_wait, self._fan_out)

    async def serve(self, sock: socket.socket, ending: threading.Event) -> None:
        """Serve until a signal ends it. `ending`: set by one that comes before uvicorn listens for signals."""
        config = uvicorn.Config(
            self._app, http=protocol_class(self._connections), loop="none", lifespan="off", ws="none",
            interface="asgi3",
            access_log=False, server_header=False, log_config=None, backlog=_BACKLOG, proxy_headers=False,
            timeout_graceful_shutdown=max(1, round(self._settings.stop_timeout_s)),
        )  # fmt: skip
        self._feeds.start()
        sweep = asyncio.create_task(self._connections.sweep())
        written = asyncio.create_task(self._page.publish_always())
        pulse = asyncio.create_task(_beat(Heartbeat(self._settings.heartbeat_fd)))
        ready = asyncio.create_task(self._say_ready(*sock.getsockname()[:2]))
        _calm_collector()
        try:
            await _Server(config, self._say_stop, ending).serve(sockets=[sock])
        finally:
            sweep.cancel()
            pulse.cancel()
            ready.cancel()
            written.cancel()
            await self._changes.stop()
            if self._writes is not None:
                await self._writes.gateway.close(self._settings.stop_timeout_s)
            await self._feeds.stop()
            await self._fan_out.close()
            await self._status.close()
            self._catalog.views.close()

    def _say_stop(self) -> None:
        self._waiters.close()
        self._changes.close()
        if self._writes is not None:
            self._writes.gateway.stop()

    async def _say_ready(self, host: str, port: int) -> None:
        s = self._settings
        while s.say_ready and self._pages.unready():
            await asyncio.sleep(_LOOK_S)
        if s.say_ready:
            click.echo(orjson.dumps({"ready": True, "node_id": s.node, "reader": s.index, "host": host, "port": port}))


async def _beat(heartbeat: Heartbeat) -> None:
    """Tell the supervisor that the event loop turns."""
    while True:
        heartbeat.beat()
        await asyncio.sleep(_BEAT_S)


class _Server(uvicorn.Server):
    """uvicorn's, with a word to say before it stops, and an ear for a signal that came before it started."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None], ending: threading.Event) -> None:
        super().__init__(config)
        self._on_stop, self._ending = on_stop, ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._ending.is_set():  # looked at once uvicorn has its own handlers: a signal is noted there or here
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        await super().shutdown(sockets)


def run(settings: ReaderSettings) -> None:
    """Serve in this process until SIGTERM or SIGINT; raises SetupError when the address cannot be had."""
    check_bind(settings.host, insecure=settings.insecure)
    if settings.writes:
        need_log(settings)
    logging.getLogger("uvicorn.error").setLevel(
        logging.ERROR
    )  # it warns of every request that is not HTTP; the client is told
    descriptors.raise_limit()
    sock = bind(settings.host, settings.port)
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises it once more at its end: nothing is left to do then
        signal.signal(number, lambda *_: ending.set())
    host, port = sock.getsockname()[:2]
    log.info("the reader serves", data_dir=str(settings.data_dir), host=host, port=port)
    with contextlib.closing(sock):
        uvloop.run(ReaderProcess(settings).serve(sock, ending))


def bind(host: str, port: int) -> socket.socket:
    """A socket of this process's own on a port that the readers of a node share; raises SetupError."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError as error:
        raise SetupError(
            f"cannot serve on {host}:{port}: {error.strerror}; choose another address with --host and --port"
        ) from error
    sock.listen(_BACKLOG)
    sock.setblocking(False)
    return sock


def _calm_collector() -> None:
    """Freeze the objects that live for ever, and let the garbage collector look less often (p99)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 50)
