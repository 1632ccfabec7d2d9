"""Snapshot page: partitions served here and the state of their snapshots, `/v1/snapshots`, as the workers report it."""

from typing import Any

from logstore.serve.state.catalog import Catalog
from logstore.serve.state.partition import ServedPartition

NONE, ADOPTED, REFUSED = "none", "adopted", "refused"


def standing(catalog: Catalog, served: ServedPartition) -> dict[str, Any]:
    """Adoption state of one partition, as its worker reports it.

    From the opened one where the worker has said nothing yet.
    """
    base = served.base
    row: dict[str, Any] = {
        "base": base and base.where.snapshot, "cut": base and base.cut, "candidate": None,
        "state": ADOPTED if base else NONE, "reason": "",
        "fetched_bytes": 0, "total_bytes": 0, "digests": [],
    }  # fmt: skip
    return row | catalog.snapshots.get((served.epoch, served.partition), {})


def rows(catalog: Catalog) -> list[dict[str, Any]]:
    """Documents of the partitions, by table and partition."""
    ordered = sorted(catalog.served.values(), key=lambda served: (served.table, served.partition))
    return [_row(served, standing(catalog, served)) for served in ordered]


def base_of(served: ServedPartition) -> dict[str, Any] | None:
    """The snapshot that the view stands on, as `/v1/partitions` shows it."""
    return None if served.base is None else {"snapshot": served.base.where.snapshot, "cut": served.base.cut}


def _row(served: ServedPartition, stands: dict[str, Any]) -> dict[str, Any]:
    digests = [dict(zip(("cut", "digest", "entries"), one, strict=True)) for one in stands["digests"]]
    return {"table": served.table, "epoch": served.epoch, "partition": served.partition, **stands, "digests": digests}
