"""The door to Kafka: connections with the settings this store relies on, and types for what comes back."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import TopicCollection as _TopicCollection
from confluent_kafka.admin import AdminClient, OffsetSpec
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

from logstore.log.after_fork import keep_for_ever, renew_in_child
from logstore.log.connect.access import Access
from logstore.log.connect.cluster import Cluster
from logstore.model.errors import (
    AccessDenied,
    AuthenticationFailed,
    LogGap,
    LogStoreError,
    LogTruncated,
    LogUnreachable,
    UsageError,
)

REQUEST_S = 10.0
_PROOF_S = 2.0
_LOOK_S = 0.5  # in which a refusal is noticed
_ENDS_S = 5.0  # what is asked every second
_MOST_CLIENTS = 8  # clusters
_T = TypeVar("_T")

_UNREACHABLE = {
    KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._WAIT_COORD, KafkaError.REQUEST_TIMED_OUT, KafkaError.NETWORK_EXCEPTION, KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.BROKER_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
}  # fmt: skip


_STALE = {
    KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError._NOENT,  # a broker that has just started leads nothing yet
}  # fmt: skip


_LACKING = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "its consumer group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "the cluster, which a writer has through WRITE on its topic",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "the transactional id",
}


# Producers and admin clients make a topic by asking for it, where brokers let them: writes to a table that was dropped
# would be acknowledged, and be nobody's.
MAKES_NO_TOPICS = {"allow.auto.create.topics": False}


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


_EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # untyped library
_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # untyped library


class Bounds(NamedTuple):
    """Offsets `[start, end)` that a partition's log holds."""

    start: int
    end: int


def consumer(bootstrap: str, **more: Any) -> Any:
    """A consumer without group or commits; an offset that is gone is an error for it, not a reason to jump."""
    return _made(
        _Consumer,
        bootstrap,
        {
            "group.id": "logstore",  # librdkafka wants one; nothing is subscribed or committed
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "check.crcs": True,
            # the default of a second leaves a fast reader idle most of the time: 6 times slower
            "fetch.queue.backoff.ms": 2,
            "topic.metadata.refresh.interval.ms": 10_000,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1_000,
            "log_level": 2,  # connections come and go; what matters reaches us as errors
            **more,
        },
    )


def producer(bootstrap: str, **own: Any) -> Any:
    """A producer of librdkafka, with the properties `own`, that makes no topics by asking for them."""
    return _made(_Producer, bootstrap, {"log_level": 2, **MAKES_NO_TOPICS, **own})


def admin(bootstrap: str) -> Any:
    """The process's admin client for a cluster; thread-safe.

    One is kept: of fresh ones every fiftieth waits 3 s before it asks for the offsets of a topic, whose leaders it has
    to find out first.
    """
    return _clients.get(bootstrap)


class _Clients:
    """Admin clients of this process, by cluster."""

    def __init__(self) -> None:
        self._lock, self._connected = threading.Lock(), dict[Cluster, Any]()
        renew_in_child(self)

    def get(self, bootstrap: str) -> Any:
        """The client of a cluster."""
        cluster = Cluster.of(bootstrap)
        with self._lock:
            client = self._connected.get(cluster)
            if client is None:
                if len(self._connected) >= _MOST_CLIENTS:
                    del self._connected[next(iter(self._connected))]
                own = {
                    "log_level": 2, "socket.connection.setup.timeout.ms": 5_000, "reconnect.backoff.max.ms": 1_000,
                    **MAKES_NO_TOPICS,
                }  # fmt: skip
                client = self._connected[cluster] = _proved(_made(_Admin, cluster, own), cluster)
            return client

    def after_fork(self) -> None:
        """Connect anew in the child."""
        for client in self._connected.values():
            keep_for_ever(client)
        self._lock, self._connected = threading.Lock(), {}


_clients = _Clients()


def _proved(client: Any, cluster: Cluster) -> Any:
    """A client that Kafka does not refuse; one that gets no answer meanwhile will meet it in its calls."""
    if cluster.properties:
        with contextlib.suppress(KafkaException):
            metadata(client, _PROOF_S)
    return client


class _Consumer(Consumer):
    access: Access


class _Producer(Producer):
    access: Access


class _Admin(AdminClient):
    access: Access


def _made(kind: Any, bootstrap: str, own: Mapping[str, Any]) -> Any:
    """A client of the cluster, with its `access`. Raises UsageError (a property that librdkafka refuses)."""
    cluster = Cluster.of(bootstrap)
    access = Access(cluster)
    try:
        client = kind(cluster.configuration({**own, "error_cb": access}))
    except KafkaException as error:
        raise UsageError(f"Kafka's client refuses a property: {error.args[0].str()}") from error
    client.access = access
    return client


