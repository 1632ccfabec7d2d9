"""Records of a log as they are read: in whole batches, and exactly those of a range."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, TopicPartition

from logstore.log.kafka.clients import check_access, consumer
from logstore.log.kafka.errors import unreadable
from logstore.model.errors import LogGap, LogStoreError, LogTruncated, LogUnreachable


class Record(Protocol):
    """A record as librdkafka hands it over (confluent_kafka.Message, which carries no types)."""

    def error(self) -> Any: ...  # noqa: D102 - librdkafka documents it
    def topic(self) -> str: ...  # noqa: D102 - librdkafka documents it
    def partition(self) -> int: ...  # noqa: D102 - librdkafka documents it
    def offset(self) -> int: ...  # noqa: D102 - librdkafka documents it
    def key(self) -> bytes | None: ...  # noqa: D102 - librdkafka documents it
    def value(self) -> bytes | None: ...  # noqa: D102 - librdkafka documents it
    def headers(self) -> list[tuple[str, bytes | None]] | None: ...  # noqa: D102 - librdkafka documents it
    def timestamp(self) -> tuple[int, int]: ...  # noqa: D102 - librdkafka documents it
    def leader_epoch(self) -> int | None: ...  # noqa: D102 - librdkafka documents it


class Timestamps(NamedTuple):
    """Timestamps of records, in their order. `by_writers`: offsets of those that Kafka took over from a writer's clock.

    None of them but where `message.timestamp.type` of the topic was not LogAppendTime.
    """

    times_ms: Sequence[int]
    by_writers: Sequence[int]

    @classmethod
    def of(cls, records: Sequence[Record]) -> "Timestamps":
        """Timestamps of some records."""
        found = [record.timestamp() for record in records]
        times_ms = [time_ms for _, time_ms in found]
        if all([kind == TIMESTAMP_LOG_APPEND_TIME for kind, _ in found]):  # noqa: C419 - a list is quicker, and this is every record's way
            return cls(times_ms, ())
        own = [one.offset() for one, (kind, _) in zip(records, found, strict=True) if kind != TIMESTAMP_LOG_APPEND_TIME]
        return cls(times_ms, own)


def read_records(
    bootstrap: str, topic: str, partition: int, start: int, end: int, timeout_s: float = 30.0
) -> Iterator[Record]:
    """Every record of `[start, end)`, in order.

    Raises LogTruncated when the log begins later, LogGap when an offset is missing, LogUnreachable when nothing comes
    for `timeout_s`.
    """
    reader = consumer(bootstrap, **{"enable.partition.eof": True})
    try:
        reader.assign([TopicPartition(topic, partition, start)])
        following = start
        while following < end:
            for record in take(reader, min(1_000, end - following), timeout_s):
                if record.error():
                    raise _read_error(record.error(), reader, topic, partition, following, end)
                if record.offset() != following:
                    raise LogGap(
                        f"{topic}/{partition}: wanted offset {following:,}, the log has {record.offset():,} next"
                    )
                following += 1
                yield record
    finally:
        reader.close()


def take(reader: Any, most: int, timeout_s: float) -> list[Record]:
    """Wait for the first record, then take whatever else is there: low latency and whole batches.

    Raises LogUnreachable when nothing, not even an end of partition, comes for `timeout_s`.
    """
    first = reader.poll(timeout_s)
    if first is None:
        check_access(reader)
        raise LogUnreachable(
            f"nothing came from Kafka for {timeout_s:g} s; is the broker running?{reader.access.without_proof}"
        )
    return [first, *reader.consume(most - 1, 0)] if most > 1 else [first]


def _read_error(error: Any, reader: Any, topic: str, partition: int, at: int, end: int) -> LogStoreError:
    where = f"{topic}/{partition}"
    if error.code() == KafkaError._PARTITION_EOF:
        return LogGap(f"{where}: the log ends at {at:,}, wanted everything before {end:,}")
    if error.code() in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET):
        return LogTruncated(f"{where}: offset {at:,} is gone from the log")
    return unreadable(error, topic, partition, reader)
