"""Errors of Kafka as those of this package: what is unreachable, what a user may not, and the rest in Kafka's words."""

from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from logstore.log.kafka.clients import check_access
from logstore.model.errors import AccessDenied, AuthenticationFailed, LogStoreError, LogUnreachable, UsageError

_T = TypeVar("_T")

_UNREACHABLE = {
    KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._WAIT_COORD, KafkaError.REQUEST_TIMED_OUT, KafkaError.NETWORK_EXCEPTION, KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.BROKER_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
}  # fmt: skip

_LACKING = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "its consumer group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "the cluster, which a writer has through WRITE on its topic",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "the transactional id",
}


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
