"""Watchdog: finds a lane that stands still though the log has more, and a node that has lost its readers.

Kafka consumers are known to stall silently. A process that was stopped itself has seen nothing stall: what it missed
meanwhile counts for nobody.
"""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from logstore.model.table import PartitionKey

STALL_S = 30.0
UNREAD_S = 20.0  # readers that are started again come back sooner
_PAUSES = 8  # that are remembered


class RunGap(NamedTuple):
    """A time that this worker did not run."""

    seconds: float
    resumed_s: float  # when it went on


class RunningClock:
    """Time that this worker was running, as far as its looks tell; longer between two of them it was paused.

    Stopped (SIGSTOP, a debugger), or on a machine that slept or gave it no processor time. What it missed meanwhile is
    nobody's fault: whoever was silent has as long as ever from when it went on.
    """

    def __init__(self, session_s: float, now_s: float) -> None:
        """`session_s`: of the worker in its group; whoever is silent for longer has lost its slots."""
        self._session_s, self._now_s, self._missed_s = session_s, now_s, 0.0
        self._pauses: deque[RunGap] = deque(maxlen=_PAUSES)

    def look(self, now_s: float) -> float:
        """Note a look; returns the time without pauses."""
        since_s, self._now_s = now_s - self._now_s, now_s
        if since_s > self._session_s:
            self._missed_s += since_s
            self._pauses.append(RunGap(since_s, now_s))
        return now_s - self._missed_s

    def ran_since(self, seen_s: float) -> float:
        """Seconds that it ran since something was seen, as of the last look."""
        return self._now_s - seen_s - sum(pause.seconds for pause in self._pauses if seen_s < pause.resumed_s)

    def lost_session(self, seen_s: float) -> str | None:
        """Reason of what has not been seen since, if a pause is the reason; None: it is another."""
        for pause in reversed(self._pauses):
            if seen_s < pause.resumed_s + self._session_s:  # it takes about as long until the group is formed again
                return (
                    f"it was paused for {pause.seconds:.0f} s (stopped, or without processor time), longer than its "
                    f"session of {self._session_s:g} s: its slots went to others, and it has not come back by itself"
                )
        return None


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
