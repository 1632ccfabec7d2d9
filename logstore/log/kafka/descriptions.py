"""Descriptions of topics: their ids and how many partitions they have."""

from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicCollection as _TopicCollection
from confluent_kafka.admin import AclOperation
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

from logstore.log.connect.acl import Acl
from logstore.log.connect.acl import topic as on_topic
from logstore.log.kafka.clients import REQUEST_S
from logstore.log.kafka.errors import code, translate

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
    if not topics:
        return {}
    futures = client.describe_topics(
        _TopicCollection(topics), include_authorized_operations=wanted != "DESCRIBE", request_timeout=timeout_s
    )
    found = {}
    for topic, future in futures.items():
        try:
            described = future.result()
        except KafkaException as error:
            if code(error) != KafkaError.UNKNOWN_TOPIC_OR_PART:
                needed = on_topic("DESCRIBE", topic)
                raise translate(error.args[0], f"describe topic {topic}", client, needed) from error
            continue
        found[topic] = Described(uuid_hex(described.topic_id), len(described.partitions))
        _check_allowed(client, described, on_topic(wanted, topic))
    return found


def _check_allowed(client: Any, described: Any, wanted: Acl) -> None:
    """Raise AccessDenied where Kafka's description, which may say what is allowed, does not have what is wanted."""
    allowed = described.authorized_operations
    if allowed and AclOperation[wanted.operation] not in allowed:
        raise client.access.denied(f"use {wanted.resource} {wanted.name}", wanted)


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
        _check_allowed(client, again(ask), wanted)
    except KafkaException as error:
        if code(error) != KafkaError.GROUP_ID_NOT_FOUND:  # later brokers say so of one that nobody has joined
            raise translate(error.args[0], f"describe group {group}", client, wanted) from error


def topic_ids(client: Any, topics: list[str], timeout_s: float = REQUEST_S) -> dict[str, str]:
    """Topic -> id as 32 lower-case hex digits, for those that exist."""
    return {topic: described.topic_id for topic, described in describe(client, topics, timeout_s).items()}


def uuid_hex(topic_id: Any) -> str:
    """Kafka's 128-bit id as 32 lower-case hex digits."""
    mask = (1 << 64) - 1
    return f"{topic_id.get_most_significant_bits() & mask:016x}{topic_id.get_least_significant_bits() & mask:016x}"
