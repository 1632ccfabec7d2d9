"""The next page of a scan is asked for while one is taken: a hint, which costs no row and no connection."""

import asyncio

import msgpack
import pytest
from support_wait import until
from support_wire import ROW, serving

from logstore import AsyncStore, Store
from logstore.client.read.row import COLUMNS
from logstore.client.transport.stack import MAX_AHEAD, ConnectionStack
from logstore.model.errors import UsageError

_STARTING = b'{"type": "urn:logstore:starting", "detail": "not yet"}'
UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n\r\n%b"
    % (len(_STARTING), _STARTING)
)
PER_PAGE = 3


def page(number, last=False):
    keys = [b"%03d" % (number * PER_PAGE + i) for i in range(PER_PAGE)]
    columns = {"key": keys, "value": keys, "version": [1] * PER_PAGE, "partition": [0] * PER_PAGE}
    body = msgpack.packb({"columns": columns, "cursor": None if last else f"c{number}", "token": "t"})
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (COLUMNS.encode(), len(body))
    return head + body


PAGES = [page(0), page(1), page(2), page(3, last=True)]
KEYS = [b"%03d" % i for i in range(PER_PAGE * len(PAGES))]


def blocking(url, **how):
    with Store(url=url) as store:
        return [row.key for row in store.scan("t", **how)]


def looping(url, **how):
    async def run():
        async with AsyncStore(url=url) as store:
            return [row.key async for row in store.scan("t", **how)]

    return asyncio.run(run())


both = pytest.mark.parametrize("scan", [blocking, looping])


@both
@pytest.mark.parametrize("how", [{}, {"limit": len(KEYS)}], ids=["until the end", "to a limit"])
def test_a_scan_asks_for_each_page_once_over_one_connection(scan, how):
    with serving(*PAGES) as server:
        assert scan(server.url, **how) == KEYS
        assert (server.requests, server.connections) == (len(PAGES), 1)


def test_the_next_page_is_asked_for_while_one_is_taken():
    with serving(*PAGES) as server, Store(url=server.url) as store:
        rows = store.scan("t", limit=len(KEYS))
        assert next(rows).key == KEYS[0]
        until("the second page is asked for", lambda: server.requests == 2)

        async def run():
            async with AsyncStore(url=server.url) as looping_store:
                before, looped = server.requests, looping_store.scan("t", limit=10)
                await anext(looped)
                while server.requests < before + 2:
                    await asyncio.sleep(0.01)

        asyncio.run(asyncio.wait_for(run(), 30))


@both
@pytest.mark.parametrize(
    "wrong",
    [UNAVAILABLE, [PAGES[2][:-4], None], [None], b"HTTP/1.1 banana\r\n\r\n", PAGES[2].replace(b"200 OK", b"404 No")],
    ids=["unavailable", "cut off", "closed", "no HTTP", "no such page"],
)
def test_an_answer_that_is_none_is_asked_for_again(scan, wrong):
    with serving(PAGES[0], PAGES[1], wrong, PAGES[2], PAGES[3]) as server:
        assert scan(server.url, deadline_ms=20_000) == KEYS


@both
@pytest.mark.parametrize("wrong", [UNAVAILABLE, [PAGES[2][:-4], None]], ids=["unavailable", "cut off"])
def test_what_may_pass_is_tried_again_behind_a_page_that_was_asked_for_ahead(scan, wrong):
    with serving(PAGES[0], PAGES[1], wrong, wrong, PAGES[2], PAGES[3]) as server:
        assert scan(server.url, deadline_ms=20_000) == KEYS


@both
def test_a_page_that_was_asked_for_too_long_ago_is_asked_for_again_and_none_ahead_after_it(scan, monkeypatch):
    with serving(PAGES[0], PAGES[1], PAGES[2], PAGES[2], PAGES[3]) as server:

        def late():
            until("the third page is asked for, by one who does not wait", lambda: server.requests == 3)
            return float("inf")

        monkeypatch.setattr("logstore.client.transport.ahead.monotonic", late)
        assert scan(server.url) == KEYS
        assert server.requests == len(PAGES) + 1


def test_a_scan_that_is_given_up_after_a_few_rows_has_asked_for_nothing_in_vain():
    with serving(PAGES[0], ROW) as server, Store(url=server.url) as store:
        for row in store.scan("t"):
            assert row.key == KEYS[0]
            break
        assert store.get("t", "k").value == b"value"
        assert (server.requests, server.connections) == (2, 1)


def test_scans_that_are_given_up_leave_no_connection_behind():
    with serving(PAGES[0]) as server, Store(url=server.url) as store:
        for _ in range(3 * MAX_AHEAD):
            assert next(store.scan("t", limit=100)).key == KEYS[0]
        stack = store.reader._pools[server.url].stack
        assert stack.may_open()
        assert (stack.ahead, stack._open) == (0, 1)


def test_scans_that_stand_still_leave_connections_to_the_others():
    first = PAGES[0]
    with serving(first) as server, Store(url=server.url) as store:
        assert next(store.scan("t")).key == KEYS[0]
        pool = store.reader._pools[server.url]
        pool.close()
        pool._closed, pool.stack = False, ConnectionStack(MAX_AHEAD + 1)
        standing = [store.scan("t", limit=100) for _ in range(3 * MAX_AHEAD)]
        assert [next(rows).key for rows in standing] == [KEYS[0]] * len(standing)
        assert pool.stack.ahead == MAX_AHEAD
        assert next(store.scan("t", deadline_ms=20_000)).key == KEYS[0]


def test_a_child_leaves_the_answer_to_its_parent():
    with serving(*PAGES[:2], PAGES[1], *PAGES[2:]) as server, Store(url=server.url) as store:
        rows = store.scan("t", limit=100)
        found = [next(rows).key]
        until("the second page is asked for", lambda: server.requests == 2)
        store.reader._pools[server.url].after_fork()
        assert found + [row.key for row in rows] == KEYS
        assert server.connections == 2


def test_a_closed_store_gives_no_page_that_was_asked_for_before():
    with serving(*PAGES) as server:
        store = Store(url=server.url)
        rows = store.scan("t", limit=100)
        assert [next(rows).key for _ in range(PER_PAGE)] == KEYS[:PER_PAGE]
        store.close()
        with pytest.raises(UsageError, match="closed"):
            next(rows)
