"""Tail: follows partitions of many topics from given offsets, for ever, and hands over whole batches as columns.

librdkafka fetches, checks and decompresses on its own threads; memory is bounded by `queued_kbytes`, whatever the
backlog. Neither its `position()` nor its end-of-partition event is a position of ours: both step over transaction
markers silently.
"""

import contextlib
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import methodcaller
from typing import Any, Literal, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from logstore.log.kafka import clients, offsets
from logstore.log.kafka.errors import unreadable
from logstore.log.kafka.records import Record, Timestamps
from logstore.model.errors import AccessDenied
from logstore.model.folding.fold import Records
from logstore.model.folding.mutation import RESERVED, Headers

INTRODUCE_S = 1.0
BOUNDS_S = 2.0
MOST_RECORDS = 10_000  # of one take: some 30 ms of work, and the size of a commit under load
UNREADABLE: Headers = (
    (RESERVED, None),
)  # stands for headers of which a name is not UTF-8: quarantined as an unknown header


class FetchedBatch(NamedTuple):
    """Records of one partition, in order. `by_writers`: as of `Timestamps`."""

    topic: str
    partition: int
    records: Records
    leader_epoch: int
    by_writers: Sequence[int] = ()


class End(NamedTuple):
    """End of the log for now: everything committed below `offset` has been handed over."""

    topic: str
    partition: int
    offset: int


class Trouble(NamedTuple):
    """The partition cannot be followed from where it stands, and has been let go."""

    topic: str
    partition: int
    word: Literal["truncated", "no-topic", "failed"]
    detail: str


class Unreachable(NamedTuple):
    """No broker answers; the tail tries again by itself."""

    detail: str


# A call from C, whose result CPython checks: the client hands out a list and leaves the error of an undecodable name
# behind: a loop that is
# specialised for `record.headers()` would raise it somewhere later.
_HEADERS = methodcaller("headers")

Event = FetchedBatch | End | Trouble | Unreachable

_TRUNCATED = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION}
_NO_TOPIC = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_ID,
}
_PASSING = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._MAX_POLL_EXCEEDED,
}


