"""The read client against one reader process: beside `http.client`, and beside bare sockets that read the same answers.

The bare ones send bytes that are made before, look for the length of the answer, and keep it as it is, since every way
keeps what it has read until that is compared with what was written; the cheapest rows are theirs too, unpacked and made
into rows without a check: what the client's promises cost lies between the two. All take turns, for a moment each, so
that what disturbs one disturbs all; figures are medians. Beside the rates stands the processor time of the client for
each read or row, which a busy machine disturbs less.
"""

import asyncio
import http.client
import re
import socket
import statistics
import time
from collections.abc import Awaitable, Callable
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import msgpack
import orjson

from benchmarks.http import ROWS, key_of, reader_of, value_of
from logstore import AsyncStore, Store
from logstore.client.read.row import LISTS, Row

GETS, TASKS, MANY, MANY_TIMES, SCANNED, SCANS = 800, 32, 100, 40, 10_000, 1
TURNS = 5  # of every way in a round
KEYS = [key_of(i * 37 % ROWS).decode() for i in range(GETS)]
SOME = [key_of(i * 1_999 % ROWS).decode() for i in range(MANY)]
IN_ORDER = [key_of(i).decode() for i in range(SCANNED)]
Found = list[tuple[list[str], list[Row | None]]]  # keys that were asked for, and the rows that came
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_ACCEPT = f"Accept: {LISTS}\r\n"


class Spent(NamedTuple):
    """Seconds on the clock, and seconds of this process on a processor."""

    wall_s: float
    cpu_s: float

    def since(self, begin: "Spent") -> "Spent":
        """What was spent between the two."""
        return Spent(self.wall_s - begin.wall_s, self.cpu_s - begin.cpu_s)


def _now() -> Spent:
    return Spent(time.perf_counter(), time.process_time())


def run(data_dir: Path, rounds: int = 3) -> list[dict[str, Any]]:
    """Rows for the table of `make bench`; scratch lies under `data_dir`."""
    with reader_of(data_dir / "node") as url:
        wire = _Wire(url)
        ways: dict[str, Callable[[], Spent]] = {
            "http.client": lambda: _http_client(url),
            "get": lambda: _store(url, _get),
            "bare get": lambda: _bare(wire, wire.gets),
            "async get": lambda: _async_store(url, _async_get),
            "async bare get": lambda: _async_bare(wire, wire.gets),
            "get_many": lambda: _store(url, _get_many),
            "bare get_many": lambda: _bare(wire, wire.many),
            "async get_many": lambda: _async_store(url, _async_get_many),
            "cheapest get_many": lambda: _bare(wire, wire.many, _rows_of),
            "scan": lambda: _store(url, _scan),
            "bare scan": lambda: _bare(wire, wire.scans),
            "async scan": lambda: _async_store(url, _async_scan),
            "cheapest scan": lambda: _bare(wire, wire.scans, _rows_of),
        }
        spent: dict[str, list[Spent]] = {name: [] for name in ways}
        for _ in range(rounds * TURNS):
            for name, way in ways.items():
                spent[name].append(way())
    compared = [
        ("Store.get / http.client", GETS, "reads/s", "get", "http.client", 2.5),
        (f"AsyncStore.get x {TASKS} / http.client", GETS, "reads/s", "async get", "http.client", 2.5),
        ("bare socket / http.client", GETS, "reads/s", "bare get", "http.client", None),
        ("Store.get / bare socket", GETS, "reads/s", "get", "bare get", None),
        (f"AsyncStore.get / bare asyncio, x {TASKS}", GETS, "reads/s", "async get", "async bare get", None),
        (f"Store.get_many of {MANY} / bare socket", MANY * MANY_TIMES, "rows/s", "get_many", "bare get_many", 0.8),
        (f"AsyncStore.get_many of {MANY} / same", MANY * MANY_TIMES, "rows/s", "async get_many", "bare get_many", 0.8),
        (
            f"cheapest rows of {MANY} / bare socket",
            MANY * MANY_TIMES,
            "rows/s",
            "cheapest get_many",
            "bare get_many",
            None,
        ),
        (f"Store.scan of {SCANNED:,} / bare socket", SCANNED * SCANS, "rows/s", "scan", "bare scan", 0.8),
        (f"AsyncStore.scan of {SCANNED:,} / same", SCANNED * SCANS, "rows/s", "async scan", "bare scan", 0.8),
        (f"cheapest rows of {SCANNED:,} / bare socket", SCANNED * SCANS, "rows/s", "cheapest scan", "bare scan", None),
    ]
    return [
        _row(name, count, unit, spent[ours], spent[theirs], aim) for name, count, unit, ours, theirs, aim in compared
    ]