def metadata(client: Any, timeout_s: float) -> Any:
    """The topics and brokers that Kafka names. Raises KafkaException after `timeout_s`, AuthenticationFailed at once.

    Requires: a client of this door. librdkafka says only when it is asked what it was refused, and waits for the rest
    of the time.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        left_s = max(0.0, deadline_s - time.monotonic())
        try:
            found = client.list_topics(timeout=min(left_s, _LOOK_S))
        except KafkaException:
            check_access(client)
            if left_s <= _LOOK_S:
                raise
        else:
            client.access.granted()
            return found


def check_access(client: Any) -> None:
    """Raise AuthenticationFailed when Kafka has just refused this client."""
    if isinstance(client, _Admin):  # nobody else runs its callbacks
        client.poll(0)
    if (access := getattr(client, "access", None)) is not None:
        access.check()


def cluster_id(bootstrap: str, timeout_s: float) -> str | None:
    """The id of the cluster that answers at `bootstrap` and names a broker to use; None: nobody does. Asked afresh.

    Raises AuthenticationFailed.
    """
    try:
        answer = metadata(_made(_Admin, bootstrap, {"log_level": 0}), timeout_s)
    except KafkaException:
        return None
    return str(answer.cluster_id) if answer.brokers else None


def call(what: str, function: Callable[[], _T], client: Any) -> _T:
    """Run a Kafka call of `client`.

    Raises LogUnreachable when nobody answers, AccessDenied, LogStoreError with Kafka's own words otherwise.
    """
    try:
        return function()
    except KafkaException as error:
        raise translate(error.args[0], what, client) from error


def translate(error: Any, what: str, client: Any) -> LogStoreError:
    """The error of this package for a KafkaError that `client` met."""
    if error.code() in _LACKING:
        return lacking(error.code(), what, client)
    if error.code() in _UNREACHABLE or error.retriable():
        try:
            check_access(client)
        except AuthenticationFailed as refusal:
            return AuthenticationFailed(f"{what}: {refusal}")
        return LogUnreachable(
            f"{what}: Kafka does not answer ({error.str()}); is the broker running, and is the bootstrap address right?"
        )
    if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return UsageError(f"{what}: there is no such topic or partition")
    return LogStoreError(f"{what}: {error.str()} ({error.name()})")


def flush(producer: Any, timeout_s: float, what: str) -> int:
    """Wait until every record is reported, or for `timeout_s`; returns how many are not.

    Raises what `translate` makes of a fatal error, which the binding raises wherever it notices it first: in a callback
    too, which Python then blames.
    """
    try:
        return int(producer.flush(timeout_s))
    except KafkaException as error:
        raise translate(error.args[0], what, producer) from error
    except SystemError as error:
        if not isinstance(error.__cause__, KafkaException):
            raise
        raise translate(error.__cause__.args[0], what, producer) from error


def check_led(client: Any, topic: str, error: Any) -> None:
    """Raise AccessDenied when a partition seems to have no leader because its topic is hidden from this user."""
    if code(error) == KafkaError._NOENT:
        describe(client, [topic])


def lacking(kind: int, what: str, client: Any) -> AccessDenied:
    """The error for what the client's user has no ACL for."""
    cluster = client.access.cluster
    return AccessDenied(
        f"{what}: Kafka at {cluster} knows {cluster.identity}, and grants no access to {_LACKING[kind]}; "
        "docs/security.md says what clients need"
    )


def code(error: Any) -> int:
    """The number of a KafkaError, or of a KafkaException's."""
    return int((error.args[0] if isinstance(error, KafkaException) else error).code())


class Described(NamedTuple):
    """A topic's id as 32 lower-case hex digits (KIP-516), and its partition count."""

    topic_id: str
    partitions: int


def describe(client: Any, topics: list[str], timeout_s: float = REQUEST_S) -> dict[str, Described]:
    """Ids and partition counts of these topics; those that do not exist are left out. Raises LogUnreachable."""
    if not topics:
        return {}
    futures = client.describe_topics(_TopicCollection(topics), request_timeout=timeout_s)
    found = {}
    for topic, future in futures.items():
        try:
            described = future.result()
            found[topic] = Described(uuid_hex(described.topic_id), len(described.partitions))
        except KafkaException as error:
            if code(error) != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise translate(error.args[0], f"describe topic {topic}", client) from error
    return found


def topic_ids(client: Any, topics: list[str]) -> dict[str, str]:
    """Topic -> id as 32 lower-case hex digits, for those that exist."""
    return {topic: described.topic_id for topic, described in describe(client, topics).items()}


def uuid_hex(topic_id: Any) -> str:
    """Kafka's 128-bit id as 32 lower-case hex digits."""
    mask = (1 << 64) - 1
    return f"{topic_id.get_most_significant_bits() & mask:016x}{topic_id.get_least_significant_bits() & mask:016x}"


def bounds(
    client: Any, topic: str, partitions: list[int], *, committed: bool = False, timeout_s: float = REQUEST_S
) -> dict[int, Bounds]:
    """Partition -> what its log holds now; with `committed` the end is that of the last stable offset (KIP-98)."""
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    starts, ends = (_offsets(client, topic, partitions, spec, level, timeout_s) for spec in (_EARLIEST, _LATEST))
    return {p: Bounds(starts[p], ends[p]) for p in partitions}


