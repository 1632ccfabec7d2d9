"""DDL: create, adopt, alter, drop and repair tables.

Every change is one record of `logstore.tables`; `live_workers` says which workers serve it.

The order of steps is what makes them safe to repeat and to race:

    create   1 topic, of a name that no table had before (`topic_names`); creating it is the lock: one of two wins,
               and what a killed one left is taken over after a while
             2 definition
    drop     1 definition says dropped   2 readers stop serving
             3 topic, if it is the store's own and still the same one
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from logstore.log import topics
from logstore.log.kafka import offsets
from logstore.log.read import holes
from logstore.log.tables import topic_names
from logstore.log.tables.registry import Definitions, Registry
from logstore.model.errors import BadDefinition, EpochChanged, LogUnreachable, NoSuchTable, TableExists, UsageError
from logstore.model.table import (
    DEFAULT_MAX_VALUE_BYTES,
    DEFAULT_PARTITIONS,
    INTERNAL,
    Table,
    check_limits,
    check_name,
    check_snapshots,
)

RIVAL_S = 5.0  # for somebody else's create to come from its first step to its second


class Change(NamedTuple):
    """A definition as written; `revision` is what serves it: the next offset of `logstore.tables`."""

    table: Table
    revision: int
    warnings: list[str]


def create(
    registry: Registry,
    name: str,
    *,
    partitions: int = DEFAULT_PARTITIONS,
    max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES,
    description: str = "",
    topic_config: Mapping[str, str] | None = None,
    snapshots: Mapping[str, Any] | None = None,
) -> Change:
    """Make a table with a topic of its own. Raises BadDefinition, TableExists, LogUnreachable.

    `snapshots`: how they are made: compression, block_bytes, keep_snapshots.
    """
    check_name(name)
    check_limits(partitions, max_value_bytes)
    definitions = free(registry, name)
    before = definitions.tables.get(name)
    replicas = topics.replication(registry.admin)
    wanted = _with_snapshots(Table(name, name, "", partitions, max_value_bytes, description=description), snapshots)
    settings = _allowed(wanted, topics.wal_settings(max_value_bytes, replicas) | dict(topic_config or {}), replicas)
    table, _ = claim_topic(registry, wanted, settings, definitions, lambda table: is_usable(registry, table, before))
    return write(registry, heir(table, before), [])


def claim_topic(
    registry: Registry,
    table: Table,
    settings: dict[str, str],
    definitions: Definitions,
    is_left_over: Callable[[Table], bool],
) -> tuple[Table, bool]:
    """The table with a topic of its own, and whether this call has made the topic.

    `is_left_over`: whether a topic that is there already is what a killed command of this kind has left. Raises
    TableExists: somebody makes the table at this moment, drops it, or has a topic of its name.
    """
    client, before = registry.admin, definitions.tables.get(table.name)
    if before is not None and _left_over(registry, before):
        raise in_the_way(registry, table.topic, before)
    replicas = topics.replication(client)
    for topic in topic_names.candidates(definitions, table.name, topics.names(client)):
        made = topics.create(client, topic, table.partitions, replicas, settings)
        claimed = replace(table, topic=topic, epoch=_epoch(registry, topic))
        if made:
            return claimed, True
        if is_left_over(claimed) and not _has_rival(registry, table.name):
            return claimed, False
        if topic == table.name or _has_rival(registry, table.name):
            raise in_the_way(registry, topic, before)
    raise AssertionError("there is always another name")


def adopt(
    registry: Registry,
    name: str,
    topic: str,
    *,
    max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES,
    description: str = "",
    allow_control_records: bool = False,
    snapshots: Mapping[str, Any] | None = None,
) -> Change:
    """Make a table of a topic that is there.

    Partitions and epoch are the topic's; what is risky about it comes as warnings.

    Raises BadDefinition for a topic that cannot be a table (compacted, internal), NoSuchTable when there is none.
    """
    check_name(name)
    if topic.startswith(INTERNAL):
        raise BadDefinition(f"topics that begin with {INTERNAL!r} are the store's own")
    before = free(registry, name).tables.get(name)
    partitions = _partitions_of(registry, topic)
    check_limits(partitions, max_value_bytes)
    _unclaimed(registry, topic)
    table = Table(
        name, topic, _epoch(registry, topic), partitions, max_value_bytes,
        adopted=True, allow_control_records=allow_control_records, description=description,
    )  # fmt: skip
    table = _with_snapshots(table, snapshots)
    findings = topics.check(registry.admin, table)
    if fatal := [str(finding) for finding in findings if finding.fatal]:
        raise BadDefinition(f"topic {topic} cannot be a table: {'; '.join(fatal)}")
    return write(registry, heir(table, before), [*map(str, findings), *_log_warnings(registry, table)])


def alter(
    registry: Registry,
    name: str,
    *,
    description: str | None = None,
    topic_config: Mapping[str, str] | None = None,
    allow_control_records: bool | None = None,
    snapshots: Mapping[str, Any] | None = None,
) -> Change:
    """Change what does not change the fold. Raises NoSuchTable, BadDefinition."""
    table = _with_snapshots(registry.table(name), snapshots)
    if topic_config:
        actual = topics.settings_of(registry.admin, table.topic)
        _allowed(table, actual | dict(topic_config), topics.replication(registry.admin), only=topic_config)
        topics.set_settings(registry.admin, table.topic, dict(topic_config))
    if description is not None:
        table = replace(table, description=description)
    if allow_control_records is not None:
        table = replace(table, allow_control_records=allow_control_records)
    return write(registry, table, [])


def drop(registry: Registry, name: str) -> Change:
    """Write that a table is dropped; the topic is still there, see `delete_topic`.

    Raises NoSuchTable, and Corrupted or Unsupported when its definition cannot be read.

    A drop that was interrupted before its topic was deleted may be asked for again.
    """
    definitions = registry.read()
    if (why := definitions.stopped(name)) is not None:
        raise why
    table = definitions.tables.get(name)
    if table is None or (table.dropped and not _left_over(registry, table)):
        raise NoSuchTable(name)
    if table.dropped:
        return Change(table, table.revision + 1, [])
    return write(registry, replace(table, dropped=True, skips={}), [])


def delete_topic(registry: Registry, table: Table) -> bool:
    """Delete a dropped table's own topic.

    Never an adopted one, nor one that was created again since. True when it was deleted.
    """
    return _left_over(registry, table) and topics.delete(registry.admin, table.topic)


class Damage(NamedTuple):
    """Damage of a table that a repair would mend. `epoch`: the topic's id now, None when it is gone."""

    epoch: str | None
    log: holes.Log | None


