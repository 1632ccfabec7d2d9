"""Records with their writers' timestamps, in a table that lives by the broker's: nothing folds or archives them."""

import contextlib
from dataclasses import replace

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, Producer
from support_log import produce
from support_wait import until
from support_worker import make_table, opened, rows

from logstore.log import topics
from logstore.log.kafka.clients import admin
from logstore.log.read.foreign_time import ForeignTime, foreign_time
from logstore.log.read.range_group import read_group
from logstore.log.read.ranges import read_range
from logstore.log.tables.registry import Registry
from logstore.model.errors import TopicMisconfigured
from logstore.model.table import Table

TABLE = Table("t", "t", "0" * 32, 1)
KIND = "message.timestamp.type"


def put(bootstrap, topic, key):
    """Write a row to partition 0: (kind of its timestamp, offset), as the broker acknowledges it."""
    acknowledged = []
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic, b"v", key, partition=0, timestamp=1, on_delivery=lambda _, one: acknowledged.append(one))
    assert producer.flush(30) == 0
    assert acknowledged[0].error() is None, acknowledged[0].error()
    return acknowledged[0].timestamp()[0], acknowledged[0].offset()


def put_with_own_time(bootstrap, table):
    """The offset of the first record that keeps its writer's time, once somebody has set the topic so."""
    topics.set_settings(admin(bootstrap), table.topic, {KIND: "CreateTime"})
    return until(
        "the broker takes over what writers say",
        lambda: (found := put(bootstrap, table.topic, b"late"))[0] == TIMESTAMP_CREATE_TIME and found[1] + 1,
    ) - 1  # fmt: skip


def test_a_record_with_its_writers_time_stops_the_partition_until_it_is_given_up(kafka, worker):
    table = make_table(kafka.bootstrap, partitions=1)
    produce(kafka.bootstrap, table.topic, [(b"ada", b"1"), (b"bob", b"2")])
    offset = put_with_own_time(kafka.bootstrap, table)
    shown = worker.watch.state(table, 0, "stopped")
    assert KIND in shown.reason
    assert f"--skip {offset}.." in shown.reason
    with opened(worker.data_dir, table, 0) as reader:
        assert (reader.state().next_offset, reader.state().stop.word) == (offset, "misconfigured")
    for read in (read_range(kafka.bootstrap, table, 0, 0, offset + 1),
                 read_group(kafka.bootstrap, table, {0: (0, offset + 1)})):  # fmt: skip
        with pytest.raises(TopicMisconfigured, match=f"--skip {offset}.."):
            list(read)
    assert sum(one.num_rows for one in read_range(kafka.bootstrap, table, 0, 0, offset)) == offset

    topics.set_settings(admin(kafka.bootstrap), table.topic, {KIND: "LogAppendTime"})
    last = until(
        "the broker gives records its time again",
        lambda: (found := put(kafka.bootstrap, table.topic, b"late"))[0] != TIMESTAMP_CREATE_TIME and found[1],
    )
    mended = table.with_skip(0, offset, last - 1)
    with contextlib.closing(Registry(kafka.bootstrap)) as registry:
        registry.write(mended)
    worker.watch.state(mended, 0, "live")
    worker.watch.position(mended, 0, last + 1)
    found = rows(worker.data_dir, mended)
    assert (found[b"ada"], found[b"bob"], found[b"late"]) == (b"1", b"2", b"v")
    assert sum(one.num_rows for one in read_range(kafka.bootstrap, mended, 0, 0, last + 1)) == last + 1


@pytest.mark.parametrize(
    ("table", "by_writers", "found"),
    [
        (TABLE, [], None), (TABLE, [5], (5, 5)), (TABLE, [5, 6, 8], (5, 6)),
        (replace(TABLE, adopted=True), [5], None),  # its topic is the user's, and so are its times
        (TABLE.with_skip(0, 5, 6), [5, 6], None), (TABLE.with_skip(0, 4, 6), [5, 6, 7, 8], (7, 8)),
        (TABLE.with_skip(1, 5, 6), [6], (6, 6)),
    ],
)  # fmt: skip
def test_the_first_run_of_such_records_is_named(table, by_writers, found):
    assert foreign_time(table, 0, by_writers) == (found and ForeignTime(*found))
