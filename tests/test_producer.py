import asyncio
import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from support_producer import Fixed, make_table, read_log, where

from logstore import AsyncStore, Store
from logstore.client.write.batch import WriteBatch
from logstore.log.kafka import clients, offsets
from logstore.log.kafka.records import read_records
from logstore.model.errors import (
    BadKey,
    BatchFailed,
    NoSuchTable,
    Unknown,
    UsageError,
    ValueTooLarge,
    WriteFailed,
)
from logstore.model.partitioner import partition_of
from logstore.model.position import Position
from logstore.model.table import Table


def test_positions_are_where_the_records_are(kafka, fixed_table, fixed_store):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    seeded = random.Random(seed)
    written = {}
    with fixed_store.pipeline(fixed_table.name) as pipe:
        futures = []
        for _ in range(3000):
            key, value = seeded.randbytes(seeded.randrange(1, 30)), seeded.choice([None, b"", seeded.randbytes(50)])
            futures.append((key, value, pipe.delete(key) if value is None else pipe.put(key, value)))
    written |= {where(future.result()): (key, value) for key, value, future in futures}
    for i in range(20):
        written[where(fixed_store.put(fixed_table.name, f"single {i}", "v"))] = (b"single %d" % i, b"v")
        written[where(fixed_store.delete(fixed_table.name, f"single {i}"))] = (b"single %d" % i, None)
    assert read_log(kafka.bootstrap, fixed_table) == written
    assert all(partition == partition_of(key, 4) for (partition, _), (key, _) in written.items())


@pytest.mark.parametrize("partitions", [1, 4, 40])
def test_the_position_of_many_ends_exactly_behind_the_last_record_of_each_partition(kafka, partitions):
    table = make_table(kafka.bootstrap, partitions)
    pairs = [(b"%d" % i, None if i % 7 == 0 else b"v%d" % i) for i in range(2345)]
    with Store(kafka.bootstrap, definitions=Fixed(table)) as store:
        position = store.put_many(table.name, iter(pairs))
    log = read_log(kafka.bootstrap, table)
    ends = {}
    for partition, offset in log:
        ends[table.epoch, partition] = max(ends.get((table.epoch, partition), 0), offset + 1)
    assert position == Position(ends)
    assert sorted(log.values(), key=repr) == sorted(pairs, key=repr)


def test_text_and_bytes_may_be_mixed(kafka, fixed_table, fixed_store):
    fixed_store.put_many(fixed_table.name, [("ä", b"1"), (b"b", "ö"), ("c", None)])
    assert sorted(read_log(kafka.bootstrap, fixed_table).values()) == [
        (b"b", "ö".encode()),
        (b"c", None),
        ("ä".encode(), b"1"),
    ]


def test_nothing_to_write_is_an_empty_position(fixed_table, fixed_store):
    assert fixed_store.put_many(fixed_table.name, []) == Position()


@pytest.mark.parametrize("queue_records", [50, 2000])
def test_order_per_key_survives_a_full_queue(kafka, queue_records):
    table = make_table(kafka.bootstrap, 2)
    pairs = [(b"k%d" % (i % 5), b"%d" % i) for i in range(6000)]
    with Store(kafka.bootstrap, definitions=Fixed(table), queue_records=queue_records) as store:
        store.put_many(table.name, pairs[:3000])
        with store.pipeline(table.name) as pipe:
            for key, value in pairs[3000:]:
                pipe.put(key, value)
    log = read_log(kafka.bootstrap, table)
    for key in {key for key, _ in pairs}:
        in_log = [value for (_, _), (other, value) in sorted(log.items()) if other == key]
        assert in_log == [value for other, value in pairs if other == key]


def test_many_threads_share_one_store(kafka, fixed_table, fixed_store):
    def write(thread):
        return [where(fixed_store.put(fixed_table.name, f"{thread}/{i}", "v")) for i in range(40)] + [
            fixed_store.put_many(fixed_table.name, [(f"{thread}/many", "v")])
        ]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(write, range(8)))
    log = read_log(kafka.bootstrap, fixed_table)
    assert len(log) == 8 * 41
    assert all(
        log[at] == (f"{thread}/{i}".encode(), b"v")
        for thread, found in enumerate(results)
        for i, at in enumerate(found[:40])
    )


