"""Write levels: what has a write when the call returns, and what is said where that cannot be told."""

import asyncio
import uuid

import pytest
from support_producer import Fixed, make_table, read_log
from support_wait import until

from logstore import AsyncStore, MemoryStore, Store
from logstore.client.write import level as write_level
from logstore.client.write.level import WRITE_LEVELS
from logstore.log.kafka import clients
from logstore.model.errors import LogUnreachable, NotApplied, UsageError
from logstore.model.partitioner import partition_of
from tests.support_serve import serving
from tests.support_wire import serving as answering

NOWHERE = "127.0.0.1:1"
NOWHERE_URL = "http://127.0.0.1:1"


@pytest.fixture
def dev_store(dev):
    with Store(dev.facts["bootstrap"], dev.facts["http"]) as store:
        yield store


@pytest.fixture(scope="module")
def standing(kafka, tmp_path_factory):
    """A node whose view advances when a test says so, of a table that has a topic; and its reader."""
    with serving(tmp_path_factory.mktemp("node")) as (node, reader):
        table = make_table(kafka.bootstrap, 1)
        node.tables[table.name] = table
        node.open_view(table, 0)
        node.publish_tables()
        node.publish_nodes()
        reader.wait_ready()
        yield node, reader, table


def test_one_is_acknowledged_by_the_leader_alone_and_keeps_the_order(kafka, monkeypatch):
    table, asked, producer = make_table(kafka.bootstrap, 1), [], clients.producer
    monkeypatch.setattr(
        clients, "producer", lambda where, **settings: (asked.append(settings), producer(where, **settings))[1]
    )
    with Store(kafka.bootstrap, definitions=Fixed(table)) as store:
        store.put(table.name, "k", "all")
        first = store.put(table.name, "k", "one", level="one")
        last = store.put_many(table.name, [("k", "two"), ("k", "three"), ("l", None)], level="one")
        assert store.delete(table.name, "k", level="one").offset == last.offset + 1 == first.offset + 4
        assert store.flush() == 0

    async def write():
        async with AsyncStore(kafka.bootstrap, definitions=Fixed(table)) as store:
            put = await store.put(table.name, "k", "four", level="one")
            assert (await store.delete(table.name, "k", level="one")).offset == put.offset + 1
            assert (await store.put_many(table.name, {"k": "five"}, level="one")).offset == put.offset + 2

    asyncio.run(write())
    values = [value for _, value in read_log(kafka.bootstrap, table).values()]
    assert [(one["acks"], one["enable.idempotence"]) for one in asked] == [("all", True), ("1", False), ("1", False)]
    assert all(one["max.in.flight.requests.per.connection"] == 1 for one in asked[1:])  # no retry is overtaken
    assert values == [b"all", b"one", b"two", b"three", None, None, b"four", None, b"five"]


def test_what_is_applied_is_read_without_a_token(dev_store, dev, users):
    for n in range(20):
        key = uuid.uuid4().hex
        dev_store.put(users, key, str(n), level="applied")
        assert dev_store.get(users, key).value == b"%d" % n
        dev_store.delete(users, key, level="applied")
        assert dev_store.get(users, key) is None

    async def write():
        async with AsyncStore(dev.facts["bootstrap"], dev.facts["http"]) as store:
            key = uuid.uuid4().hex
            await store.put(users, key, "v", level="applied")
            assert (await store.get(users, key)).value == b"v"
            await store.put_many(users, {key: "w"}, level="applied")
            assert (await store.get(users, key)).value == b"w"

    asyncio.run(write())
    key = uuid.uuid4().hex
    dev("put", users, key, "v", "--level", "applied")
    assert dev_store.get(users, key).value == b"v"
    dev("delete", users, key, "--level", "one")
    assert b"--level" in dev("put", users, key, "v", "--if", "absent", "--level", "one", status=2).stderr


