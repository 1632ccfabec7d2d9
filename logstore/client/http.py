"""HTTP: the sockets under `reading`, blocking and not. Pooled HTTP/1.1 connections (httpx)."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, TypedDict, TypeVar, Unpack

import httpx

from logstore.client.checks import Text, keys_of
from logstore.client.deadline import transport, within
from logstore.client.reading import MANY, After, Ask, Conversation, HttpAnswer, Row, Steps
from logstore.model.errors import UsageError
from logstore.model.key import to_base64url, to_bytes

T = TypeVar("T")
_LONG = 16_384  # bytes
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=32)

_MANY_BYTES = 2 * 1024 * 1024  # keys of one multi-get


class ScanArguments(TypedDict, total=False):
    """Arguments of a scan: rows that begin with `prefix`, or of [start, end); at most `limit` of them."""

    prefix: Text | None
    start: Text | None
    end: Text | None
    limit: int | None
    reverse: bool  # in falling order of keys
    keys_only: bool  # values are empty


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
    ) -> None:
        """Take over the settings; raises UsageError when they contradict each other."""
        if prefix is not None and (start is not None or end is not None):
            raise UsageError("a scan takes either prefix, or start and end")
        if limit is not None and limit < 1:
            raise UsageError(f"limit is at least 1, not {limit:,}")
        self._left = limit
        bounds = {"prefix": prefix, "start": start, "end": end}
        self._query = _encoded({name: to_bytes(bound) for name, bound in bounds.items() if bound is not None})
        if reverse:
            self._query["reverse"] = "true"
        if keys_only:
            self._query["keys_only"] = "true"
        self._cursor: str | None = None
        self.done = False

    def query(self) -> dict[str, bytes | str]:
        """The next page's parameters."""
        limit = MANY if self._left is None else min(MANY, self._left)
        page = {**self._query, "limit": str(limit)}
        return page if self._cursor is None else {**page, "cursor": self._cursor}

    def took(self, rows: list[Row], cursor: str | None) -> None:
        """Note what a page brought."""
        self._cursor = cursor
        if self._left is not None:
            self._left -= len(rows)
        self.done = cursor is None or self._left == 0


class HttpReader:
    """Reads rows, blocking. Thread-safe."""

    def __init__(self, url: str) -> None:
        """`url`: any node of the store; raises UsageError when it is none."""
        self._conversation = Conversation(url)
        self._http = httpx.Client(transport=transport(_LIMITS), trust_env=False)

    def get(self, table: str, key: Text, *, after: After, deadline_ms: int) -> Row | None:
        """Read a row, or None, as `Store.get`."""
        return self._run(self._conversation.get(table, to_bytes(key), after, deadline_ms))

    def get_many(self, table: str, keys: Sequence[Text], *, after: After, deadline_ms: int) -> list[Row | None]:
        """Read many rows, as `Store.get_many`."""
        rows: list[Row | None] = []
        for some in _thousands(keys):
            rows += self._run(self._conversation.get_many(table, some, after, deadline_ms))
        return rows

    def scan(self, table: str, *, after: After, deadline_ms: int, **arguments: Unpack[ScanArguments]) -> Iterator[Row]:
        """Read rows in order, as `Store.scan`."""
        return self._pages(ScanPages(**arguments), table, after, deadline_ms)

    def _pages(self, scan: ScanPages, table: str, after: After, deadline_ms: int) -> Iterator[Row]:
        while not scan.done:
            rows, cursor = self._run(self._conversation.page(table, scan.query(), after, deadline_ms))
            scan.took(rows, cursor)
            yield from rows

    def close(self) -> None:
        """Close the pooled connections."""
        self._http.close()

    def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Ask):
                    step = steps.send(self._ask(step))
                else:
                    time.sleep(step.seconds)
                    step = steps.send(time.monotonic())
        except StopIteration as end:
            result: T = end.value
            return result

    def _ask(self, ask: Ask) -> HttpAnswer | float:
        try:
            with within(ask.timeout_s):
                reply = self._http.request(ask.method, ask.base, **_rest(ask))
        except httpx.TransportError:
            return time.monotonic()
        return _answer(reply)


class AsyncReader:
    """Reads rows without blocking the event loop."""

    def __init__(self, url: str) -> None:
        """`url`: any node of the store; raises UsageError when it is none."""
        self._conversation = Conversation(url)
        self._http = httpx.AsyncClient(limits=_LIMITS, trust_env=False)

    async def get(self, table: str, key: Text, *, after: After, deadline_ms: int) -> Row | None:
        """Read a row, or None, as `Store.get`."""
        return await self._run(self._conversation.get(table, to_bytes(key), after, deadline_ms))

    async def get_many(self, table: str, keys: Sequence[Text], *, after: After, deadline_ms: int) -> list[Row | None]:
        """Read many rows, as `Store.get_many`."""
        rows: list[Row | None] = []
        for some in _thousands(keys):
            rows += await self._run(self._conversation.get_many(table, some, after, deadline_ms))
        return rows

    def scan(
        self, table: str, *, after: After, deadline_ms: int, **arguments: Unpack[ScanArguments]
    ) -> AsyncIterator[Row]:
        """Read rows in order, as `Store.scan`."""
        return self._pages(ScanPages(**arguments), table, after, deadline_ms)

    async def _pages(self, scan: ScanPages, table: str, after: After, deadline_ms: int) -> AsyncIterator[Row]:
        while not scan.done:
            rows, cursor = await self._run(self._conversation.page(table, scan.query(), after, deadline_ms))
            scan.took(rows, cursor)
            for row in rows:
                yield row

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._http.aclose()

    async def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Ask):
                    step = steps.send(await self._ask(step))
                else:
                    if step.seconds:
                        await asyncio.sleep(step.seconds)
                    step = steps.send(time.monotonic())
        except StopIteration as end:
            result: T = end.value
            return result

    async def _ask(self, ask: Ask) -> HttpAnswer | float:
        try:
            async with asyncio.timeout(ask.timeout_s):
                reply = await self._http.request(ask.method, ask.base, **_rest(ask))
        except (httpx.TransportError, TimeoutError):
            return time.monotonic()
        return _answer(reply)


def _encoded(bounds: dict[str, bytes]) -> dict[str, bytes | str]:
    """The bounds of a scan; long ones so that they take a third more, not three times as much, of the request line."""
    if sum(map(len, bounds.values())) < _LONG:
        return dict(bounds)
    return {"key_encoding": "base64url", **{name: to_base64url(bound) for name, bound in bounds.items()}}


def _rest(ask: Ask) -> dict[str, Any]:
    """Headers, body and time-out of a request.

    The path is handed over as it stands: httpx takes no URL of more than 64 KiB.
    """
    return {
        "headers": ask.headers, "content": ask.content, "timeout": ask.timeout_s,
        "extensions": {"target": ask.target.encode()},
    }  # fmt: skip


def _answer(reply: httpx.Response) -> HttpAnswer:
    return HttpAnswer(reply.status_code, reply.headers, reply.content, time.monotonic())


def _thousands(keys: Sequence[Text]) -> Iterator[list[bytes]]:
    """Keys in as many requests as it takes: by number, and by bytes, which JSON may make six times as many."""
    some: list[bytes] = []
    size_bytes = 0
    for key in keys_of(keys):
        if some and (len(some) == MANY or size_bytes + len(key) > _MANY_BYTES):
            yield some
            some, size_bytes = [], 0
        some.append(key)
        size_bytes += len(key)
    if some:
        yield some
