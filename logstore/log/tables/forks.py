"""Forks: tables that begin with a snapshot of another one instead of an empty log; restoring makes, promoting places.

    restore  1 topic, empty   2 the snapshot is made and published   3 a `base` record at offset 0 of every partition
             4 definition
    promote  the definitions of two tables exchange their topics, in one record batch

Until step 4 there is no table. A restore that was killed leaves a topic that is empty or holds `base` records alone;
the next one of the same name knows it by that and goes on with it, or with a new one.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NamedTuple

from logstore.log import topics
from logstore.log.control import append_control, is_fenced
from logstore.log.kafka import offsets
from logstore.log.kafka.records import read_records
from logstore.log.read.ranges import committed_ends, read_range
from logstore.log.tables import claims
from logstore.log.tables.change import Change
from logstore.log.tables.registry import Registry
from logstore.model.errors import LogStoreError, LogTruncated, LogUnreachable, TableExists, UsageError
from logstore.model.position import Position
from logstore.model.table import Table, check_name

_BASE = [("ls.op", b"base")]
_MAX = "max.message.bytes"
_FENCING_S = 20.0


def begin(registry: Registry, source: Table, name: str) -> tuple[Table, bool]:
    """The fork's definition, not written yet, with an empty topic of its own; and whether this call made the topic.

    Raises BadDefinition, TableExists, LogUnreachable.
    """
    check_name(name)
    definitions = claims.free(registry, name)
    before = definitions.tables.get(name)
    settings = topics.wal_settings(source.max_value_bytes, topics.replication(registry.admin))
    wanted = Table(
        name, name, "", source.partitions, source.max_value_bytes,
        compression=source.compression, block_bytes=source.block_bytes, keep_snapshots=source.keep_snapshots,
        merge_share=source.merge_share, conditional=source.conditional, expiring=source.expiring,
        wide=source.wide, families=source.families, siblings=source.siblings, multi_row=source.multi_row,
        dedup_window_ms=source.dedup_window_ms, dedup_records=source.dedup_records, splits=source.splits,
    )  # fmt: skip

    def is_ours(table: Table) -> bool:
        return _is_left_over(registry, table) or claims.is_usable(registry, table, before)

    fork, made = claims.claim_topic(registry, wanted, settings, definitions, is_ours)
    if not made and _is_left_over(registry, fork):
        fork, made = _made_anew(registry, fork, settings), True
    return claims.heir(fork, before), made


def _made_anew(registry: Registry, fork: Table, settings: dict[str, str]) -> Table:
    """The fork with an empty topic in place of one that no definition, and so no writer, has ever named."""
    client = registry.admin
    topics.delete(client, fork.topic)
    made = topics.create(client, fork.topic, fork.partitions, topics.replication(client), settings)
    epoch = topics.epoch_of(client, fork.topic)
    if not made or epoch is None:
        raise LogUnreachable(f"somebody else makes or deletes the topic {fork.topic} at the same time; try again")
    return replace(fork, epoch=epoch)


def announce(bootstrap: str, fork: Table, payload: Mapping[str, Any]) -> None:
    """Write the `base` records, which stand for the fork's first snapshot. Raises TableExists, LogUnreachable."""
    at = append_control(bootstrap, fork, "base", payload)
    if any(at.values()):
        raise TableExists(
            f"somebody else wrote to the topic {fork.topic} while the table was made: its first record is not the "
            "store's"
        )


class Promotion(NamedTuple):
    """The definitions of the two tables afterwards. `again`: it had been done before, and nothing was changed now."""

    promoted: Change
    replaced: Change
    again: bool = False


def promote(registry: Registry, name: str, over: str, *, discard_newer: bool = False, back: bool = False) -> Promotion:
    """Give the table `over` the topic, and so the rows, of the fork `name`, and the fork those of `over`.

    Nothing is deleted.

    The topic that `over` had takes no more writes afterwards, unless it was adopted: a writer that still knows the old
    definition must not be told that its write is safe. Asked for again, it changes nothing; with `back` it is undone,
    whatever was written since. Raises NoSuchTable, and UsageError when what is in `over` is newer than what the fork
    was made from, unless `discard_newer`.
    """
    if name == over:
        raise UsageError(f"{name} cannot be promoted over itself")
    definitions = registry.read()
    fork, table = definitions.live(name), definitions.live(over)
    done = (fork.origin or {}).get("replaced_by") == table.epoch
    if done and not back:
        return Promotion(_as_is(table), _as_is(fork), again=True)
    if back and not done:
        raise UsageError(f"{name} is not what {over} held before a promotion: there is nothing to take back")
    with _fenced(registry, table):
        if not (discard_newer or back):
            _check_nothing_newer(registry, fork, table)
        _open(registry, fork)
    try:
        promoted, replaced = registry.write_all(_exchanged(fork, table, back=back))
    except LogStoreError as error:  # nobody knows whether it is written: until that is clear the fence stays
        error.add_note(f"({table.topic} takes no writes until this command was run again and has succeeded)")
        raise
    revision = max(promoted.revision, replaced.revision) + 1
    return Promotion(Change(promoted, revision, []), Change(replaced, revision, []))


def _as_is(table: Table) -> Change:
    return Change(table, table.revision + 1, [])


