"""Producer: the one place that writes to Kafka through librdkafka.

Idempotent, acks=all, a bounded queue; every record goes to the
partition that its writer names: librdkafka would place it by the partition count that it has heard of.

Who runs the delivery callbacks: a thread of its own, so that a write completes although its writer does nothing; but
while somebody writes in bulk that caller polls, under a lease that keeps the thread out (two threads that hand the
interpreter lock to and fro per record cost half of the throughput). A lease ends by itself after 20 ms.
"""

import logging
import os
import threading
import warnings
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence, Set
from time import monotonic
from typing import Any, Literal, NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException

from logstore.log.after_fork import renew_in_child
from logstore.log.connect.access import Access
from logstore.log.connect.acl import topic as topic_acl
from logstore.log.connect.cluster import Cluster
from logstore.log.kafka import clients
from logstore.log.write.connection import LEASE_S, Connection, is_fatal
from logstore.log.write.delivery import delivery_error, hint, queue_full
from logstore.log.write.librdkafka import agrees_on_murmur2
from logstore.log.write.limits import (
    COMPRESSION,
    DELIVERY_TIMEOUT_S,
    GRACE_S,
    LINGER_MS,
    QUEUE_BYTES,
    QUEUE_RECORDS,
    OnFull,
)
from logstore.model.errors import (
    AccessDenied,
    LogStoreError,
    LogUnreachable,
    Unknown,
    UsageError,
    WriteDenied,
    WriteFailed,
)
from logstore.model.key import MAX_MAX_VALUE_BYTES
from logstore.model.table import RECORD_OVERHEAD_BYTES

log = logging.getLogger(__name__)

Delivered = Callable[[Any, Any], object]  # (KafkaError or None, message), called by whoever polls

_START_S = 10.0
_OF_LEADERS = {  # one request at a time: a retry would be overtaken by what came behind it
    "acks": "1", "enable.idempotence": False, "max.in.flight.requests.per.connection": 1,
}  # fmt: skip
_ABANDONED_FLUSH_S = 10.0
_LET_GO_S = 1.0  # for the reports of what was given up, and for the thread that may be in a callback
_FORKED = (
    "{} belongs to the process that this one was forked from, which alone learns what becomes of it; open one here"
)


class Rejected(NamedTuple):
    """Records of a batch that did not get into the queue: certainly not in the log."""

    places: list[range]
    error: LogStoreError


class Writer(Protocol):
    """Writer through a producer, who has to know when that ends."""

    def end(self, why: str) -> None:
        """Take no more writes."""


