"""Adopted: whether a node serves a table from a snapshot, and whether what it counted itself is what Spark counted."""

from typing import Any

import httpx
from tenacity import RetryError, Retrying, retry_if_not_result, stop_after_delay, wait_fixed

from logstore import LogStoreError, Position

ADOPTED_S = 120.0
_ASK_S, _AGAIN_S = 10.0, 0.1


def partitions(url: str, table: str) -> list[dict[str, Any]]:
    """How the table's partitions on a node stand with their snapshots."""
    answer = httpx.get(f"{url}/v1/snapshots", timeout=_ASK_S, trust_env=False).raise_for_status()
    return [row for row in answer.json()["snapshots"] if row["table"] == table]


def await_adopted(url: str, table: str, count: int, snapshot: str) -> list[dict[str, Any]]:
    """Wait until a node serves `count` partitions from `snapshot`.

    How they stand. Raises LogStoreError when it does not or will not.
    """
    waiting = Retrying(retry=retry_if_not_result(bool), stop=stop_after_delay(ADOPTED_S), wait=wait_fixed(_AGAIN_S))
    try:
        found: list[dict[str, Any]] = waiting(_adopted, url, table, count, snapshot)
    except RetryError as error:
        stand = {row["partition"]: (row["state"], row["reason"]) for row in partitions(url, table)}
        raise LogStoreError(f"snapshot {snapshot} was not adopted within {ADOPTED_S:g} s: {stand}") from error
    return found


def _adopted(url: str, table: str, count: int, snapshot: str) -> list[dict[str, Any]]:
    """The partitions when all of them are served from it, else nothing."""
    rows = partitions(url, table)
    for row in rows:
        if row["state"] == "refused":
            raise LogStoreError(f"partition {row['partition']} refuses snapshot {snapshot}: {row['reason']}")
    return rows if len(rows) == count and all(row["base"] == snapshot for row in rows) else []


def digests_equal(rows: list[dict[str, Any]], cut: str, digests: dict[str, str]) -> bool:
    """True when every partition's own digest at the cut is the snapshot's.

    `cut`: its token; `digests`: partition -> 32 hex digits.
    """
    cuts = {partition: offset for (_, partition), offset in Position.parse(cut).pieces.items()}
    own = {
        str(row["partition"]): {one["cut"]: one["digest"] for one in row["digests"]}.get(cuts[row["partition"]])
        for row in rows
    }
    return own == digests
