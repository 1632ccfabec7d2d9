"""Node digests: digests of the nodes' views at a cut, from `/v1/snapshots`, as soon as they have them."""

from typing import Any, NamedTuple

import httpx
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from batch.context import Context
from logstore.log.live_workers import LiveWorkers
from logstore.model.table import Table

ASK_S, AGAIN_S = 5.0, 0.2


class Heard(NamedTuple):
    """Digest that a node reports of one partition; `digest` None: none, and `reason` says why."""

    group: str
    url: str | None  # None: no node of the group serves the partition
    digest: str | None = None
    entries: int = 0
    reason: str = ""


Testimony = dict[int, list[Heard]]  # partition -> each replica group's word


def hear(ctx: Context, table: Table, cuts: dict[int, int], timeout_s: float) -> Testimony:
    """The digests at `cuts`, waiting up to `timeout_s` until every replica group has said all of them.

    Raises LogUnreachable.

    With no node alive nobody is waited for.
    """
    with LiveWorkers(ctx.bootstrap) as live_workers:
        waiting = Retrying(
            retry=retry_if_result(_open), stop=stop_after_delay(timeout_s), wait=wait_fixed(AGAIN_S),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else {},
        )  # fmt: skip
        found: Testimony = waiting(_look, live_workers, table, cuts)
    return found


def _open(found: Testimony) -> bool:
    return any(heard.digest is None for those in found.values() for heard in those)


def _look(live_workers: LiveWorkers, table: Table, cuts: dict[int, int]) -> Testimony:
    found: Testimony = {partition: [] for partition in cuts}
    urls = sorted({(worker.group, worker.url) for worker in live_workers.look()})
    for group, url in urls:
        for row in _rows(url):
            if (row["table"], row["epoch"]) == (table.name, table.epoch) and row["partition"] in cuts:
                found[row["partition"]].append(_heard(group, url, row, cuts[row["partition"]]))
    for group in sorted({group for group, _ in urls}):
        for partition, those in found.items():
            if all(heard.group != group for heard in those):
                found[partition] = [*those, Heard(group, None, reason=f"no node of group {group} serves it")]
    return found


def _heard(group: str, url: str, row: dict[str, Any], cut: int) -> Heard:
    for one in row["digests"]:
        if one["cut"] == cut:
            return Heard(group, url, one["digest"], one["entries"])
    return Heard(
        group, url, reason=f"it has no digest at {cut:,} yet" + (f" ({row['reason']})" if row["reason"] else "")
    )


def _rows(url: str) -> list[dict[str, Any]]:
    try:
        answer = httpx.get(f"{url}/v1/snapshots", timeout=ASK_S, trust_env=False)
        found: list[dict[str, Any]] = answer.raise_for_status().json()["snapshots"]
    except (httpx.HTTPError, ValueError, KeyError):
        return []  # its partitions are those that nobody serves
    return found