def test_a_pipeline_of_the_leader_alone_takes_no_decisions(kafka, monkeypatch):
    table, asked, producer = make_table(kafka.bootstrap, 1, conditional=True), [], clients.producer
    monkeypatch.setattr(
        clients, "producer", lambda where, **settings: (asked.append(settings), producer(where, **settings))[1]
    )
    with Store(kafka.bootstrap, NOWHERE_URL, definitions=Fixed(table)) as store:
        with store.pipeline(table.name, level="one") as pipe:
            written = [pipe.put("k", str(n)) for n in range(500)]
            with pytest.raises(UsageError, match="without a level"):
                pipe.incr("n")
            written.append(pipe.delete("k"))
        assert [one.result().offset for one in written] == list(range(501))

    async def write():
        async with (
            AsyncStore(kafka.bootstrap, NOWHERE_URL, definitions=Fixed(table)) as store,
            store.pipeline(table.name, level="one") as pipe,
        ):
            assert (await (await pipe.put("k", "v"))).offset == 501
            with pytest.raises(UsageError, match="without a level"):
                await pipe.put_if("k", "w", absent=True)

    asyncio.run(write())
    assert [one["acks"] for one in asked] == ["1", "1"]
    assert len(read_log(kafka.bootstrap, table)) == 502


def test_a_write_of_a_pipeline_is_done_when_it_is_applied(dev_store, dev, users):
    run = uuid.uuid4().hex
    with dev_store.pipeline(users, level="applied") as pipe:
        for n in range(20):
            assert pipe.put(f"{run}-one", str(n)).result()
            assert dev_store.get(users, f"{run}-one").value == b"%d" % n
        written = [pipe.put(f"{run}-{n:04d}", "v", headers={"by": "me"} if n % 2 else None) for n in range(3_000)]
        gone = pipe.delete(f"{run}-one")
    assert all(one.done() for one in [*written, gone]), "leaving the block waits for all"
    assert sum(1 for _ in dev_store.scan(users, prefix=run)) == 3_000

    async def write():
        async with AsyncStore(dev.facts["bootstrap"], dev.facts["http"]) as store:
            async with store.pipeline(users, level="applied") as pipe:
                for n in range(20):
                    await (await pipe.put(f"{run}-two", str(n)))
                    assert (await store.get(users, f"{run}-two")).value == b"%d" % n
                written = [await pipe.delete(f"{run}-{n:04d}") for n in range(3_000)]
            assert all(one.done() for one in written)
            assert [row.key async for row in store.scan(users, prefix=run)] == [f"{run}-two".encode()]

    asyncio.run(write())


def test_a_pipeline_tells_what_is_in_the_log_and_not_applied(kafka, standing, monkeypatch):
    monkeypatch.setattr(write_level, "MAX_APPLY_MS", 300)
    node, reader, table = standing
    before = len(read_log(kafka.bootstrap, table))
    with Store(kafka.bootstrap, reader.url, definitions=Fixed(table)) as store:
        pipe = store.pipeline(table.name, level="applied")
        written = [pipe.put("k", str(n)) for n in range(3)]
        with pytest.raises(NotApplied, match="of 3 writes 3 are in the log") as caught:
            pipe.flush()
        assert caught.value.position.offset == before + 2
        for n, one in enumerate(written):
            with pytest.raises(NotApplied, match="do not write it again") as single:
                one.result()
            assert single.value.position.offset == before + n
        pipe.flush()  # it is told once
        monkeypatch.undo()
        late = pipe.put("k", "last")
        node.append(table.name, 0, [(b"k", b"v")] * (before + 4 - served(reader, table)))
        assert late.result().offset == before + 3
        assert served(reader, table) == before + 4
    with Store(kafka.bootstrap, definitions=Fixed(table)) as blind, pytest.raises(UsageError, match="URL of a node"):
        blind.pipeline(table.name, level="applied")


def served(reader, table) -> int:
    """The next offset of the partition, as a reader tells it."""
    return int(reader.get(f"/v1/tables/{table.name}/rows/k").headers["ls-applied"])


def test_a_batch_waits_for_every_partition_in_one_request(kafka, dev_store, users):
    keys = [uuid.uuid4().hex for _ in range(50)]
    dev_store.put_many(users, [(key, "v") for key in keys], level="applied")
    assert all(dev_store.get_many(users, keys))

    table = make_table(kafka.bootstrap, 2)
    pairs = [(key, "v") for key in keys]
    assert {partition_of(key.encode(), 2) for key in keys} == {0, 1}
    page = page_of({0: 100, 1: 100}), page_of({0: 100}), page_of({1: 100})
    for answers, requests in ((page[:1], 1), (page[1:], 2)):  # one answer holds both, or each has a node of its own
        with (
            answering(*answers) as server,
            Store(kafka.bootstrap, server.url, definitions=Fixed(table)) as store,
        ):
            store.put_many(table.name, pairs, level="applied")
            assert server.requests == requests


