"""Loop connections: those of a client for asyncio, in the event loop that it is used in."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from logstore.client.read.loop_reader import AsyncReader
from logstore.client.store import Store
from logstore.client.tables import CachedDefinitions
from logstore.client.write.async_pipeline import AsyncPipeline
from logstore.client.write.level import WriteLevel
from logstore.client.write.wakeups import Wakeups
from logstore.log.after_fork import keep, renew_in_child
from logstore.log.write.limits import COMPRESSION, DELIVERY_TIMEOUT_S, LINGER_MS, QUEUE_BYTES, QUEUE_RECORDS, OnFull
from logstore.model.errors import UsageError

if TYPE_CHECKING:
    from ssl import SSLContext


class LoopConnections:
    """Connections of one event loop to a store; those that no loop needs are a `Store`'s."""

    def __init__(
        self,
        bootstrap: str | None = None,
        url: str | None = None,
        *,
        on_full: OnFull = "wait",
        queue_records: int = QUEUE_RECORDS,
        queue_bytes: int = QUEUE_BYTES,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
        linger_ms: float = LINGER_MS,
        compression: str = COMPRESSION,
        definitions: CachedDefinitions | None = None,
        kafka: Mapping[str, Any] | None = None,
        tls: "SSLContext | None" = None,
    ) -> None:
        """Settle the addresses; nothing is connected before the first call that needs it. Arguments as of `Store`."""
        self._store = Store(
            bootstrap, url, on_full=on_full, queue_records=queue_records, queue_bytes=queue_bytes,
            delivery_timeout_s=delivery_timeout_s, linger_ms=linger_ms, compression=compression,
            definitions=definitions, kafka=kafka, tls=tls,
        )  # fmt: skip
        self._connect()
        renew_in_child(self)

    def _connect(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reader: AsyncReader | None = None
        self._wakeups: Wakeups | None = None
        self._pipelines: dict[str, AsyncPipeline] = {}
        self._singles_of_leaders: dict[str, AsyncPipeline] = {}

    def after_fork(self) -> None:
        """Connect anew in the child, in the loop that is used there; see `log.after_fork`."""
        for inherited in (self._reader, self._wakeups, self._pipelines, self._singles_of_leaders):
            keep(inherited)
        self._connect()

    async def flush(self, timeout_s: float | None = None) -> int:
        """Wait for all writes, of pipelines too; returns how many are still without acknowledgement."""
        return await asyncio.to_thread(self._store.flush, timeout_s)

    async def close(self, timeout_s: float | None = None) -> None:
        """Flush and let go; pipelines that are still open take nothing more.

        Raises Unknown when writes remain without acknowledgement after `timeout_s` (default: the delivery timeout).
        """
        try:
            await _in_a_thread(partial(self._store.close, timeout_s))
        finally:
            reader, self._reader = self._reader, None
            if reader is not None and self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(reader.close)
                await asyncio.sleep(0)

    async def open_pipeline(
        self, table: str, level: WriteLevel | None = None, *, waits: bool = False
    ) -> AsyncPipeline:  # fmt: skip
        """A pipeline of its own; connecting and asking for the definition happen on another thread, the first time.

        `level`: of its producer; with `waits` of its writes too, which else leave it to their caller.
        """
        loop = self._here()
        producer = await asyncio.to_thread(self._store.producer_at(level).get)
        definition = await asyncio.to_thread(self._store.tables.get, table)
        if self._wakeups is None:
            self._wakeups = Wakeups(loop)
        again = partial(self._store.ask_again, table)
        proof = self._store.tables.proof
        return AsyncPipeline(
            producer,
            definition,
            self._wakeups,
            partial(self._forget, table),
            again,
            proof,
            lambda: self._store.desk,
            level if waits else None,
            lambda: self._store.waiting,
        )

    def _forget(self, table: str) -> None:
        self._pipelines.pop(table, None)
        self._singles_of_leaders.pop(table, None)
        self._store.forget(table)

    def _reads(self) -> AsyncReader:
        self._here()
        if self._reader is None:
            self._reader = AsyncReader(self._store.need_url(), self._store.tls)
        return self._reader

    def _here(self) -> asyncio.AbstractEventLoop:
        """The event loop of this client: the first one that it is used in, and the next one when that is closed."""
        self._store.check_open()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError("an AsyncStore is used inside an event loop (asyncio.run); elsewhere use Store") from None
        if loop is not self._loop:
            if self._loop is not None and not self._loop.is_closed():
                raise UsageError("this AsyncStore belongs to another event loop, which is not closed; make one in each")
            self._connect()
            self._loop = loop
        return loop


async def _in_a_thread(call: Callable[[], None]) -> None:
    """Call it on a thread of its own: those of the event loop may all be waiting for Kafka."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            call()
            done.set_result(None)
        except BaseException as error:  # raised where it is awaited
            done.set_exception(error)

    threading.Thread(target=run, name="logstore-close", daemon=True).start()
    await asyncio.wrap_future(done)
