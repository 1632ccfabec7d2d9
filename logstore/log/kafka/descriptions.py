"""Descriptions of topics: their ids and how many partitions they have."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicCollection as _TopicCollection
from confluent_kafka.admin import AclOperation
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

from logstore.log.connect.acl import Acl
from logstore.log.connect.acl import topic as on_topic
from logstore.log.kafka.clients import REQUEST_S
from logstore.log.kafka.errors import code, translate
from logstore.model.errors import AccessDenied, AuthenticationFailed, LogStoreError, LogUnreachable

_NO_COORDINATOR = {  # of the first group of a broker, which makes the topic of its offsets first
    KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}  # fmt: skip


class Described(NamedTuple):
    """A topic's id as 32 lower-case hex digits (KIP-516), and its partition count."""

    topic_id: str
    partitions: int


def describe(
    client: Any, topics: list[str], timeout_s: float = REQUEST_S, *, wanted: str = "DESCRIBE"
) -> dict[str, Described]:
    """Ids and partition counts of these topics; those that do not exist are left out.

    Raises LogUnreachable; AccessDenied where this client may not do to them what is `wanted`.
    """
    found, failed = describe_each(client, topics, timeout_s, wanted=wanted)
    for error in failed.values():
        raise error
    return found


def describe_each(
    client: Any, topics: list[str], timeout_s: float = REQUEST_S, *, wanted: str = "DESCRIBE"
) -> tuple[dict[str, Described], dict[str, LogStoreError]]:
    """Descriptions as of `describe`, and why others cannot be told: one topic that Kafka denies hides no other.

    Raises LogUnreachable where nobody answers for any of them, AuthenticationFailed.
    """
    if not topics:
        return {}, {}
    futures = client.describe_topics(
        _TopicCollection(topics), include_authorized_operations=wanted != "DESCRIBE", request_timeout=timeout_s
    )
    found: dict[str, Described] = {}
    failed: dict[str, LogStoreError] = {}
    for topic, future in futures.items():
        try:
            described = _described(client, topic, future)
        except AuthenticationFailed:
            raise
        except LogStoreError as error:
            failed[topic] = error
            continue
        if described is None:
            continue
        found[topic] = Described(uuid_hex(described.topic_id), len(described.partitions))
        if (refusal := _refusal(client, described, on_topic(wanted, topic))) is not None:
            failed[topic] = refusal
    if len(failed) == len(topics):
        _check_answered(failed.values())
    return found, failed


def _check_answered(failures: Iterable[LogStoreError]) -> None:
    """Raise LogUnreachable where each of these is one."""
    errors = list(failures)
    if all(isinstance(error, LogUnreachable) and not isinstance(error, AccessDenied) for error in errors):
        raise errors[0]


def _described(client: Any, topic: str, future: Any) -> Any:
    """Kafka's description of a topic; None where there is no such topic."""
    try:
        return future.result()
    except KafkaException as error:
        if code(error) == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None
        raise translate(error.args[0], f"describe topic {topic}", client, on_topic("DESCRIBE", topic)) from error


def _refusal(client: Any, described: Any, wanted: Acl) -> AccessDenied | None:
    """The error where Kafka's description, which may say what is allowed, does not have what is wanted."""
    allowed = described.authorized_operations
    if not allowed or AclOperation[wanted.operation] in allowed:
        return None
    denied: AccessDenied = client.access.denied(f"use {wanted.resource} {wanted.name}", wanted)
    return denied


def check_group(client: Any, group: str) -> None:
    """Raise AccessDenied where this client may not be a member of a consumer group. Raises LogUnreachable."""
    wanted = Acl("READ", "group", group)

    def ask() -> Any:
        futures = client.describe_consumer_groups(
            [group], include_authorized_operations=True, request_timeout=REQUEST_S
        )
        return futures[group].result()

    again = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, KafkaException) and code(error) in _NO_COORDINATOR),
        stop=stop_after_delay(REQUEST_S), wait=wait_exponential(multiplier=0.02, max=0.5), reraise=True,
    )  # fmt: skip
    try:
        refusal = _refusal(client, again(ask), wanted)
    except KafkaException as error:
        if code(error) != KafkaError.GROUP_ID_NOT_FOUND:  # later brokers say so of one that nobody has joined
            raise translate(error.args[0], f"describe group {group}", client, wanted) from error
        return
    if refusal is not None:
        raise refusal


def topic_ids(client: Any, topics: list[str], timeout_s: float = REQUEST_S) -> dict[str, str]:
    """Topic -> id as 32 lower-case hex digits, for those that exist."""
    return {topic: described.topic_id for topic, described in describe(client, topics, timeout_s).items()}


def uuid_hex(topic_id: Any) -> str:
    """Kafka's 128-bit id as 32 lower-case hex digits."""
    mask = (1 << 64) - 1
    return f"{topic_id.get_most_significant_bits() & mask:016x}{topic_id.get_least_significant_bits() & mask:016x}"
