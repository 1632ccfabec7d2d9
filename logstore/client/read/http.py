"""HTTP: the two edges of `reading`, blocking and not, over the connections of `transport`."""

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from logstore.client.checks import Text, check_number, keys_of
from logstore.client.lazily import CLOSED
from logstore.client.read.reading import MANY, After, Ask, Budget, Conversation, Steps
from logstore.client.read.row import Row, RowPage
from logstore.client.transport.answer import HttpAnswer, Malformed
from logstore.client.transport.origin import Origin
from logstore.client.transport.request import request_bytes
from logstore.client.transport.sockets import SocketPool
from logstore.model.errors import ServerUnreachable, UsageError
from logstore.model.key import check_key, to_base64url, to_bytes
from logstore.model.position import Position

if TYPE_CHECKING:
    from ssl import SSLContext

    from logstore.client.transport.ahead import Ahead, LoopAhead
    from logstore.client.transport.protocol import ProtocolPool
    from logstore.client.wide.row import WideRow
    from logstore.model.wide.selection import CellSelection

T = TypeVar("T")
_POLL_MS = 15_000  # for the snapshot part's page, and what is temporary
_LONG = 16_384  # bytes
_MANY_BYTES = 2 * 1024 * 1024  # keys of one multi-get


class ScanPages:
    """The arguments of a scan, and where its next page begins."""

    def __init__(
        self,
        *,
        prefix: Text | None = None,
        start: Text | None = None,
        end: Text | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
        cells: "CellSelection | None" = None,
    ) -> None:
        """Take over the settings; raises UsageError when they contradict each other. `cells`: of wide rows."""
        if prefix is not None and (start is not None or end is not None):
            raise UsageError("a scan takes either prefix, or start and end")
        if type(reverse) is not bool or type(keys_only) is not bool:
            raise UsageError(f"reverse and keys_only are True or False, not {reverse!r:.40} and {keys_only!r:.40}")
        if limit is not None:
            check_number("limit", limit, 1, whole=True)
        self._left, self._reads_on = limit, limit is not None
        bounds = {"prefix": prefix, "start": start, "end": end}
        self._query = _encoded({name: to_bytes(bound) for name, bound in bounds.items() if bound is not None})
        if reverse:
            self._query["reverse"] = "true"
        if keys_only:
            self._query["keys_only"] = "true"
        self.wide = cells is not None
        if cells is not None:
            self._query.update(cells.params())
        self._cursor: str | None = None
        self.done = self.slow = False

    def query(self) -> dict[str, bytes | str]:
        """The next page's parameters."""
        limit = MANY if self._left is None else min(MANY, self._left)
        page = {**self._query, "limit": str(limit)}
        return page if self._cursor is None else {**page, "cursor": self._cursor}

    def took(self, page: RowPage) -> None:
        """Note a page that has come."""
        self._reads_on = self._reads_on or self._cursor is not None
        self._cursor = page.cursor
        if self._left is not None:
            self._left -= page.length
        self.done = page.cursor is None or self._left == 0

    @property
    def reads_on(self) -> bool:
        """True when the next page is asked for while this one is taken: by the limit, or since one was taken whole."""
        return self._reads_on and not self.done and not self.slow

    def came_late(self) -> None:
        """Note that a page asked for ahead was of no use: rows are taken too slowly for it."""
        self.slow = True


