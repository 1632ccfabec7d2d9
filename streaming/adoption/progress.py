"""Progress of adoption, for the readers: the `AdoptionRecord` of every partition, in the feed."""

import threading
from collections import Counter
from typing import Any

from logstore.view.feed.adoption_records import AdoptionKey, AdoptionRecord
from logstore.view.feed.server import FeedServer
from streaming.digest.digest_file import FiledDigest
from streaming.lane.target import Target


class AdoptionProgress:
    """Adoption state of every partition, published to the feed; thread-safe."""

    def __init__(self, feed: FeedServer) -> None:
        self._feed, self._lock = feed, threading.Lock()
        self._published: dict[AdoptionKey, AdoptionRecord] = {}
        self._verdicts: Counter[tuple[str, str]] = Counter()  # (table, word), since this worker began

    def show(self, target: Target, **changes: Any) -> None:
        """Change fields of the partition's `AdoptionRecord`."""
        key = _key(target)
        with self._lock:
            record = self._published.get(key, AdoptionRecord())._replace(**changes)
            if record != self._published.get(key):
                self._published[key] = record
                self._feed.publish(key, record)

    def judged(self, table: str, word: str) -> None:
        """Count a verdict on one partition of a snapshot."""
        with self._lock:
            self._verdicts[table, word] += 1

    def verdicts(self) -> dict[tuple[str, str], int]:
        """Counts of verdicts by table and word."""
        with self._lock:
            return dict(self._verdicts)

    def state(self, target: Target) -> str:
        """The word that is shown."""
        return self._published.get(_key(target), AdoptionRecord()).state

    def digests(self, target: Target, found: list[FiledDigest]) -> None:
        """Publish the digests of a partition."""
        self.show(target, digests=tuple(one.record() for one in found))

    def only(self, targets: list[Target]) -> None:
        """Take back what is shown of other partitions."""
        keys = {_key(target) for target in targets}
        with self._lock:
            for key in self._published.keys() - keys:
                del self._published[key]
                self._feed.publish(key, None)


def _key(target: Target) -> AdoptionKey:
    return AdoptionKey(target.table.name, *target.key)
