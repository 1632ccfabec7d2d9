"""Snapshot page: partitions served here and the state of their snapshots, `/v1/snapshots`, as the workers report it.

With the schedules of the tables, where a worker of this node leads them.
"""

import time
from collections.abc import Iterable
from typing import Any

from logstore.serve.state.catalog import Catalog
from logstore.serve.state.partition import ServedPartition
from logstore.serve.state.worker_feed import WorkerFeed
from logstore.snapshot import schedule
from logstore.snapshot.schedule import ScheduleRun, Standing
from logstore.snapshot.verdicts import PROVED, UNPROVED
from logstore.view.feed.adoption_records import ADOPTED, AdoptionRecord
from logstore.view.feed.table_records import ScheduleKey, ScheduleRecord


def standing(catalog: Catalog, served: ServedPartition) -> AdoptionRecord:
    """Adoption state of one partition, as its worker reports it.

    From the opened one where the worker has said nothing yet.
    """
    record = catalog.snapshots.get((served.epoch, served.partition))
    if record is not None:
        return record
    base = served.base
    if base is None:
        return AdoptionRecord(proof=PROVED)
    return AdoptionRecord(base.where.snapshot, base.cut, state=ADOPTED, proof=UNPROVED)


def rows(catalog: Catalog) -> list[dict[str, Any]]:
    """Documents of the partitions, by table and partition."""
    ordered = sorted(catalog.served.values(), key=lambda served: (served.table, served.partition))
    return [_row(served, standing(catalog, served)) for served in ordered]


def schedules(catalog: Catalog, feeds: Iterable[WorkerFeed]) -> list[dict[str, Any]]:
    """Documents of the scheduled tables that a worker of this node leads, by name."""
    records = {key: record for feed in feeds for key, record in feed.schedules.items()}
    found = [(key, record, (catalog.tables or {}).get(key.table)) for key, record in records.items()]
    known = [(key, record, table.schedule) for key, record, table in found if table and table.epoch == key.epoch]
    rows = (_schedule(key, record, limits) for key, record, limits in known if limits)
    return sorted(rows, key=lambda row: str(row["table"]))


def _schedule(key: ScheduleKey, record: ScheduleRecord, limits: schedule.Limits) -> dict[str, Any]:
    fields = record._asdict()
    mutations, snapshot_ms = fields.pop("mutations"), fields.pop("snapshot_ms")
    now_ms = time.time_ns() // 1_000_000
    standing = None if mutations < 0 else Standing(mutations, (now_ms - snapshot_ms) / 60_000)
    document = schedule.document(limits, standing, ScheduleRun(**fields), now_ms)
    return {"table": key.table, "epoch": key.epoch, **document}


def base_of(catalog: Catalog, served: ServedPartition) -> dict[str, Any] | None:
    """The snapshot that the view stands on, as `/v1/partitions` shows it; `proof`: that of what its fold began with."""
    if served.base is None:
        return None
    return {"snapshot": served.base.where.snapshot, "cut": served.base.cut, "proof": standing(catalog, served).proof}


def _row(served: ServedPartition, stands: AdoptionRecord) -> dict[str, Any]:
    digests = [digest._asdict() for digest in stands.digests]
    place = {"table": served.table, "epoch": served.epoch, "partition": served.partition}
    facts = {name: value for name, value in stands._asdict().items() if name != "local"}
    return {**place, **facts, "digests": digests}
