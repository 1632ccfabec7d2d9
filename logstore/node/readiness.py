"""Readiness: conditions that hold before a node says that it is ready.

1. every worker of the node has announced itself, and it and its readers serve all definitions there are
2. every slot of the store is served by some worker of the group, caught up with the log
3. the readers say 200 on /readyz, more often in a row than there are readers
"""

import httpx

from logstore.log.membership.live_workers import LiveWorkers
from logstore.log.membership.nodes import Announcement
from logstore.model.errors import LogUnreachable
from logstore.node import node_page

LOOK_S = 2.0
PAGE_S = 2.0


class Readiness:
    """Readiness of a node, as its readers and its log show it. Close it."""

    def __init__(
        self, bootstrap: str, *, node: str, group: str, url: str, workers: int, readers: int, slots: int
    ) -> None:
        self._live_workers = LiveWorkers(bootstrap)
        self._node, self._group, self._url = node, group, url
        self._workers, self._readers, self._slots = workers, readers, slots

    def lacking(self) -> list[str]:
        """Conditions that do not hold yet, in words; empty: the node is ready."""
        try:
            live = [a for a in self._live_workers.look(LOOK_S) if a.group == self._group]
        except LogUnreachable as error:
            return [str(error)]
        current = [a for a in live if a.tables >= self._live_workers.definitions.revision]
        return self._of_workers(live, current) or self._of_slots(current) or self._of_readers()

    def close(self) -> None:
        """Let the connections go."""
        self._live_workers.close()

    def _of_workers(self, live: list[Announcement], current: list[Announcement]) -> list[str]:
        here = {a.worker for a in live if a.node == self._node}
        served = {a.worker for a in current if a.node == self._node}
        silent = set(range(self._workers)) - here
        behind = here - served
        return [f"worker {worker} has not joined the group" for worker in sorted(silent)] + [
            f"worker {worker} and its readers do not serve the newest tables" for worker in sorted(behind)
        ]

    def _of_slots(self, current: list[Announcement]) -> list[str]:
        missing = set(range(self._slots)) - {slot for a in current for slot in a.live}
        return [f"slots {', '.join(map(str, sorted(missing)))} catch up with the log"] if missing else []

    def _of_readers(self) -> list[str]:
        for _ in range(2 * self._readers):
            try:
                page = node_page.ask(f"{self._url}/readyz", PAGE_S)
            except httpx.HTTPError as error:
                return [f"{self._url} does not answer: {error}"]
            if page.status_code != 200:
                return [f"a reader is not ready: {page.text[:200]}"]
        return []