def examine(registry: Registry, table: Table, partition: int, start: int = 0) -> Damage:
    """Look for what is missing in a partition's log from offset `start` on.

    Raises UsageError for a partition that is none.
    """
    check_partition(table, partition)
    epoch = topics.epoch_of(registry.admin, table.topic)
    if epoch != table.epoch:
        return Damage(epoch, None)
    skips = table.skips.get(partition, [])
    return Damage(epoch, holes.examine(registry.bootstrap, registry.admin, table.topic, partition, start, skips))


class Copies(NamedTuple):
    """Copies of a partition's rows beside its log: archive, snapshots and views.

    An archive up to an offset, a snapshot's cut, and where a view stands.
    """

    archived: int = 0
    cut: int = 0
    applied: int = 0

    @property
    def reach(self) -> int:
        """Offset below which nothing is lost, whatever the log still has (a view is made of the log: no copy)."""
        return max(self.archived, self.cut)

    @property
    def folded(self) -> int:
        """The offset below which a snapshot or a view has applied the log."""
        return max(self.cut, self.applied)


def skip(
    registry: Registry,
    table: Table,
    partition: int,
    first: int,
    last: int,
    *,
    copies: Copies | None = None,
    force: bool = False,
) -> Change:
    """Have offsets first..last stepped over, by every replica and by every rebuild.

    Raises UsageError when the range is none, lies beyond the log's end, or holds records that can be read or are kept
    elsewhere (unless `force`), or that have been applied (always: what a record did stays in the views and snapshots
    that have it).
    """
    check_partition(table, partition)
    copies = copies or Copies()
    bounds = offsets.bounds(registry.admin, table.topic, [partition])[partition]
    if not 0 <= first <= last < bounds.end:
        raise UsageError(f"{first}..{last} is no range of offsets below the log's end, {bounds.end:,}")
    readable = holes.readable_in(registry.bootstrap, table.topic, partition, first, last, bounds)
    if readable and not force:
        raise UsageError(
            f"offsets {first:,} to {last:,} hold {readable:,} records that can be read: skipping them would undo "
            "acknowledged writes; "
            "name only what is missing, or add --force"
        )
    if first < copies.reach and not force:
        raise UsageError(
            f"offsets below {copies.reach:,} are not lost, archive or snapshots hold them: skipping them would take "
            "their rows out of every "
            f"rebuild; `logstore batch compact {table.name}` makes a snapshot that nodes go on from, or add --force"
        )
    if (readable or first < copies.archived) and first < copies.folded:
        raise UsageError(
            f"what lies below offset {copies.folded:,} has been applied: to skip offset {first:,} now would undo it in "
            "some replicas and not "
            f"in others; write the row as it should be, or `logstore batch restore {table.name}` to a position before "
            "it"
        )
    return write(registry, table.with_skip(partition, first, last), [])