@contextmanager
def _fenced(registry: Registry, table: Table) -> Iterator[None]:
    """Have the table's topic take no more records, from here on.

    It takes them again only when what is done under it fails.
    """
    if table.adopted or _is_gone(registry, table):
        yield
        return
    client = registry.admin
    before = {_MAX: topics.settings_of(client, table.topic)[_MAX]}
    if (
        before == topics.CLOSED and table.allow_control_records
    ):  # a promotion was killed; a replaced table takes no control records
        before = _unfenced(registry, table)
    topics.set_settings(client, table.topic, topics.CLOSED)
    try:
        if table.allow_control_records:  # brokers learn of a setting a little later; a record of ours shows when
            topics.until(
                f"topic {table.topic} takes no more records", lambda: is_fenced(registry.bootstrap, table), _FENCING_S
            )
        yield
    except BaseException:
        with suppress(LogUnreachable):  # what went wrong before is what is told
            _take_again(registry, table, before)
        raise


def _exchanged(fork: Table, table: Table, *, back: bool) -> tuple[Table, Table]:
    """Definitions of the table and of the fork after the exchange.

    The fork records what replaced it, unless that was taken back.
    """
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    promoted = replace(
        fork, name=table.name, description=table.description, origin=None,
        allow_control_records=fork.allow_control_records or not fork.adopted, schedule=table.schedule,
        keep_snapshots=table.keep_snapshots, merge_share=table.merge_share,
        compression=table.compression, block_bytes=table.block_bytes,
        former_epochs=_former(table, fork), revision=table.revision,
    )  # fmt: skip
    replaced = replace(
        table, name=fork.name, description=f"what {table.name} held until {fork.name} was promoted over it at {when}",
        origin=None if back else {"replaced_by": fork.epoch},
        allow_control_records=table.adopted and table.allow_control_records, schedule=None,
        former_epochs=_former(fork, table),
        revision=fork.revision,
    )  # fmt: skip
    return promoted, replaced


def _former(table: Table, successor: Table) -> tuple[str, ...]:
    """The epochs that the table's name stood for before."""
    return tuple(epoch for epoch in dict.fromkeys((*table.former_epochs, table.epoch)) if epoch != successor.epoch)


def _open(registry: Registry, fork: Table) -> None:
    """Have a topic that was fenced by an earlier promotion take writes again."""
    if not fork.adopted and topics.settings_of(registry.admin, fork.topic)[_MAX] == topics.CLOSED[_MAX]:
        _take_again(registry, fork, _unfenced(registry, fork))


def _take_again(registry: Registry, table: Table, settings: dict[str, str]) -> None:
    """Give the topic these settings, and return when it takes records again, if they are such.

    Raises LogUnreachable.
    """
    topics.set_settings(registry.admin, table.topic, settings)
    if settings != topics.CLOSED:
        topics.until(
            f"topic {table.topic} takes records again", lambda: not is_fenced(registry.bootstrap, table), _FENCING_S
        )


def _unfenced(registry: Registry, table: Table) -> dict[str, str]:
    return {_MAX: topics.wal_settings(table.max_value_bytes, topics.replication(registry.admin))[_MAX]}


def _check_nothing_newer(registry: Registry, fork: Table, table: Table) -> None:
    origin = fork.origin or {}
    if (origin.get("table"), origin.get("epoch")) != (table.name, table.epoch):
        raise UsageError(
            f"{fork.name} was not restored from {table.name} as it is now: all that {table.name} holds would be "
            "replaced; look at "
            f"`logstore batch diff {table.name} {fork.name}`, and add --discard-newer if that is meant"
        )
    if _is_gone(registry, table):
        return
    position = Position.parse(origin["position"]).pieces
    ends = committed_ends(registry.bootstrap, table)
    firsts = {partition: _first_write(registry, table, partition, position, end) for partition, end in ends.items()}
    newer = {partition: at for partition, at in firsts.items() if at is not None}
    if newer:
        at = ", ".join(f"{partition} at {offset:,}" for partition, offset in sorted(newer.items())[:5])
        raise UsageError(
            f"{table.name} was written to after the position that {fork.name} was restored to (partition {at}): those "
            "writes would be "
            f"replaced; look at `logstore batch diff {table.name} {fork.name}`, and add --discard-newer if that is "
            "meant"
        )


def _is_gone(registry: Registry, table: Table) -> bool:
    """True when the table's log was deleted, or its topic created again.

    Nobody can write to it, and the way back leads over it.
    """
    return topics.epoch_of(registry.admin, table.topic) != table.epoch


def _first_write(
    registry: Registry, table: Table, partition: int, position: Mapping[tuple[str, int], int], end: int
) -> int | None:
    """The first offset from the position on that is not a control record's.

    What is not there any more counts as written.
    """
    start = position[table.epoch, partition]
    try:
        for batch in read_range(registry.bootstrap, table, partition, start, end):
            for offset, key in zip(batch.column("offset").to_pylist(), batch.column("key").to_pylist(), strict=True):
                if key is not None:
                    return int(offset)
    except LogTruncated:
        return start
    return None


def _is_left_over(registry: Registry, fork: Table) -> bool:
    """True for the topic of a restore that ended before the definition: it holds `base` records and nothing else."""
    partitions = list(range(topics.partition_count(registry.admin, fork.topic)))
    bounds = offsets.bounds(registry.admin, fork.topic, partitions)
    if (
        claims.owner_of(registry, fork.topic) is not None
        or any(bound.end > 1 for bound in bounds.values())
        or not any(b.end for b in bounds.values())
    ):
        return False
    records = (
        record
        for p, bound in bounds.items()
        for record in read_records(registry.bootstrap, fork.topic, p, bound.start, bound.end)
    )
    return all(record.key() is None and record.headers() == _BASE for record in records)
