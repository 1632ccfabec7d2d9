"""Progress of adoption, for the readers: ["snapshot", table, epoch, partition] of the feed."""

import threading
from typing import Any

from logstore.view.feed import FeedServer
from streaming.digest.digest_file import DigestRecord
from streaming.lane.target import Target

NONE: dict[str, Any] = {
    "base": None, "cut": None, "candidate": None, "state": "none", "reason": "", "fetched_bytes": 0, "total_bytes": 0,
    "digests": [],
}  # fmt: skip


class AdoptionProgress:
    """Adoption state of every partition, published to the feed; thread-safe."""

    def __init__(self, feed: FeedServer) -> None:
        self._feed, self._lock = feed, threading.Lock()
        self._shown: dict[tuple[str, str, str, int], dict[str, Any]] = {}

    def show(self, target: Target, **changes: Any) -> None:
        """Change what is shown of a partition."""
        key = _key(target)
        with self._lock:
            shown = {**self._shown.get(key, NONE), **changes}
            if shown != self._shown.get(key):
                self._shown[key] = shown
                self._feed.publish(key, shown)

    def state(self, target: Target) -> str:
        """The word that is shown."""
        return str(self._shown.get(_key(target), NONE)["state"])

    def digests(self, target: Target, found: list[DigestRecord]) -> None:
        """Publish the digests of a partition."""
        self.show(target, digests=[list(one) for one in found])

    def only(self, targets: list[Target]) -> None:
        """Take back what is shown of other partitions."""
        keys = {_key(target) for target in targets}
        with self._lock:
            for key in self._shown.keys() - keys:
                del self._shown[key]
                self._feed.publish(key, None)


def _key(target: Target) -> tuple[str, str, str, int]:
    return ("snapshot", target.table.name, *target.key)