class Tail:
    """A consumer with manual assignment. One thread only."""

    def __init__(self, bootstrap: str, *, group: str, queued_kbytes: int = 32_768) -> None:
        """`group` receives applied positions for information; `queued_kbytes` bounds what is fetched ahead."""
        self._bootstrap, self._followed = bootstrap, set[tuple[str, int]]()
        self._introduced: set[str] = set()
        self._consumer = clients.consumer(
            bootstrap,
            **{
                "group.id": group,
                "enable.partition.eof": True,
                "queued.min.messages": 100_000,
                "queued.max.messages.kbytes": queued_kbytes,
                "fetch.message.max.bytes": 4 << 20,
                "fetch.max.bytes": 16 << 20,
                "fetch.wait.max.ms": 100,  # a partition that is new waits for the fetch under way to come back
            },
        )

    def follow(self, topic: str, partition: int, offset: int, leader_epoch: int = -1) -> None:
        """Follow a partition from `offset` on.

        `leader_epoch` is that of the record before, by which Kafka tells whether the log was cut back since.
        """
        known: dict[str, Any] = {"leader_epoch": leader_epoch} if leader_epoch >= 0 else {}
        where = TopicPartition(topic, partition, offset, **known)
        self._consumer.incremental_assign([where])
        self._followed.add((topic, partition))
        self._introduce(topic)

    def _introduce(self, topic: str) -> None:
        """Ask for a topic's leaders at once: left alone, librdkafka looks for those of a new topic once a second."""
        if topic not in self._introduced:
            self._introduced.add(topic)
            with contextlib.suppress(KafkaException):  # it goes on trying by itself
                self._consumer.list_topics(topic, timeout=INTRODUCE_S)

    def follows(self, topic: str, partition: int) -> bool:
        """False once it was left: what one `take` brought may still hold events of it."""
        return (topic, partition) in self._followed

    def leave(self, topic: str, partition: int) -> None:
        """Stop following, if it is followed; what was fetched ahead is dropped."""
        if (topic, partition) in self._followed:
            self._followed.remove((topic, partition))
            self._consumer.incremental_unassign([TopicPartition(topic, partition)])

    def take(self, timeout_s: float) -> list[Event]:
        """Records that have come: waits for the first, then takes whatever else is there; empty after `timeout_s`."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        records: list[Record] = [first, *self._consumer.consume(MOST_RECORDS - 1, 0)]
        if not any([record.error() for record in records]):  # noqa: C419 - a list is quicker, and this is every record's way
            return _batches(records)
        return [event for event in self._events(records) if event is not None]

    def end(self, topic: str, partition: int) -> int:
        """The end of the log as the last fetch told it, transaction markers and open transactions included.

        -1 before the first.
        """
        try:
            bounds = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        except KafkaException:
            return -1
        return int(bounds[1]) if bounds else -1

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Offsets `[start, end)` that the log holds, asked now. Raises LogUnreachable."""
        start, end = offsets.bounds(clients.admin(self._bootstrap), topic, [partition], timeout_s=BOUNDS_S)[partition]
        return start, end

    def announce(self, positions: Iterable[tuple[str, int, int]]) -> None:
        """Commit (topic, partition, next offset) to the group, so that Kafka's lag tools see them.

        Nothing depends on it.
        """
        places = [TopicPartition(*position) for position in positions]
        if places:
            self._consumer.commit(offsets=places, asynchronous=True)

    def close(self) -> None:
        """Let the connections go."""
        self._consumer.close()

    def _events(self, records: list[Record]) -> Iterable[Event | None]:
        """Batches and what stands between them, in the order they came."""
        for failed, run in groupby(records, key=lambda record: record.error() is not None):
            same = list(run)
            yield from map(self._event, same) if failed else _batches(same)

    def _event(self, record: Record) -> Event | None:
        error = record.error()
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            return End(record.topic(), record.partition(), record.offset())
        if code in _PASSING:
            return Unreachable(error.str())
        word: Literal["truncated", "no-topic", "failed"] = (
            "truncated" if code in _TRUNCATED else "no-topic" if code in _NO_TOPIC else "failed"
        )
        if record.topic() is None or record.partition() is None or record.partition() < 0:
            return Unreachable(error.str())
        return Trouble(
            record.topic(), record.partition(), word, self._detail(error, record.topic(), record.partition())
        )

    def _detail(self, error: Any, topic: str, partition: int) -> str:
        typed = unreadable(error, topic, partition, self._consumer)
        return str(typed) if isinstance(typed, AccessDenied) else f"{error.str()} ({error.name()})"


def _batches(records: list[Record]) -> list[Event]:
    """Group records by partition; each partition's stay in order."""
    groups: dict[tuple[str, int], list[Record]] = {}
    for where, run in groupby(records, key=_where):
        groups.setdefault(where, []).extend(run)
    return [_batch(where, group) for where, group in groups.items()]


def _batch(where: tuple[str, int], records: Sequence[Record]) -> FetchedBatch:
    timestamps = Timestamps.of(records)
    columns = columns_of(records, timestamps.times_ms)
    return FetchedBatch(*where, columns, _leader_epoch(records[-1]), timestamps.by_writers)


def _where(record: Record) -> tuple[str, int]:
    return record.topic(), record.partition()


def columns_of(records: Sequence[Record], times_ms: Sequence[int]) -> Records:
    """Records of one partition as columns, with their timestamps. Requires: as `headers_of`."""
    return Records(
        [record.offset() for record in records],
        [record.key() for record in records],
        [record.value() for record in records],
        times_ms,
        headers_of(records),
    )


def headers_of(records: Sequence[Record]) -> list[Headers | None]:
    """The headers of each record.

    UNREADABLE where a name is not UTF-8. Requires: they have not been asked for before.
    """
    found: list[Headers | None] = []
    for record in records:
        try:
            found.append(_HEADERS(record))
        except SystemError:  # the client decodes names strictly; asked a second time it would hand out null pointers
            found.append(UNREADABLE)
    return found


def _leader_epoch(record: Any) -> int:
    epoch = record.leader_epoch()
    return -1 if epoch is None else int(epoch)
