"""A reader over views that stand on snapshots, and what it is asked."""

import httpx
from support_wait import until

from logstore.view.feed.view_records import LocalSnapshotRecord
from tests.support_serve import Node, Reader


def adopt(node: Node, reader: Reader, name: str = "t", partition: int = 0, keep: int = 1) -> LocalSnapshotRecord:
    """Adopt a snapshot and wait until the reader answers from it."""
    base = node.adopt(name, partition, keep)
    shown = {"snapshot": base.snapshot, "cut": base.cut, "proof": "proved"}
    until("the base is served", lambda: base_of(reader, name, partition) == shown)
    return base


def base_of(reader: Reader, name: str, partition: int) -> object:
    rows = reader.get("/v1/partitions").json()["partitions"]
    return next(row["base"] for row in rows if (row["table"], row["partition"]) == (name, partition))


def row(reader: Reader, key: str, **headers: str) -> httpx.Response:
    return reader.get(
        f"/v1/tables/t/rows/{key}", headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def token(node: Node, offset: int, name: str = "t", partition: int = 0) -> str:
    return f"{node.tables[name].epoch}-{partition}-{offset}"