def test_what_cannot_be_a_row_is_refused_before_the_log(kafka):
    table = make_table(kafka.bootstrap, 1, max_value_bytes=1000)
    with Store(kafka.bootstrap, definitions=Fixed(table)) as store, store.pipeline(table.name) as pipe:
        for put in (
            lambda k, v: store.put(table.name, k, v),
            pipe.put,
            lambda k, v: store.put_many(table.name, [(k, v)]),
        ):
            for key, value, refusal in [
                (b"", b"v", BadKey),
                (b"x" * 65_536, b"v", BadKey),
                (b"k", b"x" * 1001, ValueTooLarge),
                (1, b"v", UsageError),
                (b"k", 1.5, UsageError),
            ]:
                with pytest.raises(refusal):
                    put(key, value)
        for nothing in (lambda: store.put(table.name, "k", None), lambda: pipe.put("k", None)):
            with pytest.raises(UsageError):
                nothing()
        with pytest.raises(UsageError, match="pairs"):
            store.put_many(table.name, [b"k"])
        with pytest.raises(UsageError, match="store's own"):
            store.put(table.name, "k", "v", headers={"ls.op": b"cut"})
        with pytest.raises(UsageError, match="at most"):
            store.put(table.name, "k", "v", headers={"mine": b"x" * 20_000})
        with pytest.raises(NoSuchTable):
            store.put("no-such-table", "k", "v")
    assert read_log(kafka.bootstrap, table) == {}


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_a_bad_pair_among_many_names_its_place_and_nothing_is_written(kafka, fixed_table, fixed_store, kind):
    pairs = [(b"%d" % i, b"v") for i in range(2000)]
    pairs[1534] = (b"", b"v")
    with pytest.raises(BadKey) as caught:
        fixed_store.put_many(fixed_table.name, kind(pairs))
    assert "place 1534" in " ".join(caught.value.__notes__)
    assert read_log(kafka.bootstrap, fixed_table) == {}


def test_a_bad_pair_far_down_a_stream_says_exactly_what_was_written(kafka, fixed_table, fixed_store, monkeypatch):
    monkeypatch.setattr("logstore.client.write.batch.AHEAD_RECORDS", 1_000)
    monkeypatch.setattr("logstore.client.write.batch.CHUNK", 500)
    pairs = [(b"%d" % i, b"v") for i in range(2000)]
    pairs[1534] = (b"", b"v")
    with pytest.raises(BadKey) as caught:
        fixed_store.put_many(fixed_table.name, iter(pairs))
    notes = " ".join(caught.value.__notes__)
    assert "place 1534" in notes
    assert "1,500 pairs before" in notes
    assert len(read_log(kafka.bootstrap, fixed_table)) == 1500


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [([10] * 5_000, 4_000), ([2_000] * 5_000, 500), ([10] * 499 + [2_000] * 900, 500), ([10] * 700, 700), ([], 0)],
    ids=["short", "long", "one-long", "few", "none"],
)
def test_chunks_are_long_where_records_are_short(sizes, taken):
    source = iter([(b"k", b"v" * size) for size in sizes])
    chunk = next(WriteBatch(None, Table("t", "t", "e" * 32, 1))._chunks(source), None)
    assert (chunk.values if chunk else []) == [b"v" * size for size in sizes[:taken]]
    assert len(list(source)) == len(sizes) - taken


def test_a_mapping_is_its_items_and_what_has_no_pairs_is_refused(kafka, fixed_table, fixed_store):
    fixed_store.put_many(fixed_table.name, {"ab": "1", b"cd": None, "ef": b""})
    assert sorted(read_log(kafka.bootstrap, fixed_table).values()) == [(b"ab", b"1"), (b"cd", None), (b"ef", b"")]
    for wrong in ["xy", b"xy", ["xy"], [b"xy"], [{"a", "b"}], {("a", "1")}, [("a",)], [("a", "1", "2")], [{"a": 1}], 7,
                  None, ["a", "b"], iter(["ab"]), {"ab": 1}, {"\ud800": "x"}]:  # fmt: skip
        with pytest.raises(UsageError):
            fixed_store.put_many(fixed_table.name, wrong)
    assert len(read_log(kafka.bootstrap, fixed_table)) == 3


def test_the_longest_key_and_value_go_through(kafka):
    table = make_table(kafka.bootstrap, 1, config={"max.message.bytes": str(1_000_000 + 65_535 + 16 * 1024)})
    key, value = random.Random(1).randbytes(65_535), random.Random(2).randbytes(1_000_000)
    with Store(kafka.bootstrap, definitions=Fixed(table)) as store:
        store.put(table.name, key, value, headers={"mine": b"x" * 15_000})
        store.put_many(table.name, [(key, value)] * 3)
    assert list(read_log(kafka.bootstrap, table).values()) == [(key, value)] * 4


def test_the_writers_own_headers_are_kept(kafka, fixed_table, fixed_store):
    at = fixed_store.put(fixed_table.name, "k", "v", headers={"source": b"test"})
    (record,) = read_records(kafka.bootstrap, fixed_table.topic, at.partition, at.offset, at.offset + 1)
    assert record.headers() == [("source", b"test")]


def test_a_record_the_topic_refuses_has_failed_for_certain(kafka):
    table = make_table(kafka.bootstrap, 1, config={"max.message.bytes": "2000"})
    value = random.Random(1).randbytes(5000)
    with Store(kafka.bootstrap, definitions=Fixed(table)) as store:
        with pytest.raises(WriteFailed, match=r"max\.message\.bytes") as caught:
            store.put(table.name, "k", value)
        assert not caught.value.retriable
        with pytest.raises(BatchFailed) as many:
            store.put_many(table.name, [("k", value)])
        assert many.value.failed_places == (range(1),)
        with pytest.raises(WriteFailed), store.pipeline(table.name) as pipe:
            pipe.put("k", value)
        store.put(table.name, "k", "small")
    assert [value for _, value in read_log(kafka.bootstrap, table).values()] == [b"small"]