class HttpReader:
    """Reads rows, blocking. Thread-safe."""

    def __init__(self, url: str, tls: "SSLContext | None" = None) -> None:
        """`url`: any node of the store; raises UsageError when it is none."""
        self._conversation, self._tls = Conversation(url), tls
        self._pools: dict[str, SocketPool] = {}
        self._closed = False

    def get(self, table: str, key: Text, *, after: After, deadline_ms: int) -> Row | None:
        """Read a row, or None, as `Store.get`."""
        raw, now = to_bytes(key), monotonic()
        budget, conversation = Budget.of(deadline_ms, now), self._conversation
        first = self._ask(conversation.first_ask(table, raw, after, budget))
        if isinstance(first, HttpAnswer) and first.status == 200:
            row: Row = conversation.row(raw, first, table)
            return row
        return self._run(conversation.get(table, raw, after, budget, now), first)

    def get_many(self, table: str, keys: Sequence[Text], *, after: After, deadline_ms: int) -> list[Row | None]:
        """Read many rows, as `Store.get_many`."""
        rows: list[Row | None] = []
        for some in _thousands(keys):
            now = monotonic()
            budget, conversation = Budget.of(deadline_ms, now), self._conversation
            first = self._ask(conversation.first_ask_many(table, some, after, budget))
            found = conversation.all_rows(first, table, some, after)
            if found is None:
                found = self._run(conversation.get_many(table, some, after, budget, now), first)
            rows += found
        return rows

    def get_wide(
        self, table: str, key: Text, cells: "CellSelection", *, after: After, deadline_ms: int
    ) -> "WideRow | None":
        """Read a wide row, or None, as `Store.get_row`."""
        now = monotonic()
        steps = self._conversation.get_wide(table, to_bytes(key), after, Budget.of(deadline_ms, now), now, cells)
        return self._run(steps)

    def get_many_wide(
        self, table: str, keys: Sequence[Text], cells: "CellSelection", *, after: After, deadline_ms: int
    ) -> "list[WideRow | None]":
        """Read many wide rows, as `Store.get_rows`."""
        rows: list[WideRow | None] = []
        for some in _thousands(keys):
            now = monotonic()
            steps = self._conversation.get_many(table, some, after, Budget.of(deadline_ms, now), now, cells)
            rows += self._run(steps)
        return rows

    def changes(self, table: str, query: Mapping[str, bytes | str], wait_ms: int) -> HttpAnswer:
        """Ask for a page of a table's changes, for which the server waits `wait_ms`."""
        now = monotonic()
        budget = Budget.of(wait_ms + _POLL_MS, now)
        return self._run(self._conversation.changes(table, query, budget, now))

    def about_row(
        self, table: str, key: bytes, below: str, *, after: After, deadline_ms: int, content: bytes | None = None
    ) -> HttpAnswer:  # fmt: skip
        """Read a page about a row, as `Conversation.about_row`."""
        now = monotonic()
        budget = Budget.of(deadline_ms, now)
        return self._run(self._conversation.about_row(table, check_key(key), below, after, budget, now, content))

    def reach(self, table: str, position: Position, deadline_ms: int) -> None:
        """Wait until a position has been applied, as `Conversation.reach`."""
        now = monotonic()
        self._run(self._conversation.reach(table, position, Budget.of(deadline_ms, now), now))

    def scan(self, table: str, pages: ScanPages, *, after: After, deadline_ms: int) -> Iterator[Any]:
        """Read rows in order, as `Store.scan`."""
        Budget.of(deadline_ms, 0.0)
        return self._pages(pages, table, after, deadline_ms)

    def _pages(self, scan: ScanPages, table: str, after: After, deadline_ms: int) -> Iterator[Any]:
        ahead: Ahead | None = None
        try:
            while not scan.done:
                first = None if ahead is None else self._answer_of(ahead, scan)
                now = monotonic()
                steps = self._conversation.page(
                    table, scan.query(), after, Budget.of(deadline_ms, now), now, wide=scan.wide
                )  # fmt: skip
                page = self._run(steps, first)
                scan.took(page)
                ahead = self._page_ahead(scan, table, after, deadline_ms) if scan.reads_on else None
                yield from page.rows
        finally:
            if ahead is not None:
                ahead.drop()

    def _page_ahead(self, scan: ScanPages, table: str, after: After, deadline_ms: int) -> "Ahead | None":
        """The next page, asked for before anybody waits for it."""
        ask = self._conversation.page_ask(table, scan.query(), after, deadline_ms, monotonic())
        pool = self._pools.get(ask.base)
        if pool is None:
            return None
        return pool.send_ahead(request_bytes(pool.origin, ask.method, ask.path, ask.headers, ask.content), ask.end)

    def _answer_of(self, ahead: "Ahead", scan: ScanPages) -> HttpAnswer | None:
        if self._closed:
            raise UsageError(CLOSED)
        answer = ahead.answer()
        if answer is None:
            scan.came_late()
        return answer

    def close(self) -> None:
        """Close the connections; those in use are closed when their answer is there."""
        self._closed = True
        for pool in list(self._pools.values()):
            pool.close()

    def _run(self, steps: Steps[T], first: HttpAnswer | float | None = None) -> T:
        """Go through the steps; `first`: what came of the first one already."""
        try:
            step = next(steps)
            if first is not None:
                step = steps.send(first)
            while True:
                if isinstance(step, Ask):
                    step = steps.send(self._ask(step))
                else:
                    if step.seconds:
                        time.sleep(step.seconds)
                    step = steps.send(monotonic())
        except StopIteration as end:
            result: T = end.value
            return result

    def _ask(self, ask: Ask) -> HttpAnswer | float:
        if self._closed:
            raise UsageError(CLOSED)
        pool = self._pools.get(ask.base) or self._pools.setdefault(ask.base, SocketPool(Origin.of(ask.base), self._tls))
        request = request_bytes(pool.origin, ask.method, ask.path, ask.headers, ask.content)
        try:
            return pool.ask(request, ask.end)
        except (OSError, Malformed) as error:
            raise_final(ask.base, error)
        return monotonic()


