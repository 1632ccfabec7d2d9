"""Node digests: digests of the nodes' views at a cut, from `/v1/snapshots`, as soon as they have them."""

from typing import NamedTuple

from batch.context import Context
from batch.jobs.node_adoptions import Reached, adoptions_at, reached, until_still
from logstore.log.membership.live_workers import LiveWorkers
from logstore.model.table import Table
from logstore.process.progress import Patience
from logstore.view.feed.adoption_records import AdoptionRecord


class Heard(NamedTuple):
    """Digest that a node reports of one partition; `digest` None: none, and `reason` says why."""

    group: str
    url: str | None  # None: no node of the group serves the partition
    digest: str | None = None
    entries: int = 0
    reason: str = ""


Testimony = dict[int, list[Heard]]  # partition -> each replica group's word


def hear(ctx: Context, table: Table, cuts: dict[int, int], patience_s: float) -> Testimony:
    """The digests at `cuts`, as far as replica groups have said them when nobody comes further for `patience_s`.

    Raises LogUnreachable.

    With no node alive nobody is waited for.
    """
    with LiveWorkers(ctx.bootstrap) as live_workers:
        return until_still(lambda seen: _look(live_workers, table, cuts, seen), _open, Patience(patience_s))


def _open(found: Testimony) -> bool:
    return any(heard.digest is None for those in found.values() for heard in those)


def _look(live_workers: LiveWorkers, table: Table, cuts: dict[int, int], seen: Reached) -> Testimony:
    found: Testimony = {partition: [] for partition in cuts}
    urls = sorted({(worker.group, worker.url) for worker in live_workers.look()})
    for group, url in urls:
        for partition, adoption in adoptions_at(url, table).items():
            seen.update(reached(url, partition, adoption))
            if partition in cuts:
                found[partition].append(_heard(group, url, adoption, cuts[partition]))
    for group in sorted({group for group, _ in urls}):
        for partition, those in found.items():
            if all(heard.group != group for heard in those):
                found[partition] = [*those, Heard(group, None, reason=f"no node of group {group} serves it")]
    return found


def _heard(group: str, url: str, adoption: AdoptionRecord, cut: int) -> Heard:
    for one in adoption.digests:
        if one.cut == cut:
            return Heard(group, url, one.digest, one.entries)
    why = f" ({adoption.reason})" if adoption.reason else ""
    return Heard(group, url, reason=f"it has no digest at {cut:,} yet{why}")
