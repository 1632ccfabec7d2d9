import subprocess
from dataclasses import replace

import msgpack
import pytest
from support_log import markers_written, produce, transactional

from logstore.log import topics
from logstore.log.control import append_control
from logstore.log.kafka.clients import admin
from logstore.log.read import ranges
from logstore.model.errors import EpochChanged, LogGap, LogTruncated, UsageError
from logstore.model.folding.mutation import RESERVED
from logstore.model.table import Table


@pytest.fixture
def made(kafka, request):
    """A table of two partitions with a topic of its own, named after the test."""
    client = kafka_admin(kafka)
    topic = f"r-{abs(hash(request.node.name)) % 10**9}"
    topics.create(client, topic, 2, 1, topics.wal_settings(1_000_000, 1))
    return Table(topic, topic, topics.epoch_of(client, topic), 2)


def kafka_admin(broker):
    return admin(broker.bootstrap)


def read(broker, table, partition, start, end, **more):
    batches = list(ranges.read_range(broker.bootstrap, table, partition, start, end, **more))
    return [row for batch in batches for row in batch.to_pylist()]


def test_a_range_is_every_record_of_it_byte_for_byte(kafka, made):
    produce(kafka.bootstrap, made.topic, [(b"a%d" % n, b"v%d" % n) for n in range(50)], partition=0)
    produce(
        kafka.bootstrap,
        made.topic,
        [(None, None), (b"", b""), (b"\x00\xff", b"x" * 900_000)],
        0,
        [("h", b"1"), ("ls.op", None)],
    )
    rows = read(kafka, made, 0, 10, 53, rows=7)
    assert [row["offset"] for row in rows] == list(range(10, 53))
    assert [(row["key"], row["value"]) for row in rows[:40]] == [(b"a%d" % n, b"v%d" % n) for n in range(10, 50)]
    assert [(row["key"], row["value"]) for row in rows[40:]] == [
        (None, None),
        (b"", b""),
        (b"\x00\xff", b"x" * 900_000),
    ]
    assert rows[40]["headers"] == [{"key": "h", "value": b"1"}, {"key": "ls.op", "value": None}]
    assert rows[0]["headers"] is None
    assert all(row["part"] == 0 and row["timestamp"] > 0 for row in rows)


def test_a_header_name_that_is_no_text_is_kept_as_one_that_is_quarantined(kafka, made):
    command = [
        "kcat",
        "-P",
        "-b",
        kafka.bootstrap,
        "-t",
        made.topic,
        "-p",
        "0",
        "-k",
        "a",
        "-H",
        b"\xff=1",
        "-X",
        "message.timeout.ms=9000",
    ]
    subprocess.run(command, input=b"v", check=True, timeout=30)
    (row,) = read(kafka, made, 0, 0, 1)
    assert row["headers"] == [{"key": RESERVED, "value": None}]


def test_batches_are_bounded_by_bytes(kafka, made):
    produce(kafka.bootstrap, made.topic, [(b"k", b"x" * 100_000)] * 30, partition=1)
    batches = list(ranges.read_range(kafka.bootstrap, made, 1, 0, 30, rows=10, size_bytes=250_000))
    assert sum(batch.num_rows for batch in batches) == 30
    assert max(batch.nbytes for batch in batches) < 1_300_000


def test_an_empty_range_asks_nobody(made):
    assert list(ranges.read_range("127.0.0.1:1", made, 0, 5, 5)) == []


def test_a_log_that_begins_later_or_ends_earlier_is_an_error(kafka, made):
    produce(kafka.bootstrap, made.topic, [(b"k", b"v")] * 20, partition=0)
    with pytest.raises(LogGap, match="offsets 20 to 24 are missing"):
        read(kafka, made, 0, 0, 25)
    topics.truncate(kafka_admin(kafka), made.topic, {0: 5})
    with pytest.raises(LogTruncated, match=r"offset 3 .* begins at 5; `logstore table repair"):
        read(kafka, made, 0, 3, 20)
    assert len(read(kafka, made, 0, 5, 20)) == 15
    assert [row["offset"] for row in read(kafka, made.with_skip(0, 0, 4), 0, 0, 7)] == [5, 6]


def test_transaction_markers_are_holes_unless_a_repair_steps_over_them(kafka, made):
    writer = transactional(kafka.bootstrap, made.topic)
    for committed in (True, False, True):
        writer.begin_transaction()
        writer.produce(made.topic, b"v", b"k", partition=0)
        writer.flush(60)
        writer.commit_transaction(10) if committed else writer.abort_transaction(10)
    markers_written(kafka.bootstrap, made.topic)
    with pytest.raises(LogGap, match="offsets 1 to 3 are missing"):
        read(kafka, made, 0, 0, 6)
    with pytest.raises(LogGap, match="offsets 5 to 5 are missing"):
        read(kafka, made.with_skip(0, 1, 3), 0, 0, 6)
    repaired = made.with_skip(0, 1, 3).with_skip(0, 5, 5)
    assert [row["offset"] for row in read(kafka, repaired, 0, 0, 6)] == [0, 4]
    assert [row["offset"] for row in read(kafka, repaired, 0, 2, 4)] == []
    assert ranges.committed_ends(kafka.bootstrap, made) == {0: 6, 1: 0}


def test_a_topic_that_was_created_again_is_another_one(kafka, made):
    produce(kafka.bootstrap, made.topic, [(b"k", b"v")] * 3, partition=0)
    topics.delete(kafka_admin(kafka), made.topic)
    topics.create(kafka_admin(kafka), made.topic, 2, 1, topics.wal_settings(1_000_000, 1))
    produce(kafka.bootstrap, made.topic, [(b"k", b"other")] * 3, partition=0)
    with pytest.raises(EpochChanged, match="created again"):
        read(kafka, made, 0, 0, 3)
    with pytest.raises(EpochChanged, match="created again"):
        append_control(kafka.bootstrap, made, "cut", {})


def test_control_records_take_an_offset_of_every_partition_asked_for(kafka, made):
    produce(kafka.bootstrap, made.topic, [(b"k", b"v")] * 4, partition=1)
    assert append_control(kafka.bootstrap, made, "cut", {"job": "j", "table": made.name}) == {0: 0, 1: 4}
    assert append_control(kafka.bootstrap, made, "base", {"snapshot": "s"}, [1]) == {1: 5}
    row = read(kafka, made, 1, 4, 6)
    assert [(r["key"], r["headers"]) for r in row] == [
        (None, [{"key": "ls.op", "value": op}]) for op in (b"cut", b"base")
    ]
    assert msgpack.unpackb(row[0]["value"]) == {"job": "j", "table": made.name}
    with pytest.raises(UsageError, match="no control operation"):
        append_control(kafka.bootstrap, made, "put", {})


def test_a_topic_of_somebody_else_gets_no_control_records_without_leave(kafka, made):
    with pytest.raises(UsageError, match="allow-control-records"):
        append_control(kafka.bootstrap, replace(made, adopted=True, allow_control_records=False), "cut", {})
    assert ranges.committed_ends(kafka.bootstrap, made) == {0: 0, 1: 0}
