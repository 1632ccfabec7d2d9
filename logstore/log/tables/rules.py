"""Rules: the column families of a wide table are altered, in every partition from one record of its log on.

    1 definition   with a revision that has no offsets yet: whoever meets its record knows what it means
    2 records      a `rules` record in each partition
    3 definition   with their offsets; from here on clients know the families

A change that is cut short between them is ended by the next one of the table, whatever it changes. Two at once do each
other no harm: a revision is named by the offset of its definition, so that no two are one, and each goes on until what
it was asked for holds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from logstore.log.control import append_control
from logstore.log.kafka import offsets
from logstore.log.tables.joining import ATTEMPTS, too_many, write_joined
from logstore.log.tables.registry import Registry
from logstore.model.errors import BadDefinition
from logstore.model.folding.mutation import RULES, Control, sort_out
from logstore.model.rules.rules_revision import RulesRecord, RulesRevision, read_record, settled
from logstore.model.table import Table, check_model
from logstore.model.wide.altered_families import Given, altered_families, begun


def alter(registry: Registry, table: Table, added: Given, changed: Mapping[str, Mapping[str, object]]) -> Table:
    """Add column families, and change the rules of others; returns the definition, in force in every partition.

    Raises NotWide, BadDefinition, UsageError for what cannot be; Conflict, LogUnreachable, LogGap, EpochChanged.
    """
    for _ in range(ATTEMPTS):
        if altered_families(table, added, changed) == table.families:
            return table
        ends = _ends(registry, table)
        table = registry.table(table.name)  # behind `ends`: what another change appends of a later definition is above
        families = altered_families(table, added, changed)
        table = ended(registry, write_joined(registry, table, begun(table, families, ends), {}))  # 1
    raise too_many(table)


def ended(registry: Registry, table: Table) -> Table:
    """The definition after steps 2 and 3 of every change that was begun. Raises as `alter`."""
    for _ in range(ATTEMPTS):
        if all(one.is_complete for one in table.revisions):
            return table
        revisions = _appended(registry, table)  # 2
        settling = replace(table, rules=revisions, families=settled(revisions))
        table = write_joined(registry, table, settling, {})  # 3
    raise too_many(table)


def _ends(registry: Registry, table: Table) -> dict[int, int]:
    found = offsets.bounds(registry.admin, table.topic, list(range(table.partitions)))
    return {partition: bound.end for partition, bound in found.items()}


def _appended(registry: Registry, table: Table) -> tuple[RulesRevision, ...]:
    """The table's revisions with the offsets of their records: those that are there, and those that were not."""
    reach = _ends(registry, table)
    revisions = _found(registry, table, reach)
    for one in revisions:
        missing = [p for p, at in enumerate(one.offsets) if at is None]
        if missing:
            at = append_control(registry.bootstrap, table, RULES, one.payload(), missing)
            reach |= {p: offset + 1 for p, offset in at.items()}
    return _found(registry, replace(table, rules=revisions), reach)  # another change may have appended one before


def _found(registry: Registry, table: Table, ends: Mapping[int, int]) -> tuple[RulesRevision, ...]:
    """The table's revisions with the offsets of their first records below `ends`, as far as they lack them.

    One that no definition has any more, since its author's was replaced, is known by its record, and one of them.
    """
    revisions = {one.revision: one for one in table.revisions}
    for found in _records(registry, table, ends):
        record, partition = found.record, found.partition
        if record.revision not in revisions and _is_lost(table, record):
            since = next(one.since for one in table.revisions if one.since)
            none = (None,) * table.partitions
            revisions[record.revision] = RulesRevision(record.revision, record.families or {}, none, since)
        known = revisions.get(record.revision)
        if known is not None and known.offsets and known.offsets[partition] is None:
            revisions[record.revision] = known.at({partition: found.offset})
    return tuple(revisions[revision] for revision in sorted(revisions))


def _is_lost(table: Table, record: RulesRecord) -> bool:
    """True for a record of a definition that was written before this one, and may have been."""
    if record.families is None or record.revision >= table.revision:
        return False
    try:
        check_model(replace(table, families=record.families, rules=()))
    except BadDefinition:
        return False
    return True


def _is_open(revisions: tuple[RulesRevision, ...], partition: int) -> bool:
    return any(one.offsets and one.offsets[partition] is None for one in revisions)


class _Found(NamedTuple):
    """Record of rules in a partition's log."""

    partition: int
    offset: int
    record: RulesRecord


def _records(registry: Registry, table: Table, ends: Mapping[int, int]) -> Iterator[_Found]:
    """Records of rules from where those of the open revisions may begin."""
    from logstore.log.read.range_group import read_group  # noqa: PLC0415 - loads Arrow, for which other commands wait

    since = {
        p: min(one.since[p] for one in table.revisions if one.since and one.offsets[p] is None)
        for p in ends if _is_open(table.revisions, p)
    }  # fmt: skip
    starts = offsets.bounds(registry.admin, table.topic, list(since)) if since else {}
    ranges = {p: (max(at, starts[p].start), ends[p]) for p, at in since.items()}
    ranges = {p: (start, end) for p, (start, end) in ranges.items() if start < end}
    for batch in read_group(registry.bootstrap, table, ranges) if ranges else ():
        for row in batch.filter(batch.column("key").is_null()).to_pylist():
            headers = [(one["key"], one["value"]) for one in row["headers"] or ()]
            means = sort_out(
                None, row["value"], headers, max_value_bytes=table.max_value_bytes, right_partition=lambda _: True
            )
            record = read_record(row["value"]) if means == Control(RULES) else None
            if record is not None:
                yield _Found(row["part"], row["offset"], record)