def _row(name: str, count: int, unit: str, ours: list[Spent], theirs: list[Spent], aim: float | None) -> dict[str, Any]:
    ratios = [its.wall_s / mine.wall_s for mine, its in zip(ours, theirs, strict=True)]
    return {
        "name": name, "unit": unit, "ours": count / statistics.median(one.wall_s for one in ours),
        "ceiling": count / statistics.median(one.wall_s for one in theirs),
        "ratio": statistics.median(ratios), "ratios": ratios, "aim": aim,
        "cpu_us": 1e6 * statistics.median(one.cpu_s for one in ours) / count,
        "ceiling_cpu_us": 1e6 * statistics.median(one.cpu_s for one in theirs) / count,
    }  # fmt: skip


class _Wire:
    """Requests that bare sockets send, as bytes."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.where, self._host = (str(parts.hostname), int(parts.port or 80)), f"Host: {parts.netloc}\r\n"
        self.gets = [self._request("GET", f"/rows/{key}") for key in KEYS]
        body = orjson.dumps({"keys": SOME})
        more = f"{_ACCEPT}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.many = [self._request("POST", "/rows:get", more) + body] * MANY_TIMES
        self.scans = self._pages() * SCANS

    def _request(self, method: str, path: str, headers: str = "") -> bytes:
        return f"{method} /v1/tables/t{path} HTTP/1.1\r\n{self._host}{headers}\r\n".encode()

    def _pages(self) -> list[bytes]:
        """One request per page of a scan; the cursors are those that the reader gives."""
        pages, cursor = [], ""
        with socket.create_connection(self.where) as sock:
            for _ in range(SCANNED // 1_000):
                path = "/rows?limit=1000" + (f"&cursor={quote(cursor, safe='')}" if cursor else "")
                pages.append(self._request("GET", path, _ACCEPT))
                cursor = msgpack.unpackb(_exchange(sock, pages[-1]))["cursor"]
        return pages


def _exchange(sock: socket.socket, request: bytes) -> bytes:
    sock.sendall(request)
    data = sock.recv(65_536)
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += sock.recv(65_536)
    pieces, left = [data[end + 4 :]], _left(data, end)
    while left > 0:
        pieces.append(sock.recv(65_536))
        left -= len(pieces[-1])
    return b"".join(pieces)


def _left(data: bytes, end: int) -> int:
    """Bytes of an answer that are still to come."""
    length = _LENGTH.search(data, 0, end + 2)
    assert data.startswith(b"HTTP/1.1 200"), data[:200]
    assert length is not None, data[:200]
    return end + 4 + int(length[1]) - len(data)


def _bare(wire: _Wire, requests: list[bytes], made_of: Callable[[bytes], object] = bytes) -> Spent:
    """Exchanges one after the other; `made_of`: what is made of each answer."""
    with socket.create_connection(wire.where) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _exchange(sock, requests[0])
        begin = _now()
        kept = [made_of(_exchange(sock, request)) for request in requests]
        spent = _now().since(begin)
    assert len(kept) == len(requests)
    return spent


def _rows_of(content: bytes) -> list[Row]:
    body = msgpack.unpackb(content)
    token, columns = body["token"], [body["columns"][field] for field in ("key", "value", "version", "partition")]
    return list(map(tuple.__new__, repeat(Row), zip(*columns, repeat(token), repeat(""))))


class _Bare(asyncio.Protocol):
    """A connection that waits for one answer at a time."""

    data = b""
    waiter: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport, self.kept = transport, list[bytes]()

    def data_received(self, data: bytes) -> None:
        self.data += data
        end = self.data.find(b"\r\n\r\n")
        if end >= 0 and _left(self.data, end) <= 0:
            self.kept.append(self.data)
            self.data = b""
            self.waiter.set_result(None)

    def exchange(self, request: bytes) -> "asyncio.Future[None]":
        """Send a request; the future is done when its answer has come."""
        self.waiter = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        waiter: asyncio.Future[None] = self.waiter
        return waiter


def _async_bare(wire: _Wire, requests: list[bytes]) -> Spent:
    async def run_all() -> Spent:
        async def one(mine: list[bytes]) -> None:
            _, bare = await asyncio.get_running_loop().create_connection(_Bare, *wire.where)
            for request in mine:
                await bare.exchange(request)
            bare.transport.close()

        begin = _now()
        await asyncio.gather(*(one(requests[task::TASKS]) for task in range(TASKS)))
        return _now().since(begin)

    return asyncio.run(run_all())


def _http_client(url: str) -> Spent:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    bodies: list[bytes] = []
    begin = _now()
    for key in KEYS:
        connection.request("GET", f"/v1/tables/t/rows/{key}")
        answer = connection.getresponse()
        assert answer.status == 200, answer.status
        bodies.append(answer.read())
    spent = _now().since(begin)
    connection.close()
    assert bodies == [value_of(int(key.removeprefix("key-"))) for key in KEYS], "what was written"
    return spent


def _checked(key: str, row: Row | None) -> None:
    assert row is not None, key
    assert row.key.decode() == key, row
    assert row.value == value_of(int(key.removeprefix("key-"))), row


def _all_checked(found: Found) -> None:
    """Compare every row with what was written; outside of what is measured."""
    assert found, "something was read"
    for keys, rows in found:
        for key, row in zip(keys, rows, strict=True):
            _checked(key, row)


def _store(url: str, work: Callable[[Store], Found]) -> Spent:
    with Store(url=url) as store:
        _checked(KEYS[0], store.get("t", KEYS[0]))
        begin = _now()
        found = work(store)
        spent = _now().since(begin)
    _all_checked(found)
    return spent


def _get(store: Store) -> Found:
    return [(KEYS, [store.get("t", key) for key in KEYS])]


def _get_many(store: Store) -> Found:
    return [(SOME, store.get_many("t", SOME)) for _ in range(MANY_TIMES)]


def _scan(store: Store) -> Found:
    return [(IN_ORDER, list(store.scan("t", limit=SCANNED))) for _ in range(SCANS)]


def _async_store(url: str, work: Callable[[AsyncStore], Awaitable[Found]]) -> Spent:
    async def run_it() -> tuple[Found, Spent]:
        async with AsyncStore(url=url) as store:
            _checked(KEYS[0], await store.get("t", KEYS[0]))
            begin = _now()
            found = await work(store)
            return found, _now().since(begin)

    found, spent = asyncio.run(run_it())
    _all_checked(found)
    return spent


async def _async_get(store: AsyncStore) -> Found:
    async def one(mine: list[str]) -> tuple[list[str], list[Row | None]]:
        return mine, [await store.get("t", key) for key in mine]

    return await asyncio.gather(*(one(KEYS[task::TASKS]) for task in range(TASKS)))


async def _async_get_many(store: AsyncStore) -> Found:
    return [(SOME, await store.get_many("t", SOME)) for _ in range(MANY_TIMES)]


async def _async_scan(store: AsyncStore) -> Found:
    return [(IN_ORDER, [row async for row in store.scan("t", limit=SCANNED)]) for _ in range(SCANS)]
