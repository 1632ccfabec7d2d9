"""Topics of tables: the settings a write-ahead log must have, made and checked against the broker's actual ones."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, ResourceType
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_exponential

from logstore.log.connect.acl import topic as on_topic
from logstore.log.kafka.clients import CHANGE_S, REQUEST_S
from logstore.log.kafka.descriptions import describe, topic_ids
from logstore.log.kafka.errors import call, code, translate
from logstore.log.kafka.leaders import check_led, known_to_all
from logstore.log.kafka.offsets import bounds
from logstore.model.errors import LogUnreachable, NoSuchTable, TableExists
from logstore.model.table import NODES_TOPIC, RECORD_OVERHEAD_BYTES, SLOTS_TOPIC, TABLES_TOPIC, Table

_FOREVER = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "unclean.leader.election.enable": "false",
}
_BATCH_BYTES = (
    1_048_588  # Kafka's default: the limit holds for whole batches, and producers fill them to 1,000,000 bytes
)
_FLUSHED = {"flush.messages": "1"}  # definitions are few, and without them a node does not start after a power cut
_LEADER_S = 0.1  # that a broker may take to begin a partition's log
CLOSED = {"max.message.bytes": "1"}  # no record is so short: the topic of a table that another one was promoted over
_SETTLES = {  # records that are superseded go within minutes, a tombstone's too: the active segment is never compacted
    "segment.ms": "300000",
    "min.cleanable.dirty.ratio": "0.01",
    "max.compaction.lag.ms": "300000",
    "delete.retention.ms": "60000",
}
_COMPACTED = {
    "cleanup.policy": "compact",
    "unclean.leader.election.enable": "false",
    "min.compaction.lag.ms": "60000",
    **_SETTLES,
}
_ANNOUNCEMENTS = {
    "cleanup.policy": "compact,delete",
    "retention.ms": "3600000",
    **_SETTLES,
    "message.timestamp.type": "LogAppendTime",
}
_NO_RECORDS = {  # Kafka's group protocol assigns the partitions; what lies in them means nothing
    "cleanup.policy": "delete",
    "retention.ms": "60000",
    "segment.ms": "60000",
    "max.message.bytes": "1",  # no record is so short
}


class Finding(NamedTuple):
    """A setting that is not as it should be. `fatal`: the store refuses the topic; else it is a warning."""

    fatal: bool
    setting: str
    actual: str
    wanted: str
    why: str

    @property
    def is_to_change(self) -> bool:
        """False for what no change of a setting mends, or should."""
        return self.setting != "partitions" and {self.setting: self.actual} != CLOSED

    def __str__(self) -> str:
        return f"{self.setting} is {self.actual}, should be {self.wanted}: {self.why}"


def wal_settings(max_value_bytes: int, replicas: int) -> dict[str, str]:
    """The settings of a table's own topic (DESIGN rule 5: append-only forever)."""
    return {
        **_FOREVER,
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(max(max_value_bytes + RECORD_OVERHEAD_BYTES, _BATCH_BYTES)),
        "min.insync.replicas": str(min(2, replicas)),
    }


def ensure_internal(client: Any, slots: int) -> None:
    """Create the store's own topics where they are missing. Raises LogUnreachable."""
    replicas = replication(client)
    partitions = {TABLES_TOPIC: 1, NODES_TOPIC: 1, SLOTS_TOPIC: slots}
    more = {TABLES_TOPIC: {"min.insync.replicas": str(min(2, replicas))}}
    for topic, wanted in internal_settings().items():
        if not create(client, topic, partitions[topic], replicas, {**wanted, **more.get(topic, {})}):
            _settle(client, topic, wanted)


def internal_settings() -> dict[str, dict[str, str]]:
    """The settings of the store's own topics, by topic."""
    return {TABLES_TOPIC: _COMPACTED | _FLUSHED, NODES_TOPIC: _ANNOUNCEMENTS, SLOTS_TOPIC: _NO_RECORDS}