class Producer:
    """Writer of records; thread-safe. Close it: what is queued is lost with the process otherwise.

    A fatal error of librdkafka ends a connection, not the producer: what was on its way is Unknown, and the next write
    goes through a new one.
    """

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
        acks: Literal["all", "1"] = "all",
    ) -> None:
        """Connect. `acks="1"`: a partition's leader acknowledges alone, and retries may write twice, in their order.

        Raises LogUnreachable, AccessDenied, SetupError (partitioner), UsageError (a setting).
        """
        if on_full not in ("wait", "error"):
            raise UsageError(f'on_full is "wait" or "error", not {on_full!r}')
        self.asks_librdkafka = agrees_on_murmur2()
        self.on_full, self.queue_records, self.queue_bytes = on_full, queue_records, queue_bytes
        self.delivery_timeout_s = delivery_timeout_s
        self.patience_s = delivery_timeout_s if on_full == "wait" else 0.0
        self._bootstrap = Cluster.of(bootstrap)
        self._settings = self.settings(
            queue_records=queue_records,
            queue_bytes=queue_bytes,
            delivery_timeout_s=delivery_timeout_s,
            linger_ms=linger_ms,
            compression=compression,
        ) | (_OF_LEADERS if acks == "1" else {})
        first = Connection(self._bootstrap, self._settings)
        _await_kafka(first, bootstrap, min(_START_S, delivery_timeout_s))
        self._connections = [first]  # the last one takes writes; those before it have ended, and report what they had
        self.produce: Callable[..., None] = first.raw.produce  # straight into librdkafka: BufferError when it is full
        self._renewing, self._batch_lock = threading.Lock(), threading.Lock()
        self._largest = 0  # bytes of the largest record that may still be in the queue
        self._writers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._pid = os.getpid()
        self._abandoned = weakref.finalize(self, _abandon, self._connections)
        renew_in_child(self)

    @property
    def access(self) -> Access:
        """Refusals of Kafka that this producer has met."""
        return self._connections[-1].raw.access  # type: ignore[no-any-return]  # the client carries no types

    @staticmethod
    def settings(
        *,
        queue_records: int,
        queue_bytes: int,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
        linger_ms: float = LINGER_MS,
        compression: str = COMPRESSION,
    ) -> dict[str, Any]:
        """Settings of librdkafka's producer, but for the cluster's.

        Its names: https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md.
        """
        return {
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",  # of a record without a partition, of which there is none
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
        return sum(map(len, self._connections))

    def proved(self, topic: str) -> set[int]:
        """The partitions of a topic of which a write of this producer has come back with its offset.

        The broker knows the producer there.

        To be added to by who learns of it. Empty again after an hour, since brokers forget a producer that is silent
        for a day, and after a fatal error, since they do not know the new connection.
        """
        return self._connections[-1].proved(topic)

    def attach(self, writer: Writer) -> None:
        """Have a writer told when this producer ends."""
        self._writers.add(writer)

    def check_process(self, what: str) -> None:
        """Refuse a child process, by UsageError: what the parent has queued is the parent's."""
        if self._pid != os.getpid():
            raise UsageError(_FORKED.format(what))

    def after_fork(self) -> None:
        """Let go of the parent's connections; see `log.after_fork`."""
        self._abandoned.detach()
        for connection in self._connections:
            clients.keep_for_ever(connection.raw)
        self.produce = self._inherited
        self._end(_FORKED.format("this pipeline"))

    def _inherited(self, *_: Any, **__: Any) -> None:
        self.check_process("this producer")

    def _end(self, why: str) -> None:
        for writer in list(self._writers):
            writer.end(why)

    def send(
        self,
        topic: str,
        key: bytes,
        value: bytes | None,
        delivered: Delivered,
        partition: int,
        headers: Any = None,
        patience_s: float | None = None,
    ) -> None:
        """Queue one record, waiting up to `patience_s` (default: as `on_full` says) for room.

        Raises Overloaded (the queue is full), WriteFailed (librdkafka refuses it), WriteDenied: then it is not in the
        log.
        """
        more = {"headers": headers} if headers else {}
        patience_s = self.patience_s if patience_s is None else patience_s
        deadline = None
        while True:
            connection = self._connections[-1]
            try:
                return self.produce(topic, value, key, partition, delivered, **more)
            except BufferError:
                now = monotonic()
                if deadline is not None and now >= deadline:
                    raise queue_full() from None
                deadline = deadline or now + patience_s
                self.poll(min(0.01, max(deadline - now, 0.0)))
            except KafkaException as error:
                if not is_fatal(error.args[0]):
                    raise self._refused(error.args[0], topic) from error
                connection.poll(0.0)  # which may say why it ended
                self._renew(connection)
                if self.access.denies_writes:
                    raise WriteDenied(self.access.denial("the write was refused", topic_acl("WRITE", topic))) from error

    def send_batch(
        self,
        topic: str,
        messages: Sequence[dict[str, Any]],
        partitions: Sequence[int],
        delivered: Delivered,
        largest_bytes: int,
    ) -> Rejected | None:
        """Queue messages (`{"key", "value"[, "callback"]}`) in their order; returns what did not get in.

        `partitions`: of each; `largest_bytes`: of the largest record among them. A record whose predecessor stayed out
        is never put in after it.
        """
        with self._batch_lock:
            if not self._makes_room(len(messages), largest_bytes):
                return self._one_by_one(topic, messages, partitions, delivered, range(len(messages)))
            out: list[int] = []
            error: LogStoreError | None = None
            groups = deque(_by_partition(messages, partitions).items())
            while groups:
                partition, some = groups.popleft()
                connection = self._connections[-1]
                # librdkafka takes one partition for the whole call, and none from the messages
                if connection.raw.produce_batch(topic, some, partition, delivered) == len(some):
                    continue
                places = _places(partitions, {partition})
                refused_here = [place for place in places if "_error" in messages[place]]
                first = messages[refused_here[0]].pop("_error")
                rest = [*refused_here, *_places(partitions, {later for later, _ in groups})]
                if is_fatal(first):
                    self._renew(connection)
                    if len(rest) == len(messages):
                        return self._one_by_one(topic, messages, partitions, delivered, rest)
                    return Rejected(_ranges([*out, *rest]), error or self._refused(first, topic))
                if first.code() == KafkaError._QUEUE_FULL and refused_here == places[-len(refused_here) :]:
                    left = self._one_by_one(topic, messages, partitions, delivered, rest)
                    if left is None:
                        break
                    return Rejected(_ranges([*out, *(i for r in left.places for i in r)]), error or left.error)
                out, error = [*out, *refused_here], error or self._refused(first, topic)
            return None if error is None else Rejected(_ranges(out), error)

    def poll(self, timeout_s: float = 0.0) -> None:
        """Run the callbacks that are due, waiting up to `timeout_s` for the first.

        Takes the lease: for those who write in bulk.
        """
        self._connections[-1].poll(timeout_s)

    def release(self) -> None:
        """End the lease: the thread polls again."""
        self.check_process("this write")
        self._connections[-1].poller.release()

    def flush(self, timeout_s: float | None = None) -> int:
        """Wait until every queued record is reported.

        Returns how many are not by `timeout_s` (default: the delivery timeout).
        """
        self.check_process("this producer")
        deadline = monotonic() + (self.delivery_timeout_s + GRACE_S if timeout_s is None else timeout_s)
        for connection in list(self._connections):
            while len(connection) and (left := deadline - monotonic()) > 0:
                connection.flush(min(1.0, left))
            connection.poller.release()
        return len(self)

    def close(self, timeout_s: float | None = None) -> None:
        """Flush, then let go, by a second after `timeout_s` at most.

        Raises Unknown when records remain; their callbacks have been told before.
        """
        if self._abandoned.detach() is None:
            return
        self._end("the Store of this pipeline is closed; open a new one")
        left = self.flush(timeout_s)
        end = monotonic() + _LET_GO_S
        for connection in self._connections:
            connection.let_go(end)
        if left:
            raise Unknown(
                f"the client was closed while {left:,} writes had no acknowledgement: they may or may not be in the "
                "log; "
                "read the rows before writing them again, or close with a longer timeout"
            )

    def _refused(self, error: Any, topic: str) -> LogStoreError:
        """The typed error of a record that librdkafka did not take into its queue: certainly not in the log."""
        typed = delivery_error(error, topic, self.access)
        if isinstance(typed, Unknown):
            step = hint(error) or "write it again"
            return WriteFailed(f"the write was not sent: {error.str()}; {step}", retriable=True)
        return typed

    def _renew(self, ended: Connection) -> None:
        """Go on with a new connection after a fatal error of `ended`, whose records are reported as they stand.

        One that has nothing more to report is let go.
        """
        with self._renewing:
            if self._connections[-1] is not ended:
                return
            fresh = Connection(self._bootstrap, self._settings)
            fresh.raw.access.succeed(ended.raw.access)
            for connection in self._connections[:-1]:
                if not len(connection):
                    self._connections.remove(connection)
                    connection.poller.stop()
            self._connections.append(fresh)
            self.produce = fresh.raw.produce
            ended.give_up()
            ended.poller.release()
        log.warning(
            "Kafka's client ended over an error; writes go on with a new one, those without an answer are unknown"
        )

    def _makes_room(self, records: int, largest_bytes: int) -> bool:
        """True when `records` fit for sure.

        Half of the queue is left to those who write one by one at the same time.
        """
        if len(self) == 0:
            self._largest = 0
        self._largest = max(self._largest, largest_bytes)
        most = min(self.queue_records // 2, self.queue_bytes // (2 * self._largest + 1)) - records
        if most < 0:
            return False
        deadline = monotonic() + self.patience_s
        while len(self._connections[-1]) > most:
            left = deadline - monotonic()
            self.poll(min(0.01, max(left, 0.0)))
            if left <= 0:
                return len(self._connections[-1]) <= most
        return True

    def _one_by_one(
        self,
        topic: str,
        messages: Sequence[dict[str, Any]],
        partitions: Sequence[int],
        delivered: Delivered,
        places: Sequence[int],
    ) -> Rejected | None:
        for done, place in enumerate(places):
            message = messages[place]
            callback = message.get("callback", delivered)
            try:
                self.send(topic, message["key"], message["value"], callback, partitions[place])
            except LogStoreError as error:
                return Rejected(_ranges(places[done:]), error)
        return None


def _by_partition(messages: Sequence[dict[str, Any]], partitions: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """Partition -> its messages, in their order."""
    groups: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for message, partition in zip(messages, partitions, strict=True):
        groups[partition].append(message)
    return groups


def _places(partitions: Sequence[int], wanted: Set[int]) -> list[int]:
    """Places of the messages of some partitions, in their order."""
    return [place for place, partition in enumerate(partitions) if partition in wanted]


def _ranges(places: Iterable[int]) -> list[range]:
    """Places as ranges, as few as there can be."""
    found: list[range] = []
    for place in sorted(places):
        if found and found[-1].stop == place:
            found[-1] = range(found[-1].start, place + 1)
        else:
            found.append(range(place, place + 1))
    return found


def _await_kafka(connection: Connection, bootstrap: str, timeout_s: float) -> None:
    """Return when Kafka answers. Raises LogUnreachable, AuthenticationFailed."""
    try:
        clients.metadata(connection.raw, timeout_s)
    except AccessDenied:
        connection.poller.stop()
        raise
    except KafkaException as error:
        connection.poller.stop()
        raise LogUnreachable(
            f"Kafka does not answer at {bootstrap}: {error.args[0].str()}; is it running, is the address right?"
        ) from error


def _abandon(connections: list[Connection]) -> None:
    """Best effort for a producer nobody closed: at the latest when the interpreter ends."""
    left = 0
    for connection in connections:
        if threading.current_thread() is connection.poller:
            # the last report let go of the producer: nothing is on its way but what nobody holds a future of
            left += len(connection)
        else:
            connection.poller.lease_until = monotonic() + LEASE_S + _ABANDONED_FLUSH_S
            left += connection.flush(_ABANDONED_FLUSH_S)
        connection.poller.stop()
    lost = f"; {left:,} writes are unknown" if left else ""
    warnings.warn(f"a logstore Store was not closed: use `with`, or call close(){lost}", ResourceWarning, stacklevel=2)
