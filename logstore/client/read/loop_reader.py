"""Loop reader: a reader for asyncio, one of the two drivers of a conversation; `http` is the other."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from logstore.client.checks import Text
from logstore.client.lazily import CLOSED
from logstore.client.read.conversation.conversation import Conversation
from logstore.client.read.conversation.scan import Scan
from logstore.client.read.conversation.steps import Ask, Pause, SendAhead, Step, Steps, TakeAhead
from logstore.client.read.http import raise_final
from logstore.client.read.point import After
from logstore.client.read.row import Row
from logstore.client.read.scan_pages import ScanPages
from logstore.client.transport.answer import HttpAnswer, Malformed
from logstore.client.transport.origin import Origin
from logstore.client.transport.protocol import ProtocolPool
from logstore.client.transport.request import request_bytes
from logstore.model.errors import UsageError
from logstore.model.position import Position

if TYPE_CHECKING:
    from ssl import SSLContext

    from logstore.client.transport.ahead import LoopAhead
    from logstore.client.wide.row import WideRow
    from logstore.model.wide.selection import CellSelection

T = TypeVar("T")


class AsyncReader:
    """Reads rows without blocking the event loop that it is used in first."""

    def __init__(self, url: str, tls: "SSLContext | None" = None) -> None:
        """`url`: any node of the store; raises UsageError when it is none."""
        self._conversation, self._tls = Conversation(url), tls
        self._pools: dict[str, ProtocolPool] = {}
        self._closed = False

    async def get(self, table: str, key: Text, *, after: After, deadline_ms: int) -> Row | None:
        """Read a row, or None, as `Store.get`."""
        return await self._run(self._conversation.get(table, key, after, deadline_ms))

    async def get_many(self, table: str, keys: Sequence[Text], *, after: After, deadline_ms: int) -> list[Row | None]:
        """Read many rows, as `Store.get_many`."""
        return await self._run(self._conversation.get_many(table, keys, after, deadline_ms))

    async def get_wide(
        self, table: str, key: Text, cells: "CellSelection", *, after: After, deadline_ms: int
    ) -> "WideRow | None":
        """Read a wide row, or None, as `Store.get_row`."""
        return await self._run(self._conversation.get_wide(table, key, cells, after, deadline_ms))

    async def get_many_wide(
        self, table: str, keys: Sequence[Text], cells: "CellSelection", *, after: After, deadline_ms: int
    ) -> "list[WideRow | None]":
        """Read many wide rows, as `Store.get_rows`."""
        return await self._run(self._conversation.get_many_wide(table, keys, cells, after, deadline_ms))

    async def changes(self, table: str, query: Mapping[str, bytes | str], wait_ms: int) -> HttpAnswer:
        """Ask for a page of a table's changes, for which the server waits `wait_ms`."""
        return await self._run(self._conversation.changes(table, query, wait_ms))

    async def about_row(
        self, table: str, key: bytes, below: str, *, after: After, deadline_ms: int, content: bytes | None = None
    ) -> HttpAnswer:  # fmt: skip
        """Read a page about a row, as `Conversation.about_row`."""
        return await self._run(self._conversation.about_row(table, key, below, after, deadline_ms, content))

    async def reach(self, table: str, position: Position, deadline_ms: int) -> None:
        """Wait until a position has been applied, as `Conversation.reach`."""
        await self._run(self._conversation.reach(table, position, deadline_ms))

    def scan(self, table: str, pages: ScanPages, *, after: After, deadline_ms: int) -> AsyncIterator[Any]:
        """Read rows in order, as `Store.scan`."""
        return self._rows(self._conversation.scan(table, pages, after, deadline_ms))

    async def _rows(self, scan: Scan) -> AsyncIterator[Any]:
        try:
            while not scan.is_done:
                for row in (await self._run(scan.page())).rows:
                    yield row
        finally:
            scan.drop()

    def close(self) -> None:
        """Close the connections; those in use are closed when their answer is there. Requires: in the loop."""
        self._closed = True
        for pool in self._pools.values():
            pool.close()

    async def _run(self, steps: Steps[T]) -> T:
        """Go through the steps. Raises what they raise."""
        try:
            step = next(steps)
            while True:
                step = steps.send(await self._ask(step) if isinstance(step, Ask) else await self._do(step))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _do(self, step: Step) -> "float | LoopAhead | HttpAnswer | None":
        """Answer to a step that is rare."""
        if isinstance(step, SendAhead):
            return self._send_ahead(step.ask)
        if isinstance(step, TakeAhead):
            if self._closed:
                raise UsageError(CLOSED)
            answer: HttpAnswer | None = await step.sent.answer()
            return answer
        assert isinstance(step, Pause), "the fourth kind of step"
        if step.seconds:
            await asyncio.sleep(step.seconds)
        return monotonic()

    async def _ask(self, ask: Ask) -> HttpAnswer | float:
        if self._closed:
            raise UsageError(CLOSED)
        pool = self._pools.get(ask.base)
        if pool is None:
            pool = self._pools[ask.base] = ProtocolPool(Origin.of(ask.base), self._tls)
        request = request_bytes(pool.origin, ask.method, ask.path, ask.headers, ask.content)
        try:
            return await pool.ask(request, ask.end)
        except (OSError, Malformed) as error:
            raise_final(ask.base, error)
        return monotonic()

    def _send_ahead(self, ask: Ask) -> "LoopAhead | None":
        """A request that nobody waits for yet, over a connection that is there."""
        pool = self._pools.get(ask.base)
        if pool is None:
            return None
        return pool.send_ahead(request_bytes(pool.origin, ask.method, ask.path, ask.headers, ask.content), ask.end)
