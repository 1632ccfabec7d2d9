"""Errors of Kafka as those of this package: what is unreachable, what a user may not, and the rest in Kafka's words."""

from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from logstore.log.connect.acl import Acl
from logstore.log.connect.acl import topic as on_topic
from logstore.log.kafka.clients import check_access
from logstore.model.errors import AuthenticationFailed, LogStoreError, LogUnreachable, UsageError

_T = TypeVar("_T")

_UNREACHABLE = {
    KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._WAIT_COORD, KafkaError.REQUEST_TIMED_OUT, KafkaError.NETWORK_EXCEPTION, KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.BROKER_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR,
}  # fmt: skip


def call(what: str, function: Callable[[], _T], client: Any, needed: Acl | None = None) -> _T:
    """Run a Kafka call of `client`, which needs an ACL.

    Raises LogUnreachable when nobody answers, AccessDenied, LogStoreError with Kafka's own words otherwise.
    """
    try:
        return function()
    except KafkaException as error:
        raise translate(error.args[0], what, client, needed) from error


def translate(error: Any, what: str, client: Any, needed: Acl | None = None) -> LogStoreError:
    """The error of this package for a KafkaError that `client` met in a call that needs an ACL."""
    if (lacks := client.access.lacks(error.code(), needed)) is not None:
        return client.access.denied(what, lacks)  # type: ignore[no-any-return]  # the client carries no types
    if error.code() in _UNREACHABLE or error.retriable():
        try:
            check_access(client)
        except AuthenticationFailed as refusal:
            return AuthenticationFailed(f"{what}: {refusal}")
        return LogUnreachable(
            f"{what}: Kafka does not answer ({error.str()}); is the broker running, and is the bootstrap address right?"
            f"{client.access.without_proof}"
        )
    if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return UsageError(f"{what}: there is no such topic or partition")
    return LogStoreError(f"{what}: {error.str()} ({error.name()})")


def unreadable(error: Any, topic: str, partition: int, reader: Any) -> LogStoreError:
    """The error of this package for a KafkaError that a consumer hands out instead of records."""
    return translate(error, f"read {topic}/{partition}", reader, on_topic("READ", topic))


def flush(producer: Any, timeout_s: float, what: str, topic: str) -> int:
    """Wait until every record for `topic` is reported, or for `timeout_s`; returns how many are not.

    Raises what `translate` makes of a fatal error, which the binding raises wherever it notices it first: in a callback
    too, which Python then blames.
    """
    try:
        return int(producer.flush(timeout_s))
    except KafkaException as error:
        raise translate(error.args[0], what, producer, on_topic("WRITE", topic)) from error
    except SystemError as error:
        if not isinstance(error.__cause__, KafkaException):
            raise
        raise translate(error.__cause__.args[0], what, producer, on_topic("WRITE", topic)) from error


def code(error: Any) -> int:
    """The number of a KafkaError, or of a KafkaException's."""
    return int((error.args[0] if isinstance(error, KafkaException) else error).code())