def accept_loss(registry: Registry, table: Table, partition: int, starts: list[tuple[int, int]]) -> Change:
    """Have views and snapshots that hold what the log lost thrown away: it goes on at each (offset, leader epoch)."""
    return write(registry, table.with_loss(partition, starts), [])


def new_epoch(registry: Registry, table: Table) -> Change:
    """Begin anew with a topic that was created again under the table's name; raises like `renewed`."""
    anew = renewed(registry, table)
    return write(registry, anew, [str(finding) for finding in topics.check(registry.admin, anew)])


def renewed(registry: Registry, table: Table) -> Table:
    """The definition for the topic as it is now, not written yet.

    Raises UsageError when the topic was not created again.
    """
    epoch = topics.epoch_of(registry.admin, table.topic)
    if epoch is None:
        raise UsageError(f"the topic {table.topic} does not exist; {when_gone(table)}")
    if epoch == table.epoch:
        raise UsageError(f"the topic {table.topic} is still the one of the definition; there is no new epoch to accept")
    partitions = topics.partition_count(registry.admin, table.topic)
    former = (*table.former_epochs, table.epoch)
    return replace(
        table, epoch=epoch, partitions=partitions, former_epochs=former, skips={}, losses={}, base=None, origin=None
    )


def when_gone(table: Table) -> str:
    """Advice for a table whose topic is gone."""
    name = table.name
    return (
        f"what archive and snapshots hold comes back with `logstore batch restore {name} --at TIME --as {name}_back` "
        "and then "
        f"`logstore table promote {name}_back --over {name}`; `logstore table drop {name} --yes` forgets the table, "
        "and that way with it"
    )


def check_partition(table: Table, partition: int) -> None:
    """Raise UsageError when the table has no such partition."""
    if not 0 <= partition < table.partitions:
        raise UsageError(f"table {table.name} has the partitions 0 to {table.partitions - 1}, not {partition}")


def _with_snapshots(table: Table, snapshots: Mapping[str, Any] | None) -> Table:
    changed = replace(table, **(snapshots or {}))
    check_snapshots(changed.compression, changed.block_bytes, changed.keep_snapshots)
    return changed