def page_of(positions: dict[int, int]) -> bytes:
    """A page of a scan, without rows, that was read at these offsets."""
    import msgpack  # noqa: PLC0415 - of this one page

    named = {str(partition): offset for partition, offset in positions.items()}
    body = msgpack.packb({"rows": [], "cursor": None, "token": "", "positions": named})
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/msgpack\r\ncontent-length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("level", WRITE_LEVELS)
def test_without_kafka_every_level_says_the_same(level):
    with (
        Store(NOWHERE, "http://127.0.0.1:1", delivery_timeout_s=0.3) as store,
        pytest.raises(LogUnreachable),
    ):
        store.put("t", "k", "v", level=level)


def test_a_node_that_stands_still_leaves_the_write_in_the_log(kafka, standing, monkeypatch):
    monkeypatch.setattr(write_level, "MAX_APPLY_MS", 300)
    node, reader, table = standing
    before = len(read_log(kafka.bootstrap, table))
    with Store(kafka.bootstrap, reader.url, definitions=Fixed(table)) as store:
        with pytest.raises(NotApplied, match="in the log") as caught:
            store.put(table.name, "k", "v", level="applied")
        assert caught.value.position.offset == before
        assert not caught.value.retriable

        async def write():
            async with AsyncStore(
                kafka.bootstrap, reader.url, definitions=Fixed(table)
            ) as one:  # fmt: skip
                await one.put(table.name, "k", "v", level="applied")

        with pytest.raises(NotApplied):
            asyncio.run(write())
    assert len(read_log(kafka.bootstrap, table)) == before + 2
    with (
        Store(kafka.bootstrap, "http://127.0.0.1:1", definitions=Fixed(table)) as away,
        pytest.raises(NotApplied, match="does not answer"),
    ):
        away.put(table.name, "k", "v", level="applied")
    node.append(table.name, 0, [(b"k", b"v")] * (before + 4))
    until("it is served", lambda: int(reader.get(f"/v1/tables/{table.name}/rows/k").headers["ls-applied"]) > before + 3)
    with Store(kafka.bootstrap, reader.url, definitions=Fixed(table)) as store:
        assert store.put(table.name, "k", "v", level="applied").offset == before + 3


def test_a_stopped_partition_is_told(kafka, tmp_path):
    with serving(tmp_path) as (node, reader):
        table = make_table(kafka.bootstrap, 1)
        node.tables[table.name] = table
        node.open_view(table, 0)
        node.publish_tables()
        node.publish_nodes()
        reader.wait_ready()
        node.stop(table.name, 0)
        with (
            Store(kafka.bootstrap, reader.url, definitions=Fixed(table), delivery_timeout_s=20) as store,
            pytest.raises(NotApplied, match="table repair"),
        ):
            store.put(table.name, "k", "v", level="applied")
        assert len(read_log(kafka.bootstrap, table)) == 1


@pytest.mark.parametrize("level", ["quorum", "", 1])
def test_what_is_no_level_writes_nothing(level):
    with Store(NOWHERE, "http://127.0.0.1:1") as store:
        for write in (
            lambda: store.put("t", "k", "v", level=level), lambda: store.delete("t", "k", level=level),
            lambda: store.put_many("t", {"k": "v"}, level=level), lambda: store.pipeline("t", level=level),
        ):  # fmt: skip
            with pytest.raises(UsageError, match="all, one, applied"):
                write()


@pytest.mark.parametrize("level", WRITE_LEVELS)
def test_the_store_in_memory_meets_every_level(level):
    store = MemoryStore()
    store.create("t")
    store.put("t", "k", "v", level=level)
    store.put_many("t", {"l": "w"}, level=level)
    store.delete("t", "k", level=level)
    with store.pipeline("t", level=level) as pipe:
        pipe.put("m", "x")
    assert store.get("t", "m").value == b"x"
    assert (store.get("t", "k"), store.get("t", "l").value) == (None, b"w")