def test_a_topic_that_is_not_there_is_not_written_to(kafka):
    table = Table("gone", f"client-gone-{uuid.uuid4().hex[:8]}", "0" * 32, 4)
    with Store(kafka.bootstrap, definitions=Fixed(table)) as store, pytest.raises(Unknown, match="does not exist"):
        store.put("gone", "k", "v")


def test_futures_complete_although_nobody_asks(kafka, fixed_table, fixed_store):
    called, done = [], threading.Event()
    with fixed_store.pipeline(fixed_table.name) as pipe:
        pending = pipe.put("k", "v")
        pending.add_done_callback(lambda p: (called.append(p), done.set()))
        assert done.wait(90), "the producer's thread completes it"
        assert called == [pending]
        assert pending.done()
        assert pending.exception() is None
        pending.add_done_callback(called.append)
        assert called == [pending, pending], "at once when it is done"


def test_a_callback_that_fails_is_logged_and_stops_nothing(fixed_table, fixed_store, caplog):
    with fixed_store.pipeline(fixed_table.name) as pipe:
        pipe.put("k", "v").add_done_callback(lambda _: 1 / 0)
    assert fixed_store.put(fixed_table.name, "k", "v")
    assert "done-callback" in caplog.text


def test_a_single_write_after_a_bulk_is_not_held_up(fixed_table, fixed_store):
    def seconds():
        begin = time.perf_counter()
        fixed_store.put(fixed_table.name, "k", "v")
        return time.perf_counter() - begin

    fixed_store.put(fixed_table.name, "warm", "")
    alone, behind = [seconds() for _ in range(15)], []
    for _ in range(15):
        fixed_store.put_many(fixed_table.name, [("a", "b")] * 300)
        behind.append(seconds())
    assert sorted(behind)[7] < sorted(alone)[7] + 0.015, "the median is far below the lease of bulk writers"


def test_settings_that_cannot_be_are_refused(monkeypatch):
    monkeypatch.delenv("LOGSTORE_BOOTSTRAP", raising=False)
    with pytest.raises(UsageError, match="on_full"):
        Store("127.0.0.1:1", on_full="perhaps")
    with pytest.raises(UsageError, match="LOGSTORE_BOOTSTRAP"), Store() as store:
        store.put("t", "k", "v")


async def _write_async(bootstrap, table):
    async with AsyncStore(bootstrap, definitions=Fixed(table), queue_records=300) as store:
        one = await store.put(table.name, "one", "1")
        gone = await store.delete(table.name, "one")
        many = await store.put_many(table.name, [(b"m%d" % i, b"v") for i in range(700)])
        async with store.pipeline(table.name) as pipe:
            pendings = [await pipe.put(b"p%d" % i, b"v") for i in range(1000)]
            piped = [await pending for pending in pendings]
        return one, gone, many, piped


def test_the_async_store_writes_the_same(kafka, fixed_table):
    one, gone, many, piped = asyncio.run(_write_async(kafka.bootstrap, fixed_table))
    log = read_log(kafka.bootstrap, fixed_table)
    assert log[where(one)] == (b"one", b"1")
    assert log[where(gone)] == (b"one", None)
    assert [log[where(position)][0] for position in piped] == [b"p%d" % i for i in range(1000)]
    assert {partition for _, partition in many.pieces} == {0, 1, 2, 3}
    assert len(log) == 1702


def test_the_first_record_of_every_partition_goes_alone(kafka, monkeypatch):
    table = make_table(kafka.bootstrap, 4)
    pairs = [(b"%d" % n, b"v%d" % n) for n in range(3_000)]
    with Store(kafka.bootstrap, definitions=Fixed(table)) as store:
        sent, ends = [], []
        send = store.producer.send_batch

        def watched(topic, messages, *rest):
            ends.append(
                sum(
                    bounds.end
                    for bounds in offsets.bounds(clients.admin(kafka.bootstrap), topic, list(range(4))).values()
                )
            )
            sent.append([message["key"] for message in messages])
            return send(topic, messages, *rest)

        monkeypatch.setattr(store.producer, "send_batch", watched)
        store.put_many(table.name, pairs)
        assert [key for keys in sent for key in keys] == [key for key, _ in pairs]
        proved = set()
        while len(proved) < 4:
            homes = [partition_of(key, 4) for key in sent.pop(0)]
            firsts = [home for home in homes if home not in proved]
            assert len(firsts) == len(set(firsts)) > 0
            proved |= set(firsts)
            assert ends.pop(0) + len(homes) == ends[0]  # all of it is in the log before anything follows
        assert [len(keys) for keys in sent[1:]] == [500] * (len(sent) - 1)
        assert store.producer.proved(table.topic) == {0, 1, 2, 3}
