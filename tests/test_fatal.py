"""A fatal error ends a librdkafka producer, not a Store: it is planted with librdkafka's own test function."""

import asyncio
import ctypes
from contextlib import suppress

import pytest
from support_producer import Fixed, read_log

from logstore import AsyncStore, Store
from logstore.log.write.librdkafka import _library
from logstore.model.errors import BatchUnknown, LogStoreError, Unknown

OUT_OF_ORDER_SEQUENCE_NUMBER = 45


def plant(store):
    """Have the producer of a Store meet what it meets when a broker has lost the end of the log."""
    raw = store.producer._connections[-1].raw
    handle = ctypes.c_void_p.from_address(
        id(raw) + object.__basicsize__
    )  # of confluent_kafka's Handle: its first field
    fail = _library().rd_kafka_test_fatal_error
    fail.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    assert fail(handle.value, OUT_OF_ORDER_SEQUENCE_NUMBER, b"planted") == 0


def test_the_next_write_of_every_kind_goes_through_a_new_producer(kafka, fixed_table, fixed_store):
    def piped():
        with fixed_store.pipeline(fixed_table.name) as pipe:
            for i in range(300):
                pipe.put(b"piped-%d" % i, "v")

    for turn, write in enumerate(
        [
            lambda: fixed_store.put(fixed_table.name, "one", "v"),
            lambda: fixed_store.put_many(fixed_table.name, [(f"many-{i}", "v") for i in range(1_000)]),
            piped,
            lambda: fixed_store.delete(fixed_table.name, "none"),
        ]
    ):
        fixed_store.put(fixed_table.name, f"before-{turn}", "v")
        plant(fixed_store)
        write()
    written = {key for key, _ in read_log(kafka.bootstrap, fixed_table).values()}
    assert len(written) == 1 + 1_000 + 300 + 1 + 4
    assert len(fixed_store.producer._connections) <= 5


def test_an_open_pipeline_goes_on_and_says_what_is_unknown(kafka, fixed_table, fixed_store):
    pipe = fixed_store.pipeline(fixed_table.name)
    before = [pipe.put(b"before-%d" % i, "v") for i in range(5_000)]
    plant(fixed_store)
    after = [pipe.put(b"after-%d" % i, "v") for i in range(5_000)]
    failed = [pending.exception(60) for pending in before if pending.exception(60) is not None]
    assert all(isinstance(error, Unknown) for error in failed)
    assert [pending.exception(60) for pending in after] == [None] * 5_000
    if failed:
        with pytest.raises(Unknown):
            pipe.flush()
    pipe.flush()
    log = {key for key, _ in read_log(kafka.bootstrap, fixed_table).values()}
    assert {b"after-%d" % i for i in range(5_000)} <= log
    assert {b"before-%d" % i for i, pending in enumerate(before) if pending.exception() is None} <= log


def test_a_batch_that_is_under_way_accounts_for_every_record(kafka, fixed_table, fixed_store):
    def pairs():
        for i in range(60_000):
            if i == 40_000:
                plant(fixed_store)
            yield b"k%d" % i, b"v"

    fixed_store.put_many(fixed_table.name, [(b"warm-%d" % i, b"v") for i in range(100)])
    total, lost = 60_000, set()
    with suppress(BatchUnknown):
        try:
            fixed_store.put_many(fixed_table.name, pairs())
        except BatchUnknown as error:
            total = error.total
            lost = {i for places in (*error.failed_places, *error.unknown_places) for i in places}
            raise
    there = {key for key, _ in read_log(kafka.bootstrap, fixed_table).values()}
    assert [i for i in range(total) if i not in lost and b"k%d" % i not in there] == []
    fixed_store.put_many(fixed_table.name, [(b"again-%d" % i, b"v") for i in range(100)])


def test_the_async_store_goes_on_too(kafka, fixed_table):
    asyncio.run(_goes_on(kafka, fixed_table))


async def _goes_on(kafka, table):
    async with AsyncStore(kafka.bootstrap, definitions=Fixed(table)) as store:
        await store.put(table.name, "before", "v")
        plant(store._store)
        await store.put(table.name, "after", "v")
        async with store.pipeline(table.name) as pipe:
            plant(store._store)
            await (await pipe.put("piped", "v"))
    assert len(read_log(kafka.bootstrap, table)) == 3


def test_flush_and_close_say_no_more_than_there_is(kafka, fixed_table):
    store = Store(kafka.bootstrap, definitions=Fixed(fixed_table))
    store.put(fixed_table.name, "before", "v")
    plant(store)
    assert store.flush(60) == 0
    store.close(60)
    with pytest.raises(LogStoreError, match="closed"):
        store.put(fixed_table.name, "after", "v")
