"""Leaders of partitions: errors that only say that a broker or a client has not heard of a change of them yet."""

from typing import Any

from confluent_kafka import KafkaError, KafkaException
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

from logstore.log.kafka.clients import REQUEST_S
from logstore.log.kafka.descriptions import describe
from logstore.log.kafka.errors import code
from logstore.model.errors import LogUnreachable, UsageError

_STALE = {
    KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError._NOENT,  # a broker that has just started leads nothing yet
}  # fmt: skip


def known_to_all(client: Any, topic: str, partition: int, timeout_s: float = REQUEST_S) -> Retrying:
    """A policy that asks again, for `timeout_s`, what a broker refused for not having heard of a change yet.

    Brokers learn of new topics and leaders one after the other: one may say that there is no such topic, or that it
    leads nothing, when another knows better.
    """

    def is_passing(error: BaseException) -> bool:
        if not isinstance(error, KafkaException):
            return False
        return is_stale(client, topic, error) or _is_news(client, topic, partition, error)

    return Retrying(
        retry=retry_if_exception(is_passing), stop=stop_after_delay(timeout_s),
        wait=wait_exponential(multiplier=0.02, max=0.5), reraise=True,
    )  # fmt: skip


def is_stale(client: Any, topic: str, error: BaseException) -> bool:
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


def check_led(client: Any, topic: str, error: Any) -> None:
    """Raise why a partition seems to have no leader, where `error` says so.

    Raises UsageError when there is no such topic, AccessDenied when it is hidden from this user, else LogUnreachable.
    """
    if code(error) == KafkaError._NOENT:
        if topic not in describe(client, [topic]):
            raise UsageError(f"there is no topic {topic}")
        raise LogUnreachable(f"no partition of topic {topic} has a leader now; are its brokers running?")