class AsyncReader:
    """Reads rows without blocking the event loop that it is used in first."""

    def __init__(self, url: str, tls: "SSLContext | None" = None) -> None:
        """`url`: any node of the store; raises UsageError when it is none."""
        self._conversation, self._tls = Conversation(url), tls
        self._pools: dict[str, ProtocolPool] = {}
        self._closed = False

    async def get(self, table: str, key: Text, *, after: After, deadline_ms: int) -> Row | None:
        """Read a row, or None, as `Store.get`."""
        raw, now = to_bytes(key), monotonic()
        budget, conversation = Budget.of(deadline_ms, now), self._conversation
        first = await self._ask(conversation.first_ask(table, raw, after, budget))
        if isinstance(first, HttpAnswer) and first.status == 200:
            row: Row = conversation.row(raw, first, table)
            return row
        return await self._run(conversation.get(table, raw, after, budget, now), first)

    async def get_many(self, table: str, keys: Sequence[Text], *, after: After, deadline_ms: int) -> list[Row | None]:
        """Read many rows, as `Store.get_many`."""
        rows: list[Row | None] = []
        for some in _thousands(keys):
            now = monotonic()
            budget, conversation = Budget.of(deadline_ms, now), self._conversation
            first = await self._ask(conversation.first_ask_many(table, some, after, budget))
            found = conversation.all_rows(first, table, some, after)
            rows += (
                await self._run(conversation.get_many(table, some, after, budget, now), first)
                if found is None
                else found
            )
        return rows

    async def get_wide(
        self, table: str, key: Text, cells: "CellSelection", *, after: After, deadline_ms: int
    ) -> "WideRow | None":
        """Read a wide row, or None, as `Store.get_row`."""
        now = monotonic()
        steps = self._conversation.get_wide(table, to_bytes(key), after, Budget.of(deadline_ms, now), now, cells)
        return await self._run(steps)

    async def get_many_wide(
        self, table: str, keys: Sequence[Text], cells: "CellSelection", *, after: After, deadline_ms: int
    ) -> "list[WideRow | None]":
        """Read many wide rows, as `Store.get_rows`."""
        rows: list[WideRow | None] = []
        for some in _thousands(keys):
            now = monotonic()
            steps = self._conversation.get_many(table, some, after, Budget.of(deadline_ms, now), now, cells)
            rows += await self._run(steps)
        return rows

    async def changes(self, table: str, query: Mapping[str, bytes | str], wait_ms: int) -> HttpAnswer:
        """Ask for a page of a table's changes, for which the server waits `wait_ms`."""
        now = monotonic()
        budget = Budget.of(wait_ms + _POLL_MS, now)
        return await self._run(self._conversation.changes(table, query, budget, now))

    async def about_row(self, table: str, key: bytes, below: str, *, after: After, deadline_ms: int) -> HttpAnswer:
        """Read a page about a row, as `Conversation.about_row`."""
        now = monotonic()
        budget = Budget.of(deadline_ms, now)
        return await self._run(self._conversation.about_row(table, check_key(key), below, after, budget, now))

    async def reach(self, table: str, position: Position, deadline_ms: int) -> None:
        """Wait until a position has been applied, as `Conversation.reach`."""
        now = monotonic()
        await self._run(self._conversation.reach(table, position, Budget.of(deadline_ms, now), now))

    def scan(self, table: str, pages: ScanPages, *, after: After, deadline_ms: int) -> AsyncIterator[Any]:
        """Read rows in order, as `Store.scan`."""
        Budget.of(deadline_ms, 0.0)
        return self._pages(pages, table, after, deadline_ms)

    async def _pages(self, scan: ScanPages, table: str, after: After, deadline_ms: int) -> AsyncIterator[Any]:
        ahead: LoopAhead | None = None
        try:
            while not scan.done:
                first = None if ahead is None else await self._answer_of(ahead, scan)
                now = monotonic()
                steps = self._conversation.page(
                    table, scan.query(), after, Budget.of(deadline_ms, now), now, wide=scan.wide
                )  # fmt: skip
                page = await self._run(steps, first)
                scan.took(page)
                ahead = self._page_ahead(scan, table, after, deadline_ms) if scan.reads_on else None
                for row in page.rows:
                    yield row
        finally:
            if ahead is not None:
                ahead.drop()

    def _page_ahead(self, scan: ScanPages, table: str, after: After, deadline_ms: int) -> "LoopAhead | None":
        """The next page, asked for before anybody waits for it."""
        ask = self._conversation.page_ask(table, scan.query(), after, deadline_ms, monotonic())
        pool = self._pools.get(ask.base)
        if pool is None:
            return None
        return pool.send_ahead(request_bytes(pool.origin, ask.method, ask.path, ask.headers, ask.content), ask.end)

    async def _answer_of(self, ahead: "LoopAhead", scan: ScanPages) -> HttpAnswer | None:
        if self._closed:
            raise UsageError(CLOSED)
        answer = await ahead.answer()
        if answer is None:
            scan.came_late()
        return answer

    def close(self) -> None:
        """Close the connections; those in use are closed when their answer is there. Requires: in the loop."""
        self._closed = True
        for pool in self._pools.values():
            pool.close()

    async def _run(self, steps: Steps[T], first: HttpAnswer | float | None = None) -> T:
        """Go through the steps; `first`: what came of the first one already."""
        from asyncio import sleep  # noqa: PLC0415 - loaded by whoever runs this; who reads blocking does without

        try:
            step = next(steps)
            if first is not None:
                step = steps.send(first)
            while True:
                if isinstance(step, Ask):
                    step = steps.send(await self._ask(step))
                else:
                    if step.seconds:
                        await sleep(step.seconds)
                    step = steps.send(monotonic())
        except StopIteration as end:
            result: T = end.value
            return result

    async def _ask(self, ask: Ask) -> HttpAnswer | float:
        if self._closed:
            raise UsageError(CLOSED)
        pool = self._pools.get(ask.base)
        if pool is None:
            from logstore.client.transport.protocol import ProtocolPool  # noqa: PLC0415 - loads asyncio

            pool = self._pools[ask.base] = ProtocolPool(Origin.of(ask.base), self._tls)
        request = request_bytes(pool.origin, ask.method, ask.path, ask.headers, ask.content)
        try:
            return await pool.ask(request, ask.end)
        except (OSError, Malformed) as error:
            raise_final(ask.base, error)
        return monotonic()


