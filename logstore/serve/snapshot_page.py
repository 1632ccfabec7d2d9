"""Snapshot page: partitions served here and the state of their snapshots, `/v1/snapshots`, as the workers report it."""

from typing import Any

from logstore.serve.state.catalog import Catalog
from logstore.serve.state.partition import ServedPartition
from logstore.snapshot.verdicts import PROVED, UNPROVED
from logstore.view.feed.adoption_records import ADOPTED, AdoptionRecord


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