def write(registry: Registry, table: Table, warnings: list[str]) -> Change:
    """Write a definition; raises as `Registry.write`."""
    offset = registry.write(table)
    return Change(replace(table, revision=offset), offset + 1, warnings)


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


def _allowed(
    table: Table, settings: dict[str, str], replicas: int, only: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return `settings`; raises BadDefinition when one of them (or one of `only`) must not be."""
    wrong = [
        str(f) for f in topics.compare(settings, table, replicas) if f.fatal and (only is None or f.setting in only)
    ]
    if wrong:
        raise BadDefinition(f"the log of a table cannot be so: {'; '.join(wrong)}")
    return settings


def in_the_way(registry: Registry, topic: str, before: Table | None) -> TableExists:
    """The error for a topic that is there already, although no table has the name."""
    if before is not None and _left_over(registry, before):
        name = before.name
        return TableExists(
            f"table {name!r} is being dropped, or its drop was interrupted; `logstore table drop {name} --yes` ends it"
        )
    owner = owner_of(registry, topic)
    if owner is not None:
        return TableExists(f"the topic {topic!r} is that of table {owner.name!r}; take another name")
    return topics.taken(topic)


def _has_rival(registry: Registry, name: str) -> bool:
    """True when whoever made the topic writes the definition too: a create that is alive does within moments."""
    waiting = Retrying(
        retry=retry_if_result(lambda there: not there), stop=stop_after_delay(RIVAL_S), wait=wait_fixed(0.1),
        retry_error_callback=lambda _: False,
    )  # fmt: skip
    return bool(waiting(lambda: name in registry.tables()))


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


def _left_over(registry: Registry, table: Table) -> bool:
    """True when a dropped table's own topic is still there."""
    return table.dropped and not table.adopted and topics.epoch_of(registry.admin, table.topic) == table.epoch


def _unclaimed(registry: Registry, topic: str) -> None:
    owner = owner_of(registry, topic)
    if owner is not None:
        raise TableExists(f"the topic {topic} is that of table {owner.name!r} already")


def _partitions_of(registry: Registry, topic: str) -> int:
    try:
        return topics.partition_count(registry.admin, topic)
    except NoSuchTable as error:
        raise BadDefinition(
            f"there is no topic {topic!r} to adopt; without --topic the table gets a topic of its own"
        ) from error


def _epoch(registry: Registry, topic: str) -> str:
    epoch = topics.epoch_of(registry.admin, topic)
    if epoch is None:
        raise LogUnreachable(f"topic {topic} is gone again: somebody else deleted it, or its broker is away; try again")
    return epoch


def _log_warnings(registry: Registry, table: Table) -> list[str]:
    """Warnings about records that an adopted topic's log already holds, or lacks."""
    partitions = list(range(table.partitions))
    everything = offsets.bounds(registry.admin, table.topic, partitions)
    stable = offsets.bounds(registry.admin, table.topic, partitions, committed=True)
    warnings = []
    if cut := [p for p in partitions if everything[p].start > 0]:
        warnings.append(
            f"the log of partitions {cut} no longer begins at offset 0: they stop until `logstore table repair "
            f"{table.name} --partition p`"
        )
    if open_transactions := [p for p in partitions if stable[p].end < everything[p].end]:
        warnings.append(
            f"a transactional writer is at work on partitions {open_transactions}: its markers will stop them (gap in "
            "the offsets)"
        )
    return warnings


def check_epoch(table: Table, damage: Damage) -> None:
    """Raise EpochChanged when the topic is not the one of the definition."""
    if damage.epoch != table.epoch:
        what = "was deleted and created again" if damage.epoch else "is gone"
        step = f"repair {table.name} --new-epoch" if damage.epoch else f"drop {table.name} --yes"
        raise EpochChanged(f"the topic {table.topic} {what}; `logstore table {step}` is the way on")
