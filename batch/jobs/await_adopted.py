"""Await adopted: until every node serves a table from a snapshot, or nobody comes further; then those that do not."""

import time

from batch.context import Context
from batch.jobs.node_adoptions import Reached, adoptions_at, reached, until_still
from logstore.log.membership.live_workers import LiveWorkers
from logstore.model.errors import LogStoreError, SnapshotRefused
from logstore.model.table import Table
from logstore.process.progress import Patience
from logstore.snapshot.manifest import Manifest
from logstore.view.feed.adoption_records import REFUSED, AdoptionRecord


def await_adopted(ctx: Context, table: Table, snapshot: Manifest, patience_s: float) -> float:
    """Wait until each replica group serves every partition from `snapshot` or a later one; returns the seconds it took.

    Raises LogStoreError when a node refuses it, or when nobody came further for `patience_s`: the snapshot is published
    all the same.
    """
    began = time.monotonic()
    with LiveWorkers(ctx.bootstrap) as live_workers:
        lacking = until_still(lambda seen: _lacking(live_workers, table, snapshot, seen), bool, Patience(patience_s))
    if lacking:
        raise LogStoreError(
            f"snapshot {snapshot.name} is published, but not everybody serves from it, and nobody came further for "
            f"{patience_s:g} s: {'; '.join(lacking[:5])}; `logstore status` shows how it goes on"
        )
    return time.monotonic() - began


def _lacking(live_workers: LiveWorkers, table: Table, snapshot: Manifest, seen: Reached) -> list[str]:
    """Partitions, by replica group, that are not served from the snapshot yet."""
    groups: dict[str, set[int]] = {}
    for url, group in sorted({(worker.url, worker.group) for worker in live_workers.look()}):
        adopted = groups.setdefault(group, set())
        adoptions = adoptions_at(url, table)
        adopted.update(partition for partition, one in adoptions.items() if _holds(one, snapshot, partition, url))
        for partition, one in adoptions.items():
            seen.update(reached(url, partition, one))
    if not groups:
        return ["no node runs"]
    missing = {group: sorted(set(range(table.partitions)) - adopted) for group, adopted in groups.items()}
    return [f"group {group} lacks the partitions {partitions}" for group, partitions in missing.items() if partitions]


def _holds(adoption: AdoptionRecord, snapshot: Manifest, partition: int, url: str) -> bool:
    """True when a partition is served from the snapshot or one with a later cut. Raises SnapshotRefused."""
    if adoption.state == REFUSED and adoption.candidate == snapshot.name:
        raise SnapshotRefused(
            f"{url} refuses snapshot {snapshot.name} for partition {partition}: {adoption.reason}; `logstore batch "
            f"audit {snapshot.table} --explain` names the rows that differ"
        )
    return adoption.base is not None and adoption.cut is not None and adoption.cut >= snapshot.parts[partition].cut
