"""Clients of Kafka, made here alone, with the settings that this store relies on; and whether Kafka lets them in."""

import contextlib
import ctypes
import functools
import inspect
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from logstore.log.after_fork import renew_in_child
from logstore.log.connect.access import Access
from logstore.log.connect.cluster import Cluster
from logstore.model.errors import AuthenticationFailed, UsageError

REQUEST_S = 10.0
CHANGE_S = 30.0  # of topics, settings and ACLs: the controller does one after another, and may be busy with many
_PROOF_S = 2.0
_LOOK_S = 0.5  # in which a refusal is noticed
_MOST_CLIENTS = 8  # clusters

# Producers and admin clients make a topic by asking for it, where brokers let them: writes to a table that was dropped
# would be acknowledged, and be nobody's.
MAKES_NO_TOPICS = {"allow.auto.create.topics": False}
_OF_ADMINS = {
    "log_level": 2, "socket.connection.setup.timeout.ms": 5_000, "reconnect.backoff.max.ms": 1_000, **MAKES_NO_TOPICS,
}  # fmt: skip


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


def keep_for_ever(client: object) -> None:
    """Keep a client that was inherited over a fork even when the interpreter ends: its destructor would wait for ever.

    Runs in the child (`log.after_fork`), and imports nothing there.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))


def admin(bootstrap: str) -> Any:
    """The process's admin client for a cluster; thread-safe.

    One is kept: of fresh ones every fiftieth waits 3 s before it asks for the offsets of a topic, whose leaders it has
    to find out first.
    """
    return _clients.get(bootstrap)


class _Clients:
    """Admin clients of this process, by cluster."""

    def __init__(self) -> None:
        self._lock, self._connected = threading.Lock(), dict[Cluster, _Connected]()
        renew_in_child(self)

    def get(self, bootstrap: str) -> Any:
        """The client of a cluster. Raises AuthenticationFailed; then the next call connects anew."""
        cluster = Cluster.of(bootstrap)
        with self._lock:
            connected = self._connected.get(cluster)
            if connected is None:
                if len(self._connected) >= _MOST_CLIENTS:
                    del self._connected[next(iter(self._connected))]
                connected = self._connected[cluster] = _Connected(_made(_Admin, cluster, _OF_ADMINS), cluster)
        try:
            return connected.proved()
        except AuthenticationFailed:
            with self._lock:
                if self._connected.get(cluster) is connected:
                    del self._connected[cluster]
            raise

    def after_fork(self) -> None:
        """Connect anew in the child."""
        for connected in self._connected.values():
            keep_for_ever(connected.client)
        self._lock, self._connected = threading.Lock(), {}


class _Connected:
    """An admin client, and whether Kafka takes its proof: who asks for another cluster does not wait for that."""

    def __init__(self, client: Any, cluster: Cluster) -> None:
        self.client, self._lock, self._is_proved = client, threading.Lock(), not cluster.properties

    def proved(self) -> Any:
        """The client, once Kafka has not refused it; one that gets no answer meanwhile will meet it in its calls."""
        with self._lock:
            if not self._is_proved:
                with contextlib.suppress(KafkaException):
                    metadata(self.client, _PROOF_S)
                self._is_proved = True
        return self.client


_clients = _Clients()


class _Consumer(Consumer):
    access: Access


class _Producer(Producer):
    access: Access


class _Admin(AdminClient):
    """An admin client out of which a Ctrl-C comes as what it is.

    One that arrives while librdkafka's binding is at work is a SystemError, "returned a result with an exception set".
    """

    access: Access

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return _interruptible(found) if inspect.isroutine(found) else found


def _interruptible(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except SystemError as error:
            if isinstance(error.__cause__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise

    return run


def _made(kind: Any, bootstrap: str, own: Mapping[str, Any]) -> Any:
    """A client of the cluster, with its `access`. Raises UsageError (a property that librdkafka refuses)."""
    cluster = Cluster.of(bootstrap)
    access = Access(cluster, own.get("group.id"))
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
