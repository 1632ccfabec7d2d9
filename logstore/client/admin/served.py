"""Readers and workers that serve a change of the definitions, and a wait until all do."""

import time
from concurrent.futures import ThreadPoolExecutor

from logstore.client.transport.node_pages import page_of
from logstore.log.membership.live_workers import Lacking, LiveWorkers
from logstore.log.membership.nodes import Announcement
from logstore.log.tables.change import Change
from logstore.log.tables.registry import Registry
from logstore.model.errors import LogStoreError, NotYet

ASK_S, AGAIN_S = 2.0, 0.2  # for one answer; between two questions
RESTART_S = 20.0  # readers that answered and do not any more may be starting again, with the definitions they knew


def await_served(registry: Registry, change: Change, timeout_s: float, *, new: bool = False) -> Lacking:
    """Wait until a change is served by everybody; returns who does not serve it after `timeout_s`.

    Everybody: the live workers and their readers, and readers whose worker hangs or is being started again. `new`: the
    table's partitions are served as well. Raises LogUnreachable.
    """
    deadline, still_read = time.monotonic() + timeout_s, _StillRead(change.revision)
    with LiveWorkers(registry.bootstrap) as live_workers:
        while True:
            left_s = max(deadline - time.monotonic(), 0.0)
            lacking = live_workers.await_served(
                change.revision, change.table if new else None, registry.slots(), left_s
            )
            reasons = lacking.reasons or still_read.reasons(live_workers.silent())
            if not reasons or time.monotonic() > deadline:
                return lacking._replace(reasons=reasons)
            time.sleep(AGAIN_S)


def check_served(lacking: Lacking, timeout_s: float) -> None:
    """Raise NotYet that says who does not serve a change after `timeout_s`."""
    if lacking.reasons:
        raise NotYet(
            f"the definition is written, but not served by everybody after {timeout_s:g} s: "
            f"{'; '.join(lacking.reasons)}; `logstore status` shows how it goes on"
        )


class _StillRead:
    """Readers that serve older definitions than `revision`, although no worker of theirs says anything."""

    def __init__(self, revision: int) -> None:
        self._revision = revision
        self._behind: dict[tuple[str, str], tuple[int, float]] = {}  # (url, node): its revision, when it said so

    def reasons(self, silent: list[Announcement]) -> list[str]:
        """Reasons not to return. Who was behind and does not answer now is waited for, for RESTART_S."""
        nodes, now_s = sorted({(said.url, said.node) for said in silent}), time.monotonic()
        with ThreadPoolExecutor(max(len(nodes), 1)) as asking:
            found = dict(zip(nodes, asking.map(lambda node: _revision_at(*node), nodes), strict=True))
        before, self._behind = self._behind, {}
        for node, at in found.items():
            if at is not None and at < self._revision:
                self._behind[node] = at, now_s
            elif at is None and node in before and now_s - before[node][1] < RESTART_S:
                self._behind[node] = before[node]
        return [
            f"the readers at {url} serve revision {at:,} of {self._revision:,}, and their worker says nothing: end "
            "that node, or have its worker go on"
            for (url, _), (at, _) in self._behind.items()
        ]


def _revision_at(url: str, node: str) -> int | None:
    """The revision of the definitions that a node's readers serve; None: they do not answer, or are another's."""
    try:
        page = page_of(url, "/v1/cluster", ASK_S).document
        known, revision = {one["node"] for one in page["nodes"]}, page["revision"]
    except (LogStoreError, KeyError, TypeError):  # an error's page has neither
        return None
    return revision if node in known and isinstance(revision, int) else None
