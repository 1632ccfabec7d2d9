"""Connections of the client that threads, tasks and forked processes share: how many there are, and who has which."""

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support_fork import in_child
from support_wait import until
from support_wire import ROW, WireServer, serving

from logstore import AsyncStore, Store
from logstore.client.transport.origin import Origin
from logstore.client.transport.protocol import ProtocolPool
from logstore.client.transport.sockets import SocketPool
from logstore.client.transport.stack import ConnectionStack
from logstore.model.errors import UsageError

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_hundred_connections_are_the_most_and_the_first_who_waits_is_the_first_served():
    stack = ConnectionStack(2)
    assert stack.take() is None
    assert [stack.may_open(), stack.may_open(), stack.may_open()] == [True, True, False]
    stack.waiting.extend(["first", "second"])
    assert stack.give_back("a", 0.0) == "first"
    assert stack.give_back(None, 0.0) == "second"
    assert stack.give_back("a", 0.0) is None
    assert stack.give_back("b", 50.0) is None
    assert (stack.overdue(60.0), stack.overdue(61.0), stack.overdue(61.0)) == (None, "a", None)
    assert (stack.take(), stack.may_open(), stack.may_open()) == ("b", True, False)


def test_who_waits_for_a_connection_has_a_deadline_and_gets_the_next_one_that_comes_free():
    answering = threading.Event()

    def script(_):
        answering.wait(60)
        yield ROW

    server = WireServer(script)
    try:
        pool = SocketPool(Origin.of(server.url), None)
        pool.stack = ConnectionStack(2)
        with ThreadPoolExecutor(12) as threads:
            asked = [threads.submit(pool.ask, REQUEST, time.monotonic() + 60) for _ in range(10)]
            until("all but two wait", lambda: len(pool.stack.waiting) == 8)
            with pytest.raises(TimeoutError, match="came free"):
                pool.ask(REQUEST, time.monotonic() + 0.2)
            answering.set()
            assert {future.result(60).content for future in asked} == {b"value"}
        assert server.connections == 2
        pool.close()

        async def run():
            loop_pool = ProtocolPool(Origin.of(server.url), None)
            loop_pool.stack = ConnectionStack(2)
            before = server.connections
            answering.clear()
            waiting = [asyncio.create_task(loop_pool.ask(REQUEST, time.monotonic() + 60)) for _ in range(10)]
            with pytest.raises(TimeoutError):
                await loop_pool.ask(REQUEST, time.monotonic() + 0.2)
            waiting[5].cancel()
            answering.set()
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            assert [getattr(answer, "content", None) for answer in answers].count(b"value") == 9
            assert server.connections - before <= 3  # two at once; the one of the deadline was closed
            loop_pool.close()
            await asyncio.sleep(0)

        asyncio.run(run())
    finally:
        answering.set()
        server.close()


def test_one_store_is_used_by_64_threads_at_once(http_node):
    http_node.rows = {b"%d" % i: b"value %d" % i for i in range(640)}
    begin = threading.Barrier(64)
    with Store(url=http_node.url) as store, ThreadPoolExecutor(64) as threads:

        def read(worker):
            begin.wait(60)
            mine = range(worker * 10, worker * 10 + 10)
            for i in mine:
                assert store.get("t", str(i), deadline_ms=30_000).value == b"value %d" % i
            many = store.get_many("t", [str(i) for i in mine], deadline_ms=30_000)
            assert [row.value for row in many] == [b"value %d" % i for i in mine]
            return len(list(store.scan("t", deadline_ms=30_000)))

        assert set(threads.map(read, range(64))) == {640}


def test_one_async_store_is_used_by_many_tasks_at_once_and_some_of_them_are_cancelled(http_node):
    http_node.rows = {b"%d" % i: b"value %d" % i for i in range(200)}

    async def run():
        async with AsyncStore(url=http_node.url) as store:

            async def read(i):
                return (await store.get("t", str(i), deadline_ms=30_000)).value

            tasks = [asyncio.create_task(read(i)) for i in range(200)]
            await asyncio.sleep(0)
            for task in tasks[::3]:
                task.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            for i, value in enumerate(found):
                assert value == b"value %d" % i or (not i % 3 and isinstance(value, asyncio.CancelledError)), i
            assert [await read(i) for i in range(50)] == [b"value %d" % i for i in range(50)]

    asyncio.run(run())


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # its connections are left in a loop that is closed
def test_an_async_store_belongs_to_a_loop_until_that_is_closed(http_node):
    http_node.rows = {b"k": b"v"}
    store = AsyncStore(url=http_node.url)

    async def read():
        return (await store.get("t", "k")).value

    assert [asyncio.run(read()), asyncio.run(read())] == [b"v", b"v"]

    async def while_another_loop_has_it():
        assert await read() == b"v"
        rows = store.scan("t")
        assert (await anext(rows)).value == b"v"

        def elsewhere(call):
            with pytest.raises(UsageError, match="loop"):
                asyncio.run(call)

        async def rest():
            return [row async for row in store.scan("t")]

        await asyncio.to_thread(elsewhere, read())
        await asyncio.to_thread(elsewhere, rest())
        assert await read() == b"v"
        await asyncio.to_thread(lambda: asyncio.run(store.close()))
        with pytest.raises(UsageError, match="closed"):
            await read()

    asyncio.run(while_another_loop_has_it())
    with pytest.raises(UsageError, match="inside an event loop"):
        AsyncStore(url=http_node.url).scan("t")
    gc.collect()  # what it left is warned of here


def test_closing_waits_for_nobody_who_reads():
    with serving([]) as server:  # takes requests, and never answers
        store = Store(url=server.url)
        with ThreadPoolExecutor(1) as threads:
            reading = threads.submit(store.get, "t", "k", deadline_ms=30_000)
            until("the request has come", lambda: server.requests)
            begin = time.monotonic()
            store.close(0)
            assert time.monotonic() - begin < 20  # the read has 31 s
            with pytest.raises(UsageError):
                store.get("t", "k")
            server.close()
            with pytest.raises(UsageError, match="closed"):
                reading.result(60)
            assert time.monotonic() - begin < 20


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of threads at a fork: it is the point
def test_a_scan_that_a_fork_cuts_in_two_goes_on_in_both(http_node):
    http_node.rows = {b"%04d" % i: b"v" for i in range(2_500)}
    with Store(url=http_node.url) as store:
        rows = store.scan("t")
        first = [next(rows) for _ in range(10)]
        rest = in_child(lambda: len(list(rows)))
        assert len(first) + int(rest) == len(first) + len(list(rows)) == 2_500
