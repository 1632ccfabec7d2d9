"""Watchdog: finds a lane that stands still though the log has more, and a node that has lost its readers.

Kafka consumers are known to stall silently.
"""

from collections.abc import Mapping

from logstore.model.table import PartitionKey

STALL_S = 30.0
UNREAD_S = 20.0  # readers that are started again come back sooner


class Watchdog:
    """Watch over the positions of partitions that are behind.

    Asks for a new consumer first, for a new process after that.
    """

    def __init__(self, stall_s: float = STALL_S) -> None:
        self._stall_s = stall_s
        self._seen: dict[PartitionKey, tuple[int, float]] = {}  # position, and since when it has not moved
        self._restarted: set[PartitionKey] = set()

    def look(self, behind: Mapping[PartitionKey, int], now_s: float) -> tuple[set[PartitionKey], set[PartitionKey]]:
        """Partitions that ask for a new consumer now, and those that stood still again after that."""
        unmoved = {key for key, at in behind.items() if self._seen.get(key, (-1, 0.0))[0] == at}
        self._seen = {key: self._seen[key] if key in unmoved else (at, now_s) for key, at in behind.items()}
        self._restarted &= unmoved  # it did help
        still = {key for key, (_, since_s) in self._seen.items() if now_s - since_s >= self._stall_s}
        again = still & self._restarted
        for key in still:
            self._seen[key] = self._seen[key][0], now_s
        self._restarted |= still
        return still - again, again


class ReaderWatch:
    """Watch over readers that were there and are gone for good: nobody answers for the node's slots then."""

    def __init__(self, unread_s: float = UNREAD_S) -> None:
        self._unread_s = unread_s
        self._seen_s: float | None = None  # when there was one last

    def gone(self, readers: int, now_s: float) -> bool:
        """True when there was a reader once, and none for so long. `readers`: how many there are."""
        if readers:
            self._seen_s = now_s
        return self._seen_s is not None and now_s - self._seen_s >= self._unread_s
