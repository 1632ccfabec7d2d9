"""Holes: offsets that a log does not hand over, and why: what a repair has to know before it steps over them.

log        0 1 2 3 4 5 6 7 8 9          [start, end) is what the broker has
committed  0 1 2 . . 5 6 . 8            a consumer that reads committed records only: 3, 4, 7, 9 are holes
all        0 1 2 3 . 5 6 . 8            3 is a record of an aborted transaction; 4, 7 and 9 are markers, or lost
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, TopicPartition

from logstore.log.kafka import clients, errors, offsets
from logstore.log.kafka.records import take
from logstore.model.errors import LogUnreachable

WAIT_S = 30.0


class Hole(NamedTuple):
    """Offsets first..last, both missing. `aborted` of them hold records of aborted transactions."""

    first: int
    last: int
    aborted: int = 0

    @property
    def size(self) -> int:
        """Count of offsets in the hole."""
        return self.last - self.first + 1


class Log(NamedTuple):
    """Offsets of a partition's log. Those from `stable` on belong to open transactions."""

    start: int
    stable: int
    end: int
    holes: list[Hole]


def examine(bootstrap: str, client: Any, topic: str, partition: int, start: int, skips: list[tuple[int, int]]) -> Log:
    """Read a partition from offset `start` on and find what is missing, but for what `skips` cover.

    Raises LogUnreachable, UsageError.

    Takes about a second per million records.
    """
    everything = offsets.bounds(client, topic, [partition])[partition]
    stable = offsets.bounds(client, topic, [partition], committed=True)[partition].end
    readable = _offsets(bootstrap, topic, partition, max(start, everything.start), stable, "read_committed")
    found = [piece for hole in _missing(readable, start, stable) for piece in _outside(hole, skips)]
    return Log(
        everything.start,
        stable,
        everything.end,
        [_explained(bootstrap, topic, partition, hole, everything) for hole in found],
    )


def readable_in(bootstrap: str, topic: str, partition: int, first: int, last: int, bounds: offsets.Bounds) -> int:
    """Count of committed records that the offsets first..last hold."""
    first, end = max(first, bounds.start), min(last + 1, bounds.end)
    return sum(1 for _ in _offsets(bootstrap, topic, partition, first, end, "read_committed")) if first < end else 0


def _missing(readable: Iterator[int], start: int, end: int) -> Iterator[Hole]:
    following = start
    for offset in readable:
        if offset > following:
            yield Hole(following, offset - 1)
        following = offset + 1
    if following < end:
        yield Hole(following, end - 1)


def _outside(hole: Hole, skips: list[tuple[int, int]]) -> Iterator[Hole]:
    """The parts of a hole that no skip covers."""
    at = hole.first
    for first, last in sorted(skips):
        if first > at:
            yield from [Hole(at, min(first - 1, hole.last))] if at <= hole.last else []
        at = max(at, last + 1)
    if at <= hole.last:
        yield Hole(at, hole.last)


def _explained(bootstrap: str, topic: str, partition: int, hole: Hole, bounds: offsets.Bounds) -> Hole:
    first = max(hole.first, bounds.start)
    if first > hole.last:
        return hole
    return hole._replace(
        aborted=sum(1 for _ in _offsets(bootstrap, topic, partition, first, hole.last + 1, "read_uncommitted"))
    )


def _offsets(bootstrap: str, topic: str, partition: int, start: int, end: int, isolation: str) -> Iterator[int]:
    """The offsets of `[start, end)` that hold records, in order."""
    if start >= end:
        return
    reader = clients.consumer(bootstrap, **{"enable.partition.eof": True, "isolation.level": isolation})
    try:
        reader.assign([TopicPartition(topic, partition, start)])
        while True:
            for record in take(reader, 5_000, WAIT_S):
                if record.error() is not None and record.error().code() == KafkaError._PARTITION_EOF:
                    return
                if record.error() is not None:
                    raise _failed(record.error(), topic, partition, reader)
                if record.offset() >= end:
                    return
                yield record.offset()
    finally:
        reader.close()


def _failed(error: Any, topic: str, partition: int, reader: Any) -> Exception:
    if error.code() in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET):
        return LogUnreachable(f"{topic}/{partition}: the log was cut while it was read; try again")
    return errors.unreadable(error, topic, partition, reader)
