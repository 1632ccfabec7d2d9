"""Exact range: how far a reader has come in one of a partition's log, and what may come in the place of a record.

What is missing is an error, never a shorter answer.
"""

from collections.abc import Sequence
from operator import methodcaller
from typing import Any

from confluent_kafka import KafkaError, TopicPartition

from logstore.log.kafka.errors import unreadable
from logstore.log.kafka.records import Record, Timestamps
from logstore.log.read.foreign_time import foreign_time
from logstore.model.errors import LogGap, LogStoreError, LogTruncated, TopicMisconfigured
from logstore.model.skips import first_missing
from logstore.model.table import Table

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
_ERROR = methodcaller("error")


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


class Reach:
    """Reach of a reader within the range of one partition: what it wants next, and what may come in its place."""

    def __init__(self, table: Table, partition: int, start: int, end: int) -> None:
        self._table, self.partition, self._following, self._end = table, partition, start, end
        self._skips = table.skips.get(partition, ())

    @property
    def place(self) -> TopicPartition:
        """Offset at which reading goes on, as Kafka's client takes it."""
        return TopicPartition(self._table.topic, self.partition, self._following)

    @property
    def left(self) -> int:
        """Offsets that are wanted yet."""
        return self._end - self._following

    def step(self, taken: Sequence[Record], consumer: Any) -> Sequence[Record]:
        """The records below the end among what came of the partition; from then on what is behind them is wanted.

        Raises LogGap, LogTruncated, and what the consumer was refused.
        """
        records = taken
        if any(map(_ERROR, taken)) or taken[-1].offset() >= self._end:
            records = [record for record in taken if record.error() is None and record.offset() < self._end]
        if records:
            self._step_to(records)
        if len(records) < len(taken):
            errors = [record.error() for record in taken if record.error() is not None]
            self._look_at(errors, consumer, beyond=taken[-1].error() is None)
        return records

    def broker_times(self, records: Sequence[Record]) -> Sequence[int]:
        """Timestamps of records of the range.

        Raises TopicMisconfigured where a table lives by the broker's time and a writer's clock gave one of them.
        """
        timestamps = Timestamps.of(records)
        found = foreign_time(self._table, self.partition, timestamps.by_writers)
        if found is not None:
            raise TopicMisconfigured(found.detail(self._table, self.partition))
        return timestamps.times_ms

    def _step_to(self, read: Sequence[Record]) -> None:
        """Go behind these records; raises LogGap when one between is missing."""
        last = read[-1].offset()
        if last - self._following != len(read) - 1:
            for record in read:
                self._step_over(record.offset())
                self._following = record.offset() + 1
        self._following = last + 1

    def _step_over(self, upto: int) -> None:
        missing = first_missing(range(self._following, upto), self._skips)
        if missing is not None:
            table, partition = self._table, self.partition
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
        topic, partition = self._table.topic, self.partition
        if error.code() in _GONE:
            lost = f"offset {self._following:,} went from the log while it was read"
            return LogTruncated(f"{topic}/{partition}: {lost}; try again")
        return unreadable(error, topic, partition, consumer)