def ends(client: Any, places: Iterable[tuple[str, int]], *, committed: bool = False) -> dict[tuple[str, int], int]:
    """Ends of logs, or their last stable offsets, by (topic, partition); those that cannot be told now are absent.

    Raises LogUnreachable when none can.
    """
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    futures = client.list_offsets(
        {TopicPartition(*place): _LATEST for place in places}, isolation_level=level, request_timeout=_ENDS_S
    )
    errors = {where: future.exception() for where, future in futures.items()}
    known = {where: int(futures[where].result().offset) for where, error in errors.items() if error is None}
    failed = next(((where, error) for where, error in errors.items() if error is not None), None)
    if failed is not None:
        stale = call(
            "look up the ends of the log", lambda: _is_stale(client, failed[0].topic, failed[1]), client
        )  # it knows more next time
        if not known and not stale:
            check_led(client, failed[0].topic, failed[1])
            raise translate(failed[1].args[0], "look up the ends of the log", client)
    found = {(where.topic, where.partition): end for where, end in known.items() if end >= 0}
    if known and not found:  # librdkafka's answer when a broker has just gone away: no error, and no offset
        raise LogUnreachable("look up the ends of the log: Kafka does not answer")
    return found


def leader_epoch(client: Any, topic: str, partition: int) -> int:
    """The epoch of a partition's leadership now; -1: the broker does not tell. Raises LogUnreachable."""
    where = TopicPartition(topic, partition)
    future = client.list_offsets({where: _LATEST}, request_timeout=REQUEST_S)[where]
    found = call(f"ask for the leader epoch of {topic}/{partition}", future.result, client).leader_epoch
    return -1 if found is None else int(found)


def first_from(client: Any, topic: str, partitions: list[int], time_ms: int) -> dict[int, int | None]:
    """Partition -> the first offset in the log whose timestamp is not before a time.

    None where there is none (KIP-79).
    """
    found = _offsets(client, topic, partitions, OffsetSpec.for_timestamp(time_ms), IsolationLevel.READ_UNCOMMITTED)
    return {partition: None if offset < 0 else offset for partition, offset in found.items()}


def _offsets(
    client: Any, topic: str, partitions: list[int], spec: Any, level: IsolationLevel, timeout_s: float = REQUEST_S
) -> dict[int, int]:
    """Offsets that the partitions' leaders report.

    A client that does not know of a change of leaders yet finds them, and asks again.
    """

    def ask() -> dict[int, int]:
        futures = client.list_offsets(
            {TopicPartition(topic, p): spec for p in partitions}, isolation_level=level, request_timeout=timeout_s
        )
        return {where.partition: int(future.result().offset) for where, future in futures.items()}

    again = known_to_all(client, topic, max(partitions, default=0), timeout_s)
    try:
        return again(ask)
    except KafkaException as error:
        check_led(client, topic, error)
        raise translate(error.args[0], f"look up the offsets of {topic}", client) from error


def known_to_all(client: Any, topic: str, partition: int, timeout_s: float = REQUEST_S) -> Retrying:
    """A policy that asks again, for `timeout_s`, what a broker refused for not having heard of a change yet.

    Brokers learn of new topics and leaders one after the other: one may say that there is no such topic, or that it
    leads nothing, when another knows better.
    """

    def is_passing(error: BaseException) -> bool:
        if not isinstance(error, KafkaException):
            return False
        return _is_stale(client, topic, error) or _is_news(client, topic, partition, error)

    return Retrying(
        retry=retry_if_exception(is_passing), stop=stop_after_delay(timeout_s),
        wait=wait_exponential(multiplier=0.02, max=0.5), reraise=True,
    )  # fmt: skip


def _is_stale(client: Any, topic: str, error: BaseException) -> bool:
    """True when the client had a wrong idea of who leads a topic that is there; now it has asked for all of them."""
    if not isinstance(error, KafkaException) or code(error) not in _STALE:
        return False
    return topic in client.list_topics(timeout=REQUEST_S).topics  # to ask for this one alone may create it


def _is_news(client: Any, topic: str, partition: int, error: KafkaException) -> bool:
    """True when a broker does not know a partition that there is, by what the cluster's metadata say."""
    if code(error) != KafkaError.UNKNOWN_TOPIC_OR_PART:
        return False
    found = client.list_topics(timeout=REQUEST_S).topics.get(topic)
    return found is not None and partition in found.partitions


def read_range(
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
                    raise _read_error(record.error(), reader, f"{topic}/{partition}", following, end)
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
        raise LogUnreachable(f"nothing came from Kafka for {timeout_s:g} s; is the broker running?")
    return [first, *reader.consume(most - 1, 0)] if most > 1 else [first]


def _read_error(error: Any, reader: Any, where: str, at: int, end: int) -> LogStoreError:
    if error.code() == KafkaError._PARTITION_EOF:
        return LogGap(f"{where}: the log ends at {at:,}, wanted everything before {end:,}")
    if error.code() in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET):
        return LogTruncated(f"{where}: offset {at:,} is gone from the log")
    return translate(error, f"read {where}", reader)
