"""DDL: create, adopt, alter and drop tables.

Every change is one record of `logstore.tables`, but for one of column families (`rules`); `live_workers` says which
workers serve it.

The order of steps is what makes them safe to repeat and to race:

    create   1 topic, of a name that no table had before (`topic_names`); creating it is the lock (`claims`): one of two
               wins, and what a killed one left is taken over after a while
             2 definition
    drop     1 definition says dropped   2 readers stop serving
             3 topic, if it is the store's own and still the same one
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from logstore.log import topics
from logstore.log.kafka import offsets
from logstore.log.tables import rules
from logstore.log.tables.change import Change, write
from logstore.log.tables.claims import check_unclaimed, claim_topic, epoch_now, free, heir, is_left_over, is_usable
from logstore.log.tables.joining import amend
from logstore.log.tables.registry import Registry
from logstore.model.errors import BadDefinition, NoSuchTable
from logstore.model.partitioning.splits import splits_of
from logstore.model.table import (
    DEFAULT_DEDUP_RECORDS,
    DEFAULT_DEDUP_WINDOW_MS,
    DEFAULT_MAX_VALUE_BYTES,
    INTERNAL,
    SNAPSHOT_SETTINGS,
    Table,
    check_limits,
    check_name,
    check_rows,
    check_snapshots,
    families_of,
    has_ttl,
    partition_count,
)
from logstore.model.wide.altered_families import Given


def create(
    registry: Registry,
    name: str,
    *,
    partitions: int | None = None,
    splits: Iterable[str | bytes] = (),
    max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES,
    description: str = "",
    topic_config: Mapping[str, str] | None = None,
    snapshots: Mapping[str, Any] | None = None,
    conditional: bool = False,
    expiring: bool = False,
    wide: bool = False,
    families: Mapping[str, Mapping[str, Any]] | Iterable[str] = (),
    siblings: bool = False,
    multi_row: bool = False,
    dedup_window_ms: int = DEFAULT_DEDUP_WINDOW_MS,
    dedup_records: int = DEFAULT_DEDUP_RECORDS,
) -> Change:
    """Make a table with a topic of its own. Raises BadDefinition, TableExists, LogUnreachable.

    `splits`: keys that rise, of an ordered table: each begins a partition, and there is one before the first.
    `snapshots`: how they are made: compression, block_bytes, keep_snapshots, merge_share. `conditional`: it takes
    conditions, ids, increments and appends, whose outcomes it remembers for the dedup window. `expiring`: its rows may
    carry a TTL. `wide`: its rows are cells in column `families`, names or {name: {"versions": 3, "ttl_ms": 60_000}}
    (a TTL makes it expiring), and `multi_row` lets an edit name several rows of a partition. `siblings`: puts that did
    not see each other stay side by side. Tables of all these kinds are conditional, too.
    """
    check_name(name)
    points = splits_of(splits)
    count = partition_count(partitions, points)
    check_limits(count, max_value_bytes)
    named = families_of(families)
    table = Table(
        name, name, "", count, max_value_bytes, description=description, splits=points,
        conditional=conditional or expiring or wide or siblings, expiring=expiring or has_ttl(named),
        wide=wide, families=named, siblings=siblings, multi_row=multi_row,
        dedup_window_ms=dedup_window_ms, dedup_records=dedup_records,
    )  # fmt: skip
    check_rows(table)
    wanted = _with_snapshots(table, snapshots)
    definitions = free(registry, name)
    before = definitions.tables.get(name)
    replicas = topics.replication(registry.admin)
    settings = _allowed(wanted, topics.wal_settings(max_value_bytes, replicas) | dict(topic_config or {}), replicas)
    table, _ = claim_topic(registry, wanted, settings, definitions, lambda table: is_usable(registry, table, before))
    return write(registry, heir(table, before), [])


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
    check_unclaimed(registry, topic)
    table = Table(
        name, topic, epoch_now(registry, topic), partitions, max_value_bytes,
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
    add_families: Given = (),
    families: Mapping[str, Mapping[str, Any]] | None = None,
) -> Change:
    """Change what is not fixed. Raises NoSuchTable, NotWide, UsageError, BadDefinition, Conflict.

    What others change at the same time holds beside it (`joining`).

    `add_families`: as in `create`; `families`: other rules of some that are there. A change of families that was cut
    short is ended, whatever else is asked for.
    """
    added, changed = families_of(add_families), families or {}
    ruled = rules.ended(registry, registry.table(name))
    if added or changed:
        ruled = rules.alter(registry, ruled, added, changed)
    table = _with_snapshots(ruled, snapshots)
    if topic_config:
        actual = topics.settings_of(registry.admin, table.topic)
        _allowed(table, actual | dict(topic_config), topics.replication(registry.admin), only=topic_config)
        topics.set_settings(registry.admin, table.topic, dict(topic_config))
    asked: dict[str, Any] = dict(snapshots or {})
    if description is not None:
        asked["description"] = description
    if allow_control_records is not None:
        asked["allow_control_records"] = allow_control_records
    if not asked and (added or changed):
        return Change(ruled, ruled.revision + 1, [])
    return amend(registry, ruled, asked, [])


def drop(registry: Registry, name: str) -> Change:
    """Write that a table is dropped; the topic is still there, see `delete_topic`.

    Raises NoSuchTable, and Corrupted or Unsupported when its definition cannot be read.

    A drop that was interrupted before its topic was deleted may be asked for again.
    """
    definitions = registry.read()
    if (why := definitions.stopped(name)) is not None:
        raise why
    table = definitions.tables.get(name)
    if table is None or (table.dropped and not is_left_over(registry, table)):
        raise NoSuchTable(name)
    if table.dropped:
        return Change(table, table.revision + 1, [])
    return write(registry, replace(table, dropped=True, skips={}), [])


def delete_topic(registry: Registry, table: Table) -> bool:
    """Delete a dropped table's own topic.

    Never an adopted one, nor one that was created again since. True when it was deleted.
    """
    return is_left_over(registry, table) and topics.delete(registry.admin, table.topic)


def _with_snapshots(table: Table, snapshots: Mapping[str, Any] | None) -> Table:
    if unknown := set(snapshots or ()) - SNAPSHOT_SETTINGS:
        raise BadDefinition(
            f"snapshots have {', '.join(sorted(SNAPSHOT_SETTINGS))}, not {', '.join(map(str, unknown))}"
        )
    changed = replace(table, **(snapshots or {}))
    check_snapshots(changed)
    return changed


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


def _partitions_of(registry: Registry, topic: str) -> int:
    try:
        return topics.partition_count(registry.admin, topic)
    except NoSuchTable as error:
        raise BadDefinition(
            f"there is no topic {topic!r} to adopt; without --topic the table gets a topic of its own"
        ) from error


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