def _settle(client: Any, topic: str, wanted: dict[str, str]) -> None:
    """Give a topic that is there the settings it lacks."""
    actual = settings_of(client, topic)
    lacking = {name: value for name, value in wanted.items() if actual.get(name) != value}
    if lacking:
        set_settings(client, topic, lacking)


def create(client: Any, topic: str, partitions: int, replicas: int, settings: dict[str, str]) -> bool:
    """Create a topic, and return when every partition's leader answers; False when it is there already.

    The controller knows of a topic before the brokers do, that of somebody else a moment ago too: in both cases the
    broker that is asked next has heard of it on return.
    """
    future = client.create_topics([NewTopic(topic, partitions, replicas, config=settings)], request_timeout=CHANGE_S)[
        topic
    ]
    try:
        future.result(CHANGE_S + 5)
        made = True
    except KafkaException as error:
        if code(error) != KafkaError.TOPIC_ALREADY_EXISTS:
            raise translate(error.args[0], f"create topic {topic}", client, on_topic("CREATE", topic)) from error
        made = False
    until(f"topic {topic} is there", lambda: epoch_of(client, topic) is not None)
    if made:
        bounds(client, topic, list(range(partitions)), timeout_s=REQUEST_S + partitions * _LEADER_S)
    return made


def delete(client: Any, topic: str) -> bool:
    """Delete a topic and everything in it; False when there is none."""
    try:
        client.delete_topics([topic], request_timeout=CHANGE_S)[topic].result(CHANGE_S + 5)
        until(f"topic {topic} is gone", lambda: epoch_of(client, topic) is None)
        return True
    except KafkaException as error:
        if code(error) == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return False
        raise translate(error.args[0], f"delete topic {topic}", client, on_topic("DELETE", topic)) from error


def until(what: str, holds: Callable[[], bool], timeout_s: float = CHANGE_S) -> None:
    """Brokers learn of a change one after the other.

    Wait until the one we ask knows. Raises LogUnreachable after `timeout_s`.
    """
    waiting = Retrying(
        retry=retry_if_result(lambda held: not held),
        stop=stop_after_delay(timeout_s),
        wait=wait_exponential(multiplier=0.01, max=0.25),
    )
    try:
        waiting(holds)
    except RetryError as error:
        raise LogUnreachable(
            f"after {timeout_s:g} s it still does not hold that {what}; look at the brokers' logs"
        ) from error


def truncate(client: Any, topic: str, below: dict[int, int]) -> None:
    """Delete every record below an offset, by partition (KIP-107)."""
    offsets = [TopicPartition(topic, partition, offset) for partition, offset in below.items()]
    for future in client.delete_records(offsets, request_timeout=CHANGE_S).values():
        try:
            future.result()
        except KafkaException as error:
            check_led(client, topic, error)
            needed = on_topic("DELETE", topic)
            raise translate(error.args[0], f"delete records of {topic}", client, needed) from error


def add_partitions(client: Any, topic: str, total: int) -> None:
    """Give a topic more partitions.

    A table's own topic never gets any: its writers would place keys elsewhere at once.
    """
    call(
        f"add partitions to {topic}",
        client.create_partitions([NewPartitions(topic, total)], request_timeout=CHANGE_S)[topic].result,
        client,
        on_topic("ALTER", topic),
    )


def epoch_of(client: Any, topic: str, timeout_s: float = REQUEST_S) -> str | None:
    """The topic's id as 32 hex digits; None when there is no such topic."""
    return topic_ids(client, [topic], timeout_s).get(topic)


def epoch_to_write(client: Any, topic: str, timeout_s: float = REQUEST_S) -> str | None:
    """The topic's id, as `epoch_of`. Raises AccessDenied where this client may not write to it."""
    described = describe(client, [topic], timeout_s, wanted="WRITE").get(topic)
    return described.topic_id if described else None


def replication(client: Any) -> int:
    """Replicas for a new topic: three where there are three brokers."""
    found = call("ask for the brokers", lambda: client.list_topics(timeout=REQUEST_S), client)
    return min(3, max(1, len(found.brokers)))


def names(client: Any) -> set[str]:
    """Every topic there is."""
    return set(call("ask for the topics", lambda: client.list_topics(timeout=REQUEST_S), client).topics)


