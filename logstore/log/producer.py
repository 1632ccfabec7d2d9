"""Producer: the one place that writes to Kafka through librdkafka.

Idempotent, acks=all, Java's partitioner, a bounded queue.

Who runs the delivery callbacks: a thread of its own, so that a write completes although its writer does nothing; but
while somebody writes in bulk that caller polls, under a lease that keeps the thread out (two threads that hand the
interpreter lock to and fro per record cost half of the throughput). A lease ends by itself after 20 ms.
"""

import threading
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Literal, NamedTuple

import confluent_kafka
from confluent_kafka import KafkaException

from logstore.log.delivery import delivery_error, queue_full
from logstore.log.librdkafka import agrees_on_murmur2
from logstore.model.errors import LogStoreError, LogUnreachable, Unknown, UsageError, WriteFailed
from logstore.model.table import MAX_MAX_VALUE_BYTES, RECORD_OVERHEAD_BYTES

OnFull = Literal["wait", "error"]
Delivered = Callable[[Any, Any], object]  # (KafkaError or None, message), called by whoever polls

QUEUE_RECORDS = 200_000
QUEUE_BYTES = 256 * 1024 * 1024
DELIVERY_TIMEOUT_S = 60.0  # after a broker change an idempotent producer can wait 10 s for its coordinator
LINGER_MS = 0.5  # how long librdkafka waits for company for a record
COMPRESSION = "lz4"
GRACE_S = 5.0  # beyond the delivery timeout, for librdkafka to report it
_START_S = 10.0
_LEASE_S = 0.02
_IDLE_POLL_S = 0.1
_ABANDONED_FLUSH_S = 10.0
_PROVED_S = 3_600.0


class Rejected(NamedTuple):
    """Records of a batch that did not get into the queue: certainly not in the log."""

    places: list[range]
    error: LogStoreError


