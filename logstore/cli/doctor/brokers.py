"""Brokers, as `doctor` looks at them: version, replicas against `min.insync.replicas`, clock, internal topics."""

from collections.abc import Iterator, Mapping, Sequence

from logstore.cli.doctor.check import FAIL, OK, WARN, Check
from logstore.log import brokers, topics
from logstore.log.tables.registry import Registry
from logstore.model.table import TABLES_TOPIC

LEAST = (3, 0)  # of Kafka's versions: topics have ids, and a leader's epoch is told
MOST_SKEW_S = 2.0
_HEAR_S = 5.0  # a node announces itself once a second


def examine(registry: Registry, count: int, of_tables: Sequence[str]) -> Iterator[Check]:
    """Checks of Kafka, which has `count` replicas for a new topic; `of_tables`: topics of tables."""
    copies = "one broker: no second copy of anything" if count == 1 else f"{count} replicas for new topics"
    three = "three brokers, for --bootstrap A,B,C: docs/operations.md, Kafka in production"
    well = count >= 3
    yield Check(OK if well else WARN, "kafka", f"{registry.bootstrap} answers ({copies})", "" if well else three)
    yield version(brokers.version(registry.admin))
    found = brokers.replicas(registry.admin, [*of_tables, *topics.internal_settings()])
    yield from replicas(found)
    yield clock(brokers.appended(registry.admin, _HEAR_S))
    yield from _internal(registry)


def version(found: brokers.BrokerVersion) -> Check:
    """The brokers' version, as far as Kafka tells it to a client."""
    if found.number is None:
        fix = "kafka-features --bootstrap-server A describe: the store needs Kafka 3.0 or later"
        return Check(WARN, "kafka version", found.text, fix)
    if found.number < LEAST:
        why = f"{found.text}: the store needs 3.0 or later, where topics have ids"
        return Check(FAIL, "kafka version", why, "upgrade the brokers, then inter.broker.protocol.version=3.0")
    return Check(OK, "kafka version", found.text)


def replicas(found: Mapping[str, brokers.TopicReplicas]) -> Iterator[Check]:
    """Replicas of the store's topics against what an acknowledged write needs."""
    wrong = 0
    for topic, one in sorted(found.items()):
        for check in _of_topic(topic, one):
            wrong += 1
            yield check
    if not wrong:
        yield Check(OK, "replicas", f"all in sync, of {len(found):,} topics")


def _of_topic(topic: str, one: brokers.TopicReplicas) -> Iterator[Check]:
    what, alter = f"replicas of {topic}", f"kafka-configs --alter --topic {topic} --add-config min.insync.replicas="
    if one.in_sync < one.least:
        why = f"{one.in_sync} in sync, min.insync.replicas is {one.least}: writes are refused"
        yield Check(FAIL, what, why, "start the brokers that are missing")
    elif one.in_sync < one.assigned:
        why = f"{one.in_sync} of {one.assigned} in sync"
        yield Check(WARN, what, why, "start the brokers that are missing, or wait until they have caught up")
    if one.assigned > 1 and one.least >= one.assigned:
        why = f"min.insync.replicas is {one.least} of {one.assigned}: when one broker is away, writes are refused"
        yield Check(WARN, what, why, f"{alter}{one.assigned - 1}")
    if one.assigned > 1 and one.least < 2:
        why = f"min.insync.replicas is {one.least} of {one.assigned}: an acknowledged write may be on one broker only"
        yield Check(WARN, what, why, f"{alter}2")


def clock(found: brokers.Appended | None) -> Check:
    """The brokers' clock against that of this machine: by the time of a record that was appended just now."""
    if found is None:
        return Check(OK, "clock", f"not compared with Kafka's: no node has announced itself in {_HEAR_S:g} s")
    skew_s = found.skew_s
    ahead = "ahead of" if skew_s > 0 else "behind"
    if abs(skew_s) <= MOST_SKEW_S:
        return Check(OK, "clock", "Kafka's and this machine's are not apart, as far as can be seen from here")
    why = f"Kafka's is {abs(skew_s):,.1f} s {ahead} this machine's: times of reads and restores, and ages, are off"
    return Check(WARN, "clock", why, "timedatectl set-ntp true, on this machine and on the brokers")


def _internal(registry: Registry) -> Iterator[Check]:
    """The settings of the store's own topics."""
    for topic, wanted in topics.internal_settings().items():
        actual = topics.settings_of(registry.admin, topic)
        wrong = {name: value for name, value in wanted.items() if actual.get(name) != value}
        lost = topic == TABLES_TOPIC and actual["cleanup.policy"] != "compact"
        if wrong:
            words = [f"{name} is {actual.get(name)}, should be {value}" for name, value in wrong.items()]
            found = "; ".join((["definitions of tables would be lost"] if lost else []) + words)
            settings = ",".join(f"{name}={value}" for name, value in wrong.items())
            fix = f"kafka-configs --alter --topic {topic} --add-config {settings}"
            yield Check(FAIL if lost else WARN, topic, f"{found}; a node that starts sets it, or set it", fix)
        else:
            yield Check(OK, topic, "its settings are as they should be")
