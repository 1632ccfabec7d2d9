"""Ranges: exact stretches `[start, end)` of a partition's log as Arrow record batches.

    part int32 | offset int64 | timestamp int64 (ms, as the broker set it) | key binary | value binary
    | headers list<struct<key, value>>

Dense but for the offsets that the table's repairs step over. What is missing otherwise is an error, never a shorter
answer: `auto.offset.reset=error` is the only setting with which a truncated log is seen at all. The topic's id is
compared first and last.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from confluent_kafka import KafkaError, TopicPartition

from logstore.log.control import check_epoch
from logstore.log.kafka import clients, offsets
from logstore.log.kafka.errors import unreadable
from logstore.log.kafka.records import Record, take
from logstore.log.read.tail import headers_of
from logstore.model.errors import LogGap, LogStoreError, LogTruncated
from logstore.model.record_identity import identify
from logstore.model.skips import first_missing
from logstore.model.table import Table

HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
SCHEMA = pa.schema(
    [
        ("part", pa.int32()), ("offset", pa.int64()), ("timestamp", pa.int64()),
        ("key", pa.binary()), ("value", pa.binary()), ("headers", HEADERS),
    ]
)  # fmt: skip
BATCH_ROWS, BATCH_BYTES = 65_536, 16 << 20
WAIT_S = 30.0
MOST = 10_000  # records of one call: those are Python objects, and bound what is held beside the columns
FETCH = {
    "enable.partition.eof": True,
    "queued.min.messages": 100_000,
    "queued.max.messages.kbytes": 32_768,
    "fetch.message.max.bytes": 4 << 20,
    "fetch.wait.max.ms": 20,
}
_GONE = {KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION}


def read_range(
    bootstrap: str,
    table: Table,
    partition: int,
    start: int,
    end: int,
    *,
    rows: int = BATCH_ROWS,
    size_bytes: int = BATCH_BYTES,
) -> Iterator[pa.RecordBatch]:
    """Records of `[start, end)` of a partition, all and in order, in batches of about `rows` records or `size_bytes`.

    Raises LogTruncated when the log begins later, LogGap when an offset is missing that no repair steps over,
    EpochChanged when the topic is not the table's, LogUnreachable when nothing comes for 30 s.
    """
    if start >= end:
        return
    check_epoch(bootstrap, table)
    begin = _beginning(bootstrap, table, partition, start, end)
    if begin < end:
        yield from _Reader(bootstrap, table, partition, begin, end).batches(rows, size_bytes)
    check_epoch(bootstrap, table)


def committed_ends(bootstrap: str, table: Table) -> dict[int, int]:
    """Partition -> end of what is committed there now. Raises LogUnreachable."""
    partitions = list(range(table.partitions))
    return {
        p: bound.end
        for p, bound in offsets.bounds(clients.admin(bootstrap), table.topic, partitions, committed=True).items()
    }


def first_later(bootstrap: str, table: Table, time_ms: int) -> dict[int, int | None]:
    """Partition -> the first offset in the log whose timestamp is later than a time.

    None where there is none. Raises LogUnreachable.
    """
    return offsets.first_from(clients.admin(bootstrap), table.topic, list(range(table.partitions)), time_ms + 1)


def _beginning(bootstrap: str, table: Table, partition: int, start: int, end: int) -> int:
    bound = offsets.bounds(clients.admin(bootstrap), table.topic, [partition])[partition]
    return beginning(table, partition, start, end, bound.start)


def beginning(table: Table, partition: int, start: int, end: int, log_start: int) -> int:
    """The offset at which reading begins: `start`, or behind records that are gone and were given up.

    Raises LogTruncated.
    """
    missing = first_missing(range(start, min(log_start, end)), table.skips.get(partition, ()))
    if missing is not None:
        raise LogTruncated(
            f"offset {missing:,} of {table.topic}/{partition} is gone: the log begins at {log_start:,}; "
            f"`logstore table repair {table.name} --partition {partition}` shows what is missing"
        )
    return max(start, log_start)


class _Reader:
    """A consumer of one partition, for one range."""

    def __init__(self, bootstrap: str, table: Table, partition: int, start: int, end: int) -> None:
        self._at = Reach(table, partition, start, end)
        self._consumer: Any = clients.consumer(bootstrap, **FETCH)

    def batches(self, rows: int, size_bytes: int) -> Iterator[pa.RecordBatch]:
        """Batches of the whole range."""
        held: list[pa.RecordBatch] = []
        count = size = 0
        try:
            self._consumer.assign([self._at.place])
            while self._at.left:
                taken = take(self._consumer, min(MOST, rows, self._at.left), WAIT_S)
                batch = self._at.batch_of(taken, self._consumer)
                if batch is None:
                    continue
                held.append(batch)
                count, size = count + batch.num_rows, size + batch.nbytes
                if count >= rows or size >= size_bytes:
                    yield pa.concat_batches(held)
                    held, count, size = [], 0, 0
            if held:
                yield pa.concat_batches(held)
        finally:
            self._consumer.close()


class Reach:
    """Reach of a reader within the range of one partition: what it wants next, and what may come in its place."""

    def __init__(self, table: Table, partition: int, start: int, end: int) -> None:
        self._table, self._partition, self._following, self._end = table, partition, start, end
        self._skips = table.skips.get(partition, ())

    @property
    def place(self) -> TopicPartition:
        """Offset at which reading goes on, as Kafka's client takes it."""
        return TopicPartition(self._table.topic, self._partition, self._following)

    @property
    def left(self) -> int:
        """Offsets that are wanted yet."""
        return self._end - self._following

    def batch_of(self, taken: Sequence[Record], consumer: Any) -> pa.RecordBatch | None:
        """The records below the end among what came of the partition; None when there were none.

        Raises LogGap, LogTruncated, and what the consumer was refused.
        """
        records = [record for record in taken if record.error() is None and record.offset() < self._end]
        batch = columns(self._partition, records) if records else None
        if batch is not None:
            self._step([record.offset() for record in records])
        if len(records) < len(taken):
            errors = [record.error() for record in taken if record.error() is not None]
            self._look_at(errors, consumer, beyond=taken[-1].error() is None)
        return batch

    def _step(self, read: list[int]) -> None:
        """Go behind these offsets; raises LogGap when one between is missing."""
        if read[-1] - self._following != len(read) - 1:
            for offset in read:
                self._step_over(offset)
                self._following = offset + 1
        self._following = read[-1] + 1

    def _step_over(self, upto: int) -> None:
        missing = first_missing(range(self._following, upto), self._skips)
        if missing is not None:
            table, partition = self._table, self._partition
            raise LogGap(
                f"offsets {missing:,} to {upto - 1:,} are missing from the log of {table.name}/{partition}: a "
                "transactional writer's "
                f"markers, an open transaction, or loss; `logstore table repair {table.name} --partition {partition}` "
                "shows which"
            )

    def _look_at(self, errors: list[Any], consumer: Any, *, beyond: bool) -> None:
        """Judge records that are not all of the range: an error, the end of the log, or records behind the range."""
        for error in errors:
            if error.code() != KafkaError._PARTITION_EOF:
                raise self._failed(error, consumer)
        if beyond or errors:
            self._step_over(self._end)
            self._following = self._end

    def _failed(self, error: Any, consumer: Any) -> LogStoreError:
        topic, partition = self._table.topic, self._partition
        if error.code() in _GONE:
            lost = f"offset {self._following:,} went from the log while it was read"
            return LogTruncated(f"{topic}/{partition}: {lost}; try again")
        return unreadable(error, topic, partition, consumer)


def columns(partition: int, records: Sequence[Record]) -> pa.RecordBatch:
    """Records of one partition as columns."""
    headers = headers_of(records)
    return pa.RecordBatch.from_arrays(
        [
            pa.array([partition] * len(records), pa.int32()),
            pa.array([record.offset() for record in records], pa.int64()),
            pa.array([record.timestamp()[1] for record in records], pa.int64()),
            pa.array([record.key() for record in records], pa.binary()),
            pa.array([record.value() for record in records], pa.binary()),
            pa.array(headers, HEADERS) if any(headers) else pa.nulls(len(records), HEADERS),
        ],
        schema=SCHEMA,
    )


def identity_at(batch: pa.RecordBatch, row: int) -> str:
    """The identity of a record, as text."""
    offset, timestamp_ms, key, value = (
        batch.column(name)[row].as_py() for name in ("offset", "timestamp", "key", "value")
    )
    return identify(offset, timestamp_ms, key, value).text