def partition_count(client: Any, topic: str) -> int:
    """Partitions of a topic; raises NoSuchTable when it does not exist."""
    what, needed = f"describe topic {topic}", on_topic("DESCRIBE", topic)
    described = call(what, lambda: client.list_topics(topic, timeout=REQUEST_S), client, needed).topics[topic]
    if described.error is not None:
        if described.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise NoSuchTable(topic)
        raise translate(described.error, what, client, needed)
    return len(described.partitions)


def settings_of(client: Any, topic: str) -> dict[str, str]:
    """The broker's actual settings of a topic. Raises UsageError when there is none."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    ask = known_to_all(client, topic, 0)
    entries = call(
        f"read the settings of {topic}",
        lambda: ask(lambda: client.describe_configs([resource], request_timeout=REQUEST_S)[resource].result()),
        client,
        on_topic("DESCRIBE_CONFIGS", topic),
    )
    return {name: entry.value for name, entry in entries.items()}


def set_settings(client: Any, topic: str, settings: dict[str, str]) -> None:
    """Change settings of a topic."""
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    call(
        f"change the settings of {topic}",
        lambda: client.incremental_alter_configs([resource], request_timeout=CHANGE_S)[resource].result(CHANGE_S + 5),
        client,
        on_topic("ALTER_CONFIGS", topic),
    )


def check(client: Any, table: Table) -> list[Finding]:
    """Settings of a table's topic that endanger the table.

    A topic the user owns is warned about where the store's own would be refused.
    """
    findings = compare(settings_of(client, table.topic), table, replication(client))
    partitions = _partitions(client, table)
    return [partitions, *findings] if partitions else findings


def compare(actual: dict[str, str], table: Table, replicas: int) -> list[Finding]:
    """Compare settings with those a table's topic must have. A topic closed by a promotion is a warning."""
    wanted = wal_settings(table.max_value_bytes, replicas)
    findings = [_compare(actual, setting, value, table) for setting, value in wanted.items()]
    return [finding for finding in findings if finding is not None]


def _partitions(client: Any, table: Table) -> Finding | None:
    actual = partition_count(client, table.topic)
    if actual == table.partitions:
        return None
    why = "writers place keys by the new count at once; a table never changes its partitions, copy it to a new one"
    return Finding(True, "partitions", str(actual), str(table.partitions), why)


_WHY: dict[str, str] = {
    "cleanup.policy": "a compacted log has holes, and the log is the only copy until a snapshot exists",
    "retention.ms": "old mutations would be deleted; the log is the only copy until a snapshot exists",
    "retention.bytes": "old mutations would be deleted; the log is the only copy until a snapshot exists",
    "unclean.leader.election.enable": "acknowledged writes could be lost",
    "message.timestamp.type": "writers' clocks would decide about expiry",
    "max.message.bytes": "values of the table's maximum would be refused",
    "min.insync.replicas": "an acknowledged write could be on one broker only",
}
_WHY_CLOSED = (
    "another table was promoted over this one, and writers that do not know it yet must not be told that their writes "
    "are safe"
)
_ALWAYS_FATAL: frozenset[str] = frozenset({"cleanup.policy"})


def _compare(actual: dict[str, str], setting: str, wanted: str, table: Table) -> Finding | None:
    value = actual.get(setting, "")
    enough: Literal["equal", "least"] = "least" if setting in ("max.message.bytes", "min.insync.replicas") else "equal"
    if value == wanted or (enough == "least" and value.isdigit() and int(value) >= int(wanted)):
        return None
    if {setting: value} == CLOSED and not (table.adopted or table.allow_control_records):  # was replaced
        return Finding(False, setting, value, wanted, _WHY_CLOSED)
    fatal = setting in _ALWAYS_FATAL or not (table.adopted or setting == "min.insync.replicas")
    return Finding(fatal, setting, value, wanted, _WHY[setting])


def taken(topic: str) -> TableExists:
    """The error for a topic that is there already."""
    return TableExists(
        f"there is a topic {topic!r} already; `logstore table create NAME --topic {topic}` makes a table of it"
    )