class Producer:
    """Writes records; thread-safe. Close it: what is queued is lost with the process otherwise."""

    def __init__(
        self,
        bootstrap: str,
        *,
        on_full: OnFull = "wait",
        queue_records: int = QUEUE_RECORDS,
        queue_bytes: int = QUEUE_BYTES,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
        linger_ms: float = LINGER_MS,
        compression: str = COMPRESSION,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Connect; `extra` are further librdkafka settings (security).

        Raises LogUnreachable, SetupError (partitioner), UsageError (a setting).
        """
        if on_full not in ("wait", "error"):
            raise UsageError(f'on_full is "wait" or "error", not {on_full!r}')
        self.asks_librdkafka = agrees_on_murmur2()
        self.on_full, self.queue_records, self.queue_bytes = on_full, queue_records, queue_bytes
        self.delivery_timeout_s = delivery_timeout_s
        self._patience_s = delivery_timeout_s if on_full == "wait" else 0.0
        settings = self.settings(
            bootstrap,
            queue_records=queue_records,
            queue_bytes=queue_bytes,
            delivery_timeout_s=delivery_timeout_s,
            linger_ms=linger_ms,
            compression=compression,
            extra=extra,
        )
        self._raw = _connect(settings, bootstrap)
        self._poller = _Poller(self._raw)
        self._proved: dict[str, tuple[float, set[int]]] = {}
        self._batch_lock = threading.Lock()
        self._largest = 0  # bytes of the largest record that may still be in the queue
        self._abandoned = weakref.finalize(self, _abandon, self._raw, self._poller)
        self.produce: Callable[..., None] = (
            self._raw.produce
        )  # straight into librdkafka: BufferError when the queue is full

    @staticmethod
    def settings(
        bootstrap: str,
        *,
        queue_records: int,
        queue_bytes: int,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
        linger_ms: float = LINGER_MS,
        compression: str = COMPRESSION,
        extra: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Settings of librdkafka's producer.

        Its names: https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md.
        """
        return {
            **(extra or {}),
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "message.max.bytes": MAX_MAX_VALUE_BYTES + RECORD_OVERHEAD_BYTES,
            "linger.ms": linger_ms,
            "compression.type": compression,
            "delivery.timeout.ms": int(delivery_timeout_s * 1000),
            "request.timeout.ms": int(min(30.0, delivery_timeout_s) * 1000),
            "queue.buffering.max.messages": queue_records,
            "queue.buffering.max.kbytes": max(1, queue_bytes // 1024),
            "topic.metadata.propagation.max.ms": 5_000,  # then a topic that is not there is an error of the write
            "topic.metadata.refresh.interval.ms": 10_000,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1_000,
            "log_level": 2,  # outages come back as errors of the writes; the log would say them a second time
        }

    def __len__(self) -> int:
        """Records not yet acknowledged or reported as failed."""
        return len(self._raw)

    def proved(self, topic: str) -> set[int]:
        """The partitions of a topic of which a write of this producer has come back with its offset.

        The broker knows the producer there.

        To be added to by who learns of it. Empty again after an hour: brokers forget a producer that is silent for a
        day.
        """
        now_s = monotonic()
        used_s, partitions = self._proved.get(topic, (now_s, set()))
        self._proved[topic] = now_s, partitions if now_s - used_s < _PROVED_S else set()
        return self._proved[topic][1]

    def send(
        self,
        topic: str,
        key: bytes,
        value: bytes | None,
        delivered: Delivered,
        partition: int = -1,
        headers: Any = None,
        patience_s: float | None = None,
    ) -> None:
        """Queue one record, waiting up to `patience_s` (default: as `on_full` says) for room.

        Raises Overloaded (the queue is full), WriteFailed (librdkafka refuses it): then it is not in the log.
        """
        more = {"headers": headers} if headers else {}
        patience_s = self._patience_s if patience_s is None else patience_s
        deadline = None
        while True:
            try:
                return self.produce(topic, value, key, partition, delivered, **more)
            except BufferError:
                now = monotonic()
                if deadline is not None and now >= deadline:
                    raise queue_full() from None
                deadline = deadline or now + patience_s
                self.poll(min(0.01, max(deadline - now, 0.0)))
            except KafkaException as error:
                raise refused(error) from error

    def send_batch(
        self, topic: str, messages: Sequence[dict[str, Any]], delivered: Delivered, largest_bytes: int
    ) -> Rejected | None:
        """Queue messages (`{"key", "value"[, "partition"][, "callback"]}`) in their order; returns what did not get in.

        `largest_bytes`: of the largest record among them. A record whose predecessor stayed out is never put in after
        it.
        """
        with self._batch_lock:
            if not self._makes_room(len(messages), largest_bytes):
                return self._one_by_one(topic, messages, delivered, 0)
            queued = self._raw.produce_batch(topic, messages, -1, delivered)
            if queued == len(messages):
                return None
            out = [i for i, message in enumerate(messages) if "_error" in message]
            first = messages[out[0]].pop("_error")
            if out != list(range(out[0], len(messages))) or first.code() != confluent_kafka.KafkaError._QUEUE_FULL:
                return Rejected([range(i, i + 1) for i in out], delivery_error(first))
            return self._one_by_one(topic, messages, delivered, out[0])

    def poll(self, timeout_s: float = 0.0) -> None:
        """Run the callbacks that are due, waiting up to `timeout_s` for the first.

        Takes the lease: for those who write in bulk.
        """
        self._poller.lease_until = monotonic() + _LEASE_S + timeout_s
        self._raw.poll(timeout_s)

    def release(self) -> None:
        """End the lease: the thread polls again."""
        self._poller.release()

    def flush(self, timeout_s: float | None = None) -> int:
        """Wait until every queued record is reported.

        Returns how many are not by `timeout_s` (default: the delivery timeout).
        """
        deadline = monotonic() + (self.delivery_timeout_s + GRACE_S if timeout_s is None else timeout_s)
        while len(self._raw) and (left := deadline - monotonic()) > 0:
            self._poller.lease_until = monotonic() + _LEASE_S + 1.0
            self._raw.flush(min(1.0, left))
        self.release()
        return len(self._raw)

    def close(self, timeout_s: float | None = None) -> None:
        """Flush, then let go. Raises Unknown when records remain; their callbacks have been told before."""
        if self._abandoned.detach() is None:
            return
        left = self.flush(timeout_s)
        if left:
            self._raw.purge()
            self._raw.flush(1.0)
        self._poller.stop()
        if left:
            raise Unknown(
                f"the client was closed while {left:,} writes had no acknowledgement: they may or may not be in the "
                "log; "
                "read the rows before writing them again, or close with a longer timeout"
            )

    def _makes_room(self, records: int, largest_bytes: int) -> bool:
        """True when `records` fit for sure.

        Half of the queue is left to those who write one by one at the same time.
        """
        if len(self._raw) == 0:
            self._largest = 0
        self._largest = max(self._largest, largest_bytes)
        most = min(self.queue_records // 2, self.queue_bytes // (2 * self._largest + 1)) - records
        if most < 0:
            return False
        deadline = monotonic() + self._patience_s
        while len(self._raw) > most:
            left = deadline - monotonic()
            self.poll(min(0.01, max(left, 0.0)))
            if left <= 0:
                return len(self._raw) <= most
        return True

    def _one_by_one(
        self, topic: str, messages: Sequence[dict[str, Any]], delivered: Delivered, start: int
    ) -> Rejected | None:
        for i in range(start, len(messages)):
            message = messages[i]
            callback = message.get("callback", delivered)
            try:
                self.send(topic, message["key"], message["value"], callback, message.get("partition", -1))
            except LogStoreError as error:
                return Rejected([range(i, len(messages))], error)
        return None


class _Poller(threading.Thread):
    """Runs callbacks while nobody holds the lease.

    Knows the raw producer only, so that an abandoned `Producer` can be collected.
    """

    def __init__(self, raw: Any) -> None:
        super().__init__(name="logstore-producer", daemon=True)
        self._raw, self._wake, self._stopped = raw, threading.Event(), False
        self.lease_until = 0.0
        self.start()

    def run(self) -> None:
        while not self._stopped:
            left = self.lease_until - monotonic()
            if left > 0:
                self._wake.wait(left)
                self._wake.clear()
            else:
                self._raw.poll(_IDLE_POLL_S)

    def release(self) -> None:
        self.lease_until = 0.0
        self._wake.set()

    def stop(self) -> None:
        self._stopped = True
        self.release()
        if threading.current_thread() is not self:
            self.join(_IDLE_POLL_S + GRACE_S)


def refused(error: KafkaException) -> LogStoreError:
    """The typed error of a record that librdkafka did not take into its queue: certainly not in the log."""
    typed = delivery_error(error.args[0])
    if isinstance(typed, Unknown):
        return WriteFailed(
            f"the write was not queued: {error.args[0].str()}; open a new Store and write it again", retriable=True
        )
    return typed


def _connect(settings: dict[str, Any], bootstrap: str) -> Any:
    try:
        raw = confluent_kafka.Producer(settings)
    except KafkaException as error:
        raise UsageError(f"Kafka's client refuses a setting: {error.args[0].str()}") from error
    try:
        raw.list_topics(timeout=_START_S)
    except KafkaException as error:
        raise LogUnreachable(
            f"Kafka does not answer at {bootstrap}: {error.args[0].str()}; is it running, is the address right?"
        ) from error
    return raw


def _abandon(raw: Any, poller: _Poller) -> None:
    """Best effort for a producer nobody closed: at the latest when the interpreter ends."""
    if threading.current_thread() is poller:
        left = len(
            raw
        )  # the last report let go of the producer: nothing is on its way but what nobody holds a future of
    else:
        poller.lease_until = monotonic() + _ABANDONED_FLUSH_S
        left = raw.flush(_ABANDONED_FLUSH_S)
    poller.stop()
    lost = f"; {left:,} writes are unknown" if left else ""
    warnings.warn(f"a logstore Store was not closed: use `with`, or call close(){lost}", ResourceWarning, stacklevel=2)
