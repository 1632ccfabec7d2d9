"""Watchdog: finds a lane that stands still though the log has more, and a node that has lost its readers.

Kafka consumers are known to stall silently. A process that was stopped itself has seen nothing stall: what it missed
meanwhile counts for nobody.
"""

from collections.abc import Mapping
from math import inf

from logstore.model.table import PartitionKey

STALL_S = 30.0
UNREAD_S = 20.0  # readers that are started again come back sooner


class RunningClock:
    """Time that this worker was running, as far as its looks tell; longer between two of them it was paused.

    Stopped (SIGSTOP, a debugger), or on a machine that slept or gave it no processor time.
    """

    def __init__(self, session_s: float, now_s: float) -> None:
        """`session_s`: of the worker in its group; whoever is silent for longer has lost its slots."""
        self._session_s, self._looked_s = session_s, now_s
        self._missed_s = 0.0
        self._pause_s, self._resumed_s = 0.0, -inf

    def look(self, now_s: float) -> float:
        """Note a look; returns the time without pauses."""
        since_s, self._looked_s = now_s - self._looked_s, now_s
        if since_s > self._session_s:
            self._missed_s += since_s
            self._pause_s, self._resumed_s = since_s, now_s
        return now_s - self._missed_s

    def pause(self, seen_s: float) -> str | None:
        """Say how long the pause was for which something was seen last at `seen_s`; None: it was another reason."""
        if seen_s >= self._resumed_s + self._session_s:  # it takes about as long until the group is formed again
            return None
        return (
            f"it was paused for {self._pause_s:.0f} s (stopped, or without processor time), longer than its session of "
            f"{self._session_s:g} s in the group: its slots have gone to others, and it has to begin again"
        )


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
