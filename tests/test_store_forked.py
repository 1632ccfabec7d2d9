"""A Store that was used before a fork: both processes read their own answers, and both write."""

import asyncio
import multiprocessing
import os
import sys
import threading
import time

import pytest
from support_fork import CHILD_S, in_child
from support_http_node import HttpNode
from support_producer import Fixed, read_log

from logstore import AsyncStore, Store
from logstore.log.tables.registry import Registry
from logstore.model.errors import UsageError

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process:DeprecationWarning"
)  # of threads at a fork: it is the point


def read_for(store, who, seconds):
    """Read rows whose values name their keys; returns what was not right."""
    wrong, end, n = [], time.monotonic() + seconds, 0
    while n <= 3 or time.monotonic() < end:
        key = f"{who}-{n % 50}"
        n += 1
        row = store.get("t", key, deadline_ms=30_000)
        if row is None or row.value != f"value of {key}".encode():
            wrong.append((key, row))
    return wrong


def test_parent_and_child_read_their_own_answers():
    with HttpNode() as node:
        node.rows = {f"{who}-{n}".encode(): f"value of {who}-{n}".encode() for who in "pc" for n in range(50)}
        with Store(url=node.url) as store:
            store.get("t", "p-0")
            for _ in range(5):
                parent = []
                mine = threading.Thread(target=lambda found=parent: found.extend(read_for(store, "p", 0.5)))
                mine.start()
                assert in_child(lambda: read_for(store, "c", 0.5)) == "[]"
                mine.join(90)
                assert parent == []
        node.shutdown()


def test_parent_and_child_write(kafka, fixed_table):
    with Store(kafka.bootstrap, definitions=Fixed(fixed_table)) as store, store.pipeline(fixed_table.name) as pipe:
        store.put(fixed_table.name, "parent-before", "v")
        on_its_way = pipe.put("parent-pending", "v")

        def child():
            began = time.monotonic()
            refused = []
            for inherited in (lambda: pipe.put("x", "v"), lambda: pipe.put(b"x", b"v"), pipe.flush, on_its_way.result):
                try:
                    inherited()
                except UsageError as error:
                    refused.append("forked from" in str(error))
            refused = refused if on_its_way._offset is None else [True] * 4  # it was acknowledged before the fork
            store.put(fixed_table.name, "child", "v")
            store.put_many(fixed_table.name, [(f"child-{i}", "v") for i in range(100)])
            with store.pipeline(fixed_table.name) as own:
                own.put("child-piped", "v")
            store.close()
            return refused, time.monotonic() - began < 30

        assert in_child(child) == "([True, True, True, True], True)"
        on_its_way.result()
        store.put(fixed_table.name, "parent-after", "v")
    keys = [key for key, _ in read_log(kafka.bootstrap, fixed_table).values()]
    assert sorted(keys) == sorted(
        [b"parent-before", b"parent-pending", b"parent-after", b"child", b"child-piped"]
        + [b"child-%d" % i for i in range(100)]
    )


def test_a_child_that_ends_as_programs_do_does_not_hang(kafka, fixed_table):
    registry = Registry(kafka.bootstrap)
    registry.ensure_store()
    with Store(kafka.bootstrap) as store:
        with pytest.raises(UsageError):
            store.put("no-such-table", "k", "v")  # has asked Kafka for definitions
        with Store(kafka.bootstrap, definitions=Fixed(fixed_table)) as writer:
            writer.put(fixed_table.name, "k", "v")
            context = multiprocessing.get_context("fork")
            child = context.Process(target=_write_and_leave, args=(writer, fixed_table.name))
            child.start()
            child.join(CHILD_S)
            assert child.exitcode == 0
            said = in_child(
                lambda: writer.put(fixed_table.name, "by-exit", "v").token[:3], leave=_exit_after_finalizers
            )
            assert said == fixed_table.epoch[:3]
    assert {key for key, _ in read_log(kafka.bootstrap, fixed_table).values()} == {b"k", b"by-process", b"by-exit"}


def _write_and_leave(writer, name):
    writer.put(name, "by-process", "v")


def _exit_after_finalizers(code):
    """As the interpreter ends: `atexit`, and destructors of what is left; pytest's own handlers are the parent's."""
    import atexit  # noqa: PLC0415 - only who needs it waits for its import

    atexit._run_exitfuncs()
    sys.modules.clear()
    os._exit(code)


def test_a_fork_while_another_thread_connects_leaves_nothing_locked(kafka, fixed_table):
    with Store(kafka.bootstrap, definitions=Fixed(fixed_table)) as store:
        begun = threading.Event()
        make = store._make_producer

        def slow():
            begun.set()
            time.sleep(1.0)  # a connection that takes its time, while the fork happens
            return make()

        store._producer._make = slow
        writer = threading.Thread(target=lambda: store.put(fixed_table.name, "parent", "v"))
        writer.start()
        begun.wait(30)
        assert in_child(lambda: store.put(fixed_table.name, "child", "v").token[:3]) == fixed_table.epoch[:3]
        writer.join(60)
    assert {key for key, _ in read_log(kafka.bootstrap, fixed_table).values()} == {b"parent", b"child"}


def test_an_async_store_is_used_in_the_loop_of_the_child(kafka, fixed_table):
    with HttpNode() as node:
        node.rows = {b"k": b"v"}
        store = AsyncStore(kafka.bootstrap, node.url, definitions=Fixed(fixed_table))

        async def use(key):
            await store.put(fixed_table.name, key, "v")
            return (await store.get("t", "k")).value

        async def whole():
            await use("parent")
            said = await asyncio.to_thread(in_child, lambda: asyncio.run(use("child")))
            await use("parent-after")
            await store.close()
            return said

        assert asyncio.run(whole()) == "b'v'"
        node.shutdown()
    keys = {key for key, _ in read_log(kafka.bootstrap, fixed_table).values()}
    assert keys == {b"parent", b"child", b"parent-after"}
