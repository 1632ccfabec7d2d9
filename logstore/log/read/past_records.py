"""Past records: a bounded run of a partition's log from an offset on, for who has fallen behind what is in memory."""

from typing import NamedTuple

from confluent_kafka import KafkaError, TopicPartition

from logstore.log.control import check_epoch
from logstore.log.kafka import clients, offsets
from logstore.log.kafka.errors import unreadable
from logstore.log.kafka.offsets import Bounds
from logstore.log.kafka.records import Record, Timestamps, take
from logstore.log.read.tail import columns_of
from logstore.model.errors import LogTruncated
from logstore.model.folding.fold import Records
from logstore.model.table import Table

_WAIT_S = 10.0
_GONE = {KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION}
_FETCH = {"enable.partition.eof": True, "queued.max.messages.kbytes": 1_024, "fetch.wait.max.ms": 20}


class PastRecords(NamedTuple):
    """Records of `[start, following)`."""

    records: Records
    following: int


def bounds_of(bootstrap: str, table: Table) -> dict[int, Bounds]:
    """Partition -> what its log holds now. Raises EpochChanged when the topic is another one now, LogUnreachable."""
    check_epoch(bootstrap, table)
    return offsets.bounds(clients.admin(bootstrap), table.topic, list(range(table.partitions)))


def first_later(bootstrap: str, table: Table, time_ms: int) -> dict[int, int | None]:
    """Partition -> the first offset in the log whose log time is later than a time; None: there is none.

    Raises LogUnreachable.
    """
    return offsets.first_from(clients.admin(bootstrap), table.topic, list(range(table.partitions)), time_ms + 1)


def read_past(bootstrap: str, table: Table, partition: int, reach: range, most: int, most_bytes: int) -> PastRecords:
    """Records of `reach`: at most `most`, or up to the one with which they have `most_bytes`.

    Raises LogTruncated when the log begins later, LogUnreachable, AccessDenied.
    """
    consumer = clients.consumer(bootstrap, **_FETCH)
    found: list[Record] = []
    size = 0
    try:
        consumer.assign([TopicPartition(table.topic, partition, reach.start)])
        while len(found) < most and size < most_bytes:
            for record in take(consumer, most - len(found), _WAIT_S):
                error = record.error()
                if error is not None and error.code() in _GONE:
                    raise LogTruncated(f"offset {reach.start:,} of {table.topic}/{partition} is gone from the log")
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise unreadable(error, table.topic, partition, consumer)
                if error is not None or record.offset() >= reach.stop:
                    return PastRecords(columns_of(found, Timestamps.of(found).times_ms), reach.stop)
                found.append(record)
                size += len(record.key() or b"") + len(record.value() or b"")
                if size >= most_bytes:
                    break
    finally:
        consumer.close()
    return PastRecords(columns_of(found, Timestamps.of(found).times_ms), found[-1].offset() + 1)
