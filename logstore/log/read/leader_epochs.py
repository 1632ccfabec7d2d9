"""Leader epochs (KIP-101): every record carries the number of the leadership under which it was appended.

They never fall along a log. A log that lost its end goes on under a later epoch, so where each epoch begins tells which
positions the log contradicts: those behind that place whose last record is of an earlier epoch.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, TopicPartition

from logstore.log.kafka import clients, errors, offsets
from logstore.log.kafka.records import take
from logstore.model.record_identity import RecordIdentity, identify

WAIT_S = 30.0
_SETTINGS = {
    "enable.partition.eof": True,
    "isolation.level": "read_uncommitted",
    "fetch.wait.max.ms": 20,
    "queued.min.messages": 1,
    "queued.max.messages.kbytes": 1_024,
}
_GONE = {KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION}


class FoundRecord(NamedTuple):
    """A record that the log holds."""

    identity: RecordIdentity
    leader_epoch: int  # -1: the log does not tell


def records_from(bootstrap: str, topic: str, starts: Mapping[int, int]) -> dict[int, FoundRecord]:
    """Partition -> the first record at or behind an offset; those whose log has none there are absent.

    Raises LogUnreachable, UsageError.
    """
    reader = clients.consumer(bootstrap, **_SETTINGS)
    try:
        return dict(_first_records(reader, topic, starts))
    finally:
        reader.close()


def epoch_starts(bootstrap: str, client: Any, topic: str, partition: int) -> list[tuple[int, int]]:
    """Beginnings of leader epochs: (offset, epoch) of the first record of each that the log holds, and of the next one.

    Found by bisection: some 20 reads an epoch. Raises LogUnreachable.
    """
    bounds = offsets.bounds(client, topic, [partition])[partition]
    reader = clients.consumer(bootstrap, **_SETTINGS)

    def first_from(offset: int) -> FoundRecord | None:
        return dict(_first_records(reader, topic, {partition: offset})).get(partition)

    try:
        found: list[tuple[int, int]] = []
        at = first_from(bounds.start)
        while at is not None:
            found.append((at.identity.offset, at.leader_epoch))
            at = _next_epoch(first_from, at, bounds.end)
    finally:
        reader.close()
    leader = offsets.leader_epoch(client, topic, partition)
    return found if found and found[-1][1] >= leader else [*found, (bounds.end, leader)]


def _next_epoch(first_from: Any, known: FoundRecord, end: int) -> FoundRecord | None:
    """The first record of a later epoch than that of `known`."""
    low, high, best = known.identity.offset + 1, end, None
    while low < high:
        middle = (low + high) // 2
        found = first_from(middle)
        if found is None or found.leader_epoch > known.leader_epoch:
            high, best = middle, found or best
        else:
            low = found.identity.offset + 1
    return best


def _first_records(reader: Any, topic: str, starts: Mapping[int, int]) -> Iterator[tuple[int, FoundRecord]]:
    reader.assign([TopicPartition(topic, partition, offset) for partition, offset in starts.items()])
    left = set(starts)
    while left:
        for record in take(reader, 1, WAIT_S):
            error, partition = record.error(), record.partition()
            if error is not None and error.code() not in {KafkaError._PARTITION_EOF, *_GONE}:
                raise errors.unreadable(error, topic, partition, reader)
            if partition not in left:
                continue
            left.discard(partition)
            reader.incremental_unassign([TopicPartition(topic, partition)])
            if error is None:
                epoch = record.leader_epoch()
                identity = identify(record.offset(), record.timestamp()[1], record.key(), record.value())
                yield partition, FoundRecord(identity, -1 if epoch is None else int(epoch))
