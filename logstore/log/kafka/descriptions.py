"""Descriptions of topics: their ids and how many partitions they have."""

from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicCollection as _TopicCollection

from logstore.log.kafka.clients import REQUEST_S
from logstore.log.kafka.errors import code, translate


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


def topic_ids(client: Any, topics: list[str], timeout_s: float = REQUEST_S) -> dict[str, str]:
    """Topic -> id as 32 lower-case hex digits, for those that exist."""
    return {topic: described.topic_id for topic, described in describe(client, topics, timeout_s).items()}


def uuid_hex(topic_id: Any) -> str:
    """Kafka's 128-bit id as 32 lower-case hex digits."""
    mask = (1 << 64) - 1
    return f"{topic_id.get_most_significant_bits() & mask:016x}{topic_id.get_least_significant_bits() & mask:016x}"
