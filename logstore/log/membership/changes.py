"""Changes: follows the two small topics that tell what the store is: `logstore.tables` and `logstore.nodes`."""

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, TopicPartition

from logstore.log.connect.acl import topic
from logstore.log.kafka import clients, offsets
from logstore.log.kafka.errors import unreadable
from logstore.log.membership.nodes import Announcement, Nodes
from logstore.log.tables.registry import EMPTY
from logstore.model.errors import AccessDenied, LogTruncated, LogUnreachable
from logstore.model.table import NODES_TOPIC, TABLES_TOPIC

log = logging.getLogger(__name__)


class Changes:
    """Definitions and announcements, as of now. One thread only."""

    def __init__(self, bootstrap: str, *, begins_at_end: bool = True) -> None:
        """`begins_at_end`: what was announced before is judged once it is read; else whoever reads begins `nodes`."""
        self._begins_at_end, self._bootstrap = begins_at_end, bootstrap
        self._consumer = clients.consumer(
            bootstrap, **{"enable.partition.eof": True, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 100}
        )
        self._consumer.assign([TopicPartition(TABLES_TOPIC, 0, 0), TopicPartition(NODES_TOPIC, 0, 0)])
        self.definitions = EMPTY
        self.nodes = Nodes()
        self.complete = False  # all that was there at the first look has been read
        self.heard_to = {TABLES_TOPIC: 0, NODES_TOPIC: 0}  # next offsets
        self._to_read = {TABLES_TOPIC, NODES_TOPIC}
        self._ends: dict[
            str, int
        ] = {}  # of their logs at the first look; while others write there may be no last record

    def take(self, timeout_s: float) -> bool:
        """Take in what has come, waiting up to `timeout_s` for it; True when there was something.

        Raises LogTruncated when `logstore.tables` ends before what was read already: librdkafka begins anew then, or
        stands at the end. Raises AccessDenied, as often as Kafka says so; it may be called again.
        """
        first = self._consumer.poll(timeout_s)
        if first is None:
            return False
        ends = self._first_ends() if self._to_read else {}
        for record in [first, *self._consumer.consume(1_000, 0)]:
            if record.error() is None:
                self._hear(record)
                if self.heard_to[record.topic()] >= ends.get(record.topic(), math.inf):
                    self._read_whole(record.topic())
            elif record.error().code() == KafkaError._PARTITION_EOF:
                self._at_end(record)
            else:
                self._check_access(record)
        return True

    def close(self) -> None:
        """Let the connection go."""
        self._consumer.close()

    def _hear(self, record: Any) -> None:
        self._check(record)
        self.heard_to[record.topic()] = record.offset() + 1
        if record.topic() == TABLES_TOPIC:
            self.definitions = self.definitions.with_record(record)
        else:
            self.nodes.hear(record.key(), record.value(), record.timestamp()[1])

    def _check_access(self, record: Any) -> None:
        """Raise AccessDenied for an error that is one; librdkafka goes on by itself after the others."""
        typed = unreadable(record.error(), record.topic() or TABLES_TOPIC, 0, self._consumer)
        if isinstance(typed, AccessDenied):
            raise typed

    def _check(self, record: Any) -> None:
        known = self.heard_to[record.topic()]
        if record.topic() == TABLES_TOPIC and record.offset() < known:
            raise LogTruncated(
                f"{TABLES_TOPIC} was cut back under a running node: it is at {record.offset():,}, this node has read "
                f"up to {known:,}; "
                "restore the topic, or begin anew with another --data-dir"
            )

    def _at_end(self, record: Any) -> None:
        self._check(record)
        self._read_whole(record.topic())

    def _read_whole(self, topic: str) -> None:
        self._to_read.discard(topic)
        if self._begins_at_end and topic == NODES_TOPIC:
            self.nodes.begin()
        self.complete = not self._to_read

    def _first_ends(self) -> dict[str, int]:
        """Ends of both topics' logs when first asked for; empty while Kafka does not tell."""
        if not self._ends:
            try:
                found = offsets.ends(clients.admin(self._bootstrap), [(topic, 0) for topic in self.heard_to])
            except LogUnreachable:  # the consumer too says when it comes to an end
                return {}
            self._ends = {topic: end for (topic, _), end in found.items()}
        return self._ends


class AnnouncedAt(NamedTuple):
    """Time that a broker gave an announcement, and when that was sent, by the announcer's clock."""

    broker_ms: int
    sent_ns: int


class Announcer:
    """Announcements of a worker to all others. Losing one is harmless: the next one follows within a second."""

    def __init__(self, bootstrap: str, clock_ns: Callable[[], int]) -> None:
        """`clock_ns`: a clock that is never set, by which the brokers' time is dated."""
        self._clock_ns = clock_ns
        self.acknowledged: AnnouncedAt | None = None  # the newest announcement that a broker dated
        own = {"linger.ms": 0, "message.timeout.ms": 5_000, "queue.buffering.max.messages": 100}
        self._producer: Any = clients.producer(bootstrap, **own)
        self._denied = False

    def announce(self, announcement: Announcement) -> None:
        """Send an announcement on its way."""
        self._send(announcement.key, announcement.to_json())

    def retire(self, announcement: Announcement) -> None:
        """Say that this worker is gone, and wait for it to be heard (up to 3 s)."""
        self._send(announcement.key, None)
        self._producer.flush(3)

    def hear(self) -> None:
        """Take in what the brokers have said of announcements meanwhile."""
        self._producer.poll(0)

    def _send(self, key: bytes, value: bytes | None) -> None:
        self.hear()
        if len(self._producer) < 50:  # Kafka is away: what waits is out of date anyway
            noted = partial(self._note_delivery, self._clock_ns())
            self._producer.produce(NODES_TOPIC, value, key, on_delivery=noted)

    def _note_delivery(self, sent_ns: int, error: Any, record: Any) -> None:
        """Keep the broker's time; say once that Kafka takes none, however long it stays so."""
        if error is None:
            kind, time_ms = record.timestamp()
            if kind == TIMESTAMP_LOG_APPEND_TIME:  # else it is this machine's own
                self.acknowledged = AnnouncedAt(time_ms, sent_ns)
        acl = None if error is None else self._producer.access.lacks(error.code(), topic("WRITE", NODES_TOPIC))
        if acl is not None and not self._denied:
            log.error("%s; nobody hears of this worker", self._producer.access.denial("announce this worker", acl))
        self._denied = acl is not None
