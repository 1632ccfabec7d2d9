"""Brokers: what Kafka tells of itself: its version, replicas of topics, its clock."""

import re
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from confluent_kafka import TopicPartition
from confluent_kafka.admin import ConfigResource, OffsetSpec, ResourceType

from logstore.log import topics
from logstore.log.kafka.clients import REQUEST_S, metadata
from logstore.log.kafka.errors import call
from logstore.model.errors import LogStoreError
from logstore.model.table import NODES_TOPIC

_PROTOCOL = "inter.broker.protocol.version"  # until 3.9; 4.0 tells its clients nothing in its place
_PAUSE_S = 0.1


class BrokerVersion(NamedTuple):
    """Kafka's version; `number` None: it is not told."""

    number: tuple[int, int] | None
    text: str


class TopicReplicas(NamedTuple):
    """Replicas of a topic, the fewest of its partitions, and how many an acknowledged write needs."""

    assigned: int
    in_sync: int
    least: int


class Appended(NamedTuple):
    """A record that was appended just now: its time by a broker's clock, and between which times of this machine."""

    stamp_ms: int
    after_s: float
    before_s: float

    @property
    def skew_s(self) -> float:
        """Seconds that the broker's clock is ahead, at least; below 0: behind. However long the answers took."""
        return max(self.stamp_ms / 1000 - self.before_s, 0.0) or min(self.stamp_ms / 1000 - self.after_s, 0.0)


def version(client: Any) -> BrokerVersion:
    """Version of a broker, by its settings. Raises LogUnreachable."""
    try:
        settings = _settings(client)
    except LogStoreError as error:
        if error.retriable:
            raise
        return BrokerVersion(None, f"it is not told: {error}")
    protocol = settings.get(_PROTOCOL)
    found = re.match(r"(\d+)\.(\d+)", protocol or "")
    if found:
        return BrokerVersion((int(found[1]), int(found[2])), f"{found[1]}.{found[2]} ({_PROTOCOL})")
    if "log.dirs" in settings and "zookeeper.connect" not in settings:
        return BrokerVersion((4, 0), "4.0 or later")
    return BrokerVersion(None, f"it is not told: the broker has no {_PROTOCOL}")


def _settings(client: Any) -> dict[str, str]:
    brokers = call("ask for the brokers", lambda: metadata(client, REQUEST_S), client).brokers
    resource = ConfigResource(ResourceType.BROKER, str(min(brokers)))
    entries = call(
        "read the brokers' settings",
        lambda: client.describe_configs([resource], request_timeout=REQUEST_S)[resource].result(),
        client,
    )
    return {name: entry.value for name, entry in entries.items()}


def replicas(client: Any, names: Iterable[str]) -> dict[str, TopicReplicas]:
    """Replicas of those of the topics that are there. Raises LogUnreachable."""
    found = call("ask for the topics", lambda: metadata(client, REQUEST_S), client).topics
    there = {name: found[name].partitions.values() for name in names if name in found and found[name].partitions}
    return {
        name: TopicReplicas(
            min(len(one.replicas) for one in partitions), min(len(one.isrs) for one in partitions),
            int(topics.settings_of(client, name)["min.insync.replicas"]),
        )
        for name, partitions in there.items()
    }  # fmt: skip


def appended(client: Any, timeout_s: float) -> Appended | None:
    """The next announcement that is appended; None: there is none in `timeout_s`."""
    deadline_s, asked_s, before = time.monotonic() + timeout_s, time.time(), _newest(client)
    while time.monotonic() < deadline_s:
        again_s, now = time.time(), _newest(client)
        if now.offset > before.offset:
            return Appended(int(now.timestamp), asked_s, time.time())
        asked_s = again_s
        time.sleep(_PAUSE_S)
    return None


def _newest(client: Any) -> Any:
    where = TopicPartition(NODES_TOPIC, 0)
    newest = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]  # untyped library
    future = client.list_offsets({where: newest}, request_timeout=REQUEST_S)[where]
    return call("ask for the newest announcement", future.result, client)
