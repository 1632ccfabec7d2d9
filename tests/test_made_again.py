"""A writer goes on while its table is dropped and made again, with other partitions and another limit."""

import asyncio
import itertools
import threading
import uuid
from contextlib import suppress
from string import Template

import pytest
from support_producer import read_log
from support_wait import until

from logstore import AsyncStore, Store
from logstore.broker.embedded import EmbeddedKafka
from logstore.log import topics
from logstore.log.control import append_control
from logstore.log.tables import ddl, repairs
from logstore.log.tables.registry import Registry
from logstore.model.errors import (
    BatchFailed,
    BatchUnknown,
    EpochChanged,
    NoSuchTable,
    Unknown,
    ValueTooLarge,
    WriteFailed,
)
from logstore.model.partitioner import partition_of


@pytest.fixture(scope="module")
def registry(kafka):
    registry = Registry(kafka.bootstrap)
    registry.ensure_store()
    return registry


@pytest.fixture
def name():
    return f"again-{uuid.uuid4().hex[:8]}"


def make_again(registry, name, **fields):
    ddl.delete_topic(registry, ddl.drop(registry, name).table)
    return ddl.create(registry, name, **fields).table


def settle(write):
    """Write until the client knows the new table: what it cannot know meanwhile is Unknown, never acknowledged."""

    def known():
        try:
            return write()
        except (Unknown, NoSuchTable, WriteFailed):  # refused: Kafka's client has yet to hear of more partitions
            return None

    return until("the writer knows the new table", known)


def placed_well(bootstrap, table):
    """Every record of the log; all of them stand in the partition of their key."""
    log = read_log(bootstrap, table)
    assert [p for (p, _), (key, _) in log.items() if p != partition_of(key, table.partitions)] == []
    return dict(log.values())


@pytest.mark.parametrize("kind", [list, iter, dict])
def test_put_many_goes_to_the_partitions_of_the_new_definition(kafka, registry, name, kind):
    ddl.create(registry, name, partitions=8)
    with Store(kafka.bootstrap) as store:
        store.put_many(name, [(f"k{i}", "old") for i in range(700)])
        table = make_again(registry, name, partitions=3)
        position = settle(lambda: store.put_many(name, kind([(f"k{i}", "new") for i in range(700)])))
    assert {epoch for epoch, _ in position.pieces} == {table.epoch}
    assert placed_well(kafka.bootstrap, table) == {b"k%d" % i: b"new" for i in range(700)}


def test_a_pure_writer_never_has_a_token_of_the_dead_log(kafka, registry, name):
    ddl.create(registry, name, partitions=4)
    acknowledged, refused, over = {}, [], threading.Event()

    def write_on(store):
        for i in itertools.count():
            if over.is_set():
                return
            try:
                acknowledged[b"w%d" % i] = store.put(name, f"w{i}", "v")
            except (Unknown, WriteFailed, NoSuchTable) as error:
                refused.append(error)

    with Store(kafka.bootstrap) as store:
        writer = threading.Thread(target=write_on, args=(store,))
        writer.start()
        until("it writes", lambda: len(acknowledged) > 20)
        table = make_again(registry, name, partitions=3)
        until("it writes to the new log", lambda: list(acknowledged.values())[-1:][0].token.startswith(table.epoch))
        count = len(acknowledged)
        until("it goes on", lambda: len(acknowledged) > count + 20)
        over.set()
        writer.join(60)
    assert not writer.is_alive()
    there = placed_well(kafka.bootstrap, table)
    assert [key for key, at in acknowledged.items() if at.token.startswith(table.epoch) and key not in there] == []
    tokens = [at.token.startswith(table.epoch) for at in acknowledged.values()]
    assert tokens == sorted(tokens)  # the old log, and then the new one, never back


def test_a_pipeline_writes_to_the_new_log_and_says_what_is_unknown(kafka, registry, name):
    ddl.create(registry, name, partitions=8)
    with Store(kafka.bootstrap) as store:
        pipe = store.pipeline(name)
        pipe.put("before", "old").result()
        table = make_again(registry, name, partitions=3, max_value_bytes=1000)
        lost = pipe.put("lost", "v")
        with pytest.raises((Unknown, WriteFailed)):
            lost.result()
        after = [pipe.put(b"k%d" % i, "new") for i in range(500)]
        with pytest.raises(ValueTooLarge):
            pipe.put("long", "x" * 1001)
        with pytest.raises((Unknown, WriteFailed)):
            pipe.flush()
        assert {pending.result().token.split("-")[0] for pending in after} == {table.epoch}
        pipe.flush()  # told once
    assert placed_well(kafka.bootstrap, table) == {b"k%d" % i: b"new" for i in range(500)}


def test_so_does_an_asynchronous_writer(kafka, registry, name):
    ddl.create(registry, name, partitions=8)

    async def go_through():
        async with AsyncStore(kafka.bootstrap) as store:
            pipe = await store.open_pipeline(name)
            await store.put(name, "before", "old")
            table = await asyncio.to_thread(make_again, registry, name, partitions=3)
            position = None
            async with asyncio.timeout(120):
                while position is None:
                    with suppress(Unknown):
                        position = await store.put(name, "one", "new")
            assert position.token.startswith(table.epoch)
            assert (await (await pipe.put("two", "new"))).token.startswith(table.epoch)
            assert (await store.put_many(name, {"three": "new"})).token.startswith(table.epoch)
        return table

    table = asyncio.run(go_through())
    assert placed_well(kafka.bootstrap, table) == dict.fromkeys((b"one", b"two", b"three"), b"new")


