"""Repairs of tables: what of a log is lost, and the definitions by which every replica goes on without it.

skip          offsets that no record is read from any more   accept_loss   an end of the log that was cut off
new_epoch     a topic that was created again
"""

from dataclasses import replace
from typing import NamedTuple

from logstore.log import topics
from logstore.log.kafka import offsets
from logstore.log.read import holes
from logstore.log.tables.change import Change, write
from logstore.log.tables.registry import Registry
from logstore.model.errors import EpochChanged, UsageError
from logstore.model.table import Table


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
        table,
        epoch=epoch,
        partitions=partitions,
        former_epochs=former,
        skips={},
        losses={},
        base=None,
        origin=None,
        rules=(),
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


def check_epoch(table: Table, damage: Damage) -> None:
    """Raise EpochChanged when the topic is not the one of the definition."""
    if damage.epoch != table.epoch:
        what = "was deleted and created again" if damage.epoch else "is gone"
        step = f"repair {table.name} --new-epoch" if damage.epoch else f"drop {table.name} --yes"
        raise EpochChanged(f"the topic {table.topic} {what}; `logstore table {step}` is the way on")
