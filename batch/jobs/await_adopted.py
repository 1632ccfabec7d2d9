"""Await adopted: until every node serves a table from a snapshot, or with the nodes that do not and why."""

import time

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from batch.context import Context
from batch.jobs.node_adoptions import AGAIN_S, adoptions_at
from logstore.log.membership.live_workers import LiveWorkers
from logstore.model.errors import LogStoreError, SnapshotRefused
from logstore.model.table import Table
from logstore.snapshot.manifest import Manifest
from logstore.view.feed.adoption_records import REFUSED, AdoptionRecord


def await_adopted(ctx: Context, table: Table, snapshot: Manifest, timeout_s: float) -> float:
    """Wait until each replica group serves every partition from `snapshot` or a later one; returns the seconds it took.

    Raises LogStoreError when a node refuses it, or when `timeout_s` passed: the snapshot is published all the same.
    """
    began = time.monotonic()
    waiting = Retrying(retry=retry_if_result(bool), stop=stop_after_delay(timeout_s), wait=wait_fixed(AGAIN_S))
    lacking: list[str] = []

    def look(live_workers: LiveWorkers) -> list[str]:
        lacking[:] = _lacking(live_workers, table, snapshot)
        return lacking

    with LiveWorkers(ctx.bootstrap) as live_workers:
        try:
            waiting(look, live_workers)
        except RetryError as error:
            raise LogStoreError(
                f"snapshot {snapshot.name} is published, but after {timeout_s:g} s not everybody serves from it: "
                f"{'; '.join(lacking[:5])}; "
                "`logstore status` shows how it goes on"
            ) from error
    return time.monotonic() - began


def _lacking(live_workers: LiveWorkers, table: Table, snapshot: Manifest) -> list[str]:
    """Partitions, by replica group, that are not served from the snapshot yet."""
    groups: dict[str, set[int]] = {}
    for url, group in sorted({(worker.url, worker.group) for worker in live_workers.look()}):
        adopted = groups.setdefault(group, set())
        adoptions = adoptions_at(url, table)
        adopted.update(partition for partition, one in adoptions.items() if _holds(one, snapshot, partition, url))
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