@pytest.mark.slow
def test_a_broker_that_makes_topics_on_demand_is_not_asked_to(tmp_path, monkeypatch):
    def obliging(text):
        assert "auto.create.topics.enable=false" in text
        return Template(text.replace("auto.create.topics.enable=false", "auto.create.topics.enable=true"))

    monkeypatch.setattr("logstore.broker.embedded.Template", obliging)
    with EmbeddedKafka(tmp_path, heap_mb=256) as kafka, Store(kafka.bootstrap) as store:
        registry = Registry(kafka.bootstrap)
        registry.ensure_store()
        dropped = ddl.create(registry, "t").table
        store.put("t", "k", "v")
        pipe = store.pipeline("t")
        ddl.delete_topic(registry, ddl.drop(registry, "t").table)
        with pytest.raises((Unknown, WriteFailed)):
            pipe.put("k", "v").result()
        with pytest.raises((NoSuchTable, BatchFailed, BatchUnknown)):
            store.put_many("t", [("k", "v")])
        with pytest.raises(EpochChanged):
            append_control(kafka.bootstrap, dropped, "barrier", {})
        assert "t" not in topics.names(registry.admin)


def test_a_table_that_is_gone_for_good_is_said(kafka, registry, name):
    ddl.create(registry, name)
    with Store(kafka.bootstrap) as store:
        store.put(name, "k", "v")
        ddl.delete_topic(registry, ddl.drop(registry, name).table)
        with pytest.raises((Unknown, NoSuchTable)):
            store.put(name, "k", "v")
        for write in (lambda: store.put(name, "k", "v"), lambda: store.put_many(name, [("k", "v")])):
            with pytest.raises(NoSuchTable):
                write()


def test_a_batch_that_meets_the_end_of_its_table_half_way_says_which_part(kafka, registry, name, monkeypatch):
    monkeypatch.setattr("logstore.client.write.batch.AHEAD_RECORDS", 500)
    ddl.create(registry, name, partitions=2)
    with Store(kafka.bootstrap, queue_records=2_000) as store:

        def pairs():
            for i in range(6_000):
                if i == 4_000:
                    ddl.delete_topic(registry, ddl.drop(registry, name).table)
                yield f"k{i}", "v"

        store.put(name, "first", "v")
        with pytest.raises((BatchUnknown, BatchFailed)) as caught:
            store.put_many(name, pairs())
    lost = [place for places in (*caught.value.failed_places, *caught.value.unknown_places) for place in places]
    assert min(lost) >= 500
    assert len(lost) == caught.value.failed + caught.value.unknown


# A topic that somebody else makes again, under the name it had


def made_again_by_somebody_else(registry, name, partitions):
    topics.delete(registry.admin, name)
    settings = topics.wal_settings(1_000_000, 1)
    until("the topic is there again", lambda: topics.create(registry.admin, name, partitions, 1, settings))


@pytest.mark.parametrize("partitions", [3, 16])
@pytest.mark.slow
def test_a_log_that_took_the_name_acknowledges_nothing(kafka, registry, name, partitions):
    ddl.create(registry, name, partitions=8)
    with Store(kafka.bootstrap) as store:
        for i in range(64):  # an offset of each partition is known
            store.put(name, f"k{i}", "old")
        made_again_by_somebody_else(registry, name, partitions)
        for i in range(40):
            with pytest.raises((Unknown, WriteFailed, EpochChanged)):
                store.put(name, f"k{i}", "lost")
        with pytest.raises((Unknown, WriteFailed, EpochChanged)):
            store.put_many(name, [(f"k{i}", "lost") for i in range(700)])
        with pytest.raises(EpochChanged, match="--new-epoch"):
            store.put(name, "k", "lost")
        table = repairs.new_epoch(registry, registry.table(name)).table
        position = settle(lambda: store.put_many(name, [(f"n{i}", "new") for i in range(700)]))
        assert {epoch for epoch, _ in position.pieces} == {table.epoch}
    log = read_log(kafka.bootstrap, table)
    new = {(partition, key) for (partition, _), (key, value) in log.items() if value == b"new"}
    assert new == {(partition_of(b"n%d" % i, partitions), b"n%d" % i) for i in range(700)}


def test_a_pipeline_says_that_another_log_took_the_name(kafka, registry, name):
    ddl.create(registry, name, partitions=2)
    with Store(kafka.bootstrap) as store:
        pipe = store.pipeline(name)
        pipe.put("k", "old").result()
        made_again_by_somebody_else(registry, name, 4)
        until("its proof is over", lambda: store.tables.proof.is_due(pipe.epoch))
        pipe.put("k", "lost")
        with pytest.raises((Unknown, WriteFailed), match=r"made again by somebody else|does not exist"):
            pipe.flush()


def test_so_does_an_asynchronous_writer_of_a_log_that_took_the_name(kafka, registry, name):
    ddl.create(registry, name, partitions=2)

    async def write():
        async with AsyncStore(kafka.bootstrap) as store:
            for i in range(20):
                await store.put(name, f"k{i}", "old")
            await asyncio.to_thread(made_again_by_somebody_else, registry, name, 4)
            for i in range(20):
                with pytest.raises((Unknown, WriteFailed, EpochChanged)):
                    await store.put(name, f"k{i}", "lost")

    asyncio.run(write())