def raise_final(base: str, error: Exception) -> None:
    """Raise ServerUnreachable for what would come again; whatever else kept an answer away may pass."""
    if isinstance(error, Malformed):
        raise ServerUnreachable(f"what {base} sent is no HTTP answer: {error}; is it the URL of a node?") from error
    if hasattr(error, "verify_message"):  # ssl.SSLCertVerificationError, without loading OpenSSL for it
        raise ServerUnreachable(
            f"{base} has no certificate that is trusted here: {error.verify_message}; SSL_CERT_FILE, or "
            "Store(tls=...), says which are"
        ) from error


def _encoded(bounds: dict[str, bytes]) -> dict[str, bytes | str]:
    """The bounds of a scan; long ones so that they take a third more, not three times as much, of the request line."""
    if sum(map(len, bounds.values())) < _LONG:
        return dict(bounds)
    return {"key_encoding": "base64url", **{name: to_base64url(bound) for name, bound in bounds.items()}}


def _thousands(keys: Sequence[Text]) -> Iterator[list[bytes]]:
    """Keys in as many requests as it takes: by number, and by bytes, which JSON may make six times as many."""
    every = keys_of(keys)
    if len(every) <= MANY and sum(map(len, every)) <= _MANY_BYTES:
        if every:
            yield every
        return
    some: list[bytes] = []
    size_bytes = 0
    for key in every:
        if some and (len(some) == MANY or size_bytes + len(key) > _MANY_BYTES):
            yield some
            some, size_bytes = [], 0
        some.append(key)
        size_bytes += len(key)
    if some:
        yield some
