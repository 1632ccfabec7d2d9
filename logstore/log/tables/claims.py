"""Claims: which name is free for a table, and which topic is its own.

Creating a topic is the lock: of two who make a table of one name, one wins. A topic that is there already is taken over
when it is what a killed command has left, and nobody is about to write its definition.
"""

from collections.abc import Callable
from dataclasses import replace

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from logstore.log import topics
from logstore.log.kafka import offsets
from logstore.log.tables import topic_names
from logstore.log.tables.registry import Definitions, Registry
from logstore.model.errors import LogUnreachable, TableExists
from logstore.model.table import Table

RIVAL_S = 5.0  # for somebody else's create to come from its first step to its second


def claim_topic(
    registry: Registry,
    table: Table,
    settings: dict[str, str],
    definitions: Definitions,
    is_ours: Callable[[Table], bool],
) -> tuple[Table, bool]:
    """The table with a topic of its own, and whether this call has made the topic.

    `is_ours`: whether a topic that is there already is what a killed command of this kind has left. Raises
    TableExists: somebody makes the table at this moment, drops it, or has a topic of its name.
    """
    client, before = registry.admin, definitions.tables.get(table.name)
    if before is not None and is_left_over(registry, before):
        raise in_the_way(registry, table.topic, before)
    replicas = topics.replication(client)
    for topic in topic_names.candidates(definitions, table.name, topics.names(client)):
        made = topics.create(client, topic, table.partitions, replicas, settings)
        claimed = replace(table, topic=topic, epoch=epoch_now(registry, topic))
        if made:
            return claimed, True
        if is_ours(claimed) and not _has_rival(registry, table.name):
            return claimed, False
        if topic == table.name or _has_rival(registry, table.name):
            raise in_the_way(registry, topic, before)
    raise AssertionError("there is always another name")


def free(registry: Registry, name: str) -> Definitions:
    """All definitions, among which that of the name is at most a dropped one; raises TableExists."""
    definitions = registry.read()
    if (why := definitions.stopped(name)) is not None:
        raise TableExists(str(why)) from why
    before = definitions.tables.get(name)
    if before is not None and not before.dropped:
        raise TableExists(f"there is a table {name!r} already; `logstore table describe {name}` shows it")
    return definitions


def heir(table: Table, before: Table | None) -> Table:
    """The table as the successor of a dropped one: it answers tokens of the former epochs with epoch-changed."""
    if before is None:
        return table
    former = [epoch for epoch in (*before.former_epochs, before.epoch) if epoch != table.epoch]
    return replace(table, former_epochs=tuple(dict.fromkeys(former)), revision=before.revision)


def in_the_way(registry: Registry, topic: str, before: Table | None) -> TableExists:
    """The error for a topic that is there already, although no table has the name."""
    if before is not None and is_left_over(registry, before):
        name = before.name
        return TableExists(
            f"table {name!r} is being dropped, or its drop was interrupted; `logstore table drop {name} --yes` ends it"
        )
    owner = owner_of(registry, topic)
    if owner is not None:
        return TableExists(f"the topic {topic!r} is that of table {owner.name!r}; take another name")
    return topics.taken(topic)


def is_usable(registry: Registry, table: Table, before: Table | None) -> bool:
    """True for a topic that is there, as a table's topic should be, empty, and nobody's.

    A create was killed before its definition.

    `before`: the dropped table of that name, whose topic may still be on its way out.
    """
    if owner_of(registry, table.topic) is not None or (before is not None and before.epoch == table.epoch):
        return False
    if any(finding.fatal for finding in topics.check(registry.admin, table)):
        return False
    bounds = offsets.bounds(registry.admin, table.topic, list(range(table.partitions)))
    return all(bound.end == 0 for bound in bounds.values())


def owner_of(registry: Registry, topic: str) -> Table | None:
    """The table that a topic is the log of; a promoted one has the topic of another name."""
    return next((table for table in registry.tables().values() if table.topic == topic), None)


def check_unclaimed(registry: Registry, topic: str) -> None:
    """Raise TableExists when a topic is the log of a table."""
    owner = owner_of(registry, topic)
    if owner is not None:
        raise TableExists(f"the topic {topic} is that of table {owner.name!r} already")


def is_left_over(registry: Registry, table: Table) -> bool:
    """True when a dropped table's own topic is still there."""
    return table.dropped and not table.adopted and topics.epoch_of(registry.admin, table.topic) == table.epoch


def _has_rival(registry: Registry, name: str) -> bool:
    """True when whoever made the topic writes the definition too: a create that is alive does within moments."""
    waiting = Retrying(
        retry=retry_if_result(lambda there: not there), stop=stop_after_delay(RIVAL_S), wait=wait_fixed(0.1),
        retry_error_callback=lambda _: False,
    )  # fmt: skip
    return bool(waiting(lambda: name in registry.tables()))


def epoch_now(registry: Registry, topic: str) -> str:
    """The id of a topic that has just been there; raises LogUnreachable."""
    epoch = topics.epoch_of(registry.admin, topic)
    if epoch is None:
        raise LogUnreachable(f"topic {topic} is gone again: somebody else deleted it, or its broker is away; try again")
    return epoch
