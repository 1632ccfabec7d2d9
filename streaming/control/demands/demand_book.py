"""Demand book: partitions of which readers want a point of the log, and those that Kafka is being asked about.

A demand names the time at which its newest request came. It joins the next asking that has not begun, never one under
way, which may have passed already what the request must see; and of one partition at most one asking is under way. So
whatever comes meanwhile is answered together (group commit: DeWitt et al. 1984).
"""

import threading
import time
from collections.abc import Callable, Iterable

from logstore.model.table import PartitionKey
from logstore.view.feed.acknowledgement import LogDemand
from logstore.view.feed.log_records import clock_ns

GATHER_S = 0.002  # between two askings, so that one serves several readers; after a rest there is no wait


class Gathering:
    """Time between askings, so that under load one of them answers many demands."""

    def __init__(self, gather_s: float = GATHER_S) -> None:
        self._gather_s, self._due_s, self._ended = gather_s, 0.0, threading.Event()

    def wait(self) -> None:
        """Return when the next asking may begin, which it does now."""
        self._ended.wait(max(self._due_s - time.monotonic(), 0.0))
        self._due_s = time.monotonic() + self._gather_s

    def end(self) -> None:
        """Wait no more."""
        self._ended.set()


class DemandBook:
    """Demands for points of one kind; any thread. `demands` gives all that readers want now."""

    def __init__(self, demands: Callable[[], Iterable[LogDemand]], clock: Callable[[], int] = clock_ns) -> None:
        self._demands, self._clock, self._lock = demands, clock, threading.Lock()
        self._under_way: dict[PartitionKey, int] = {}  # when each was asked
        self._answered: dict[PartitionKey, int] = {}  # when each was asked that has an answer

    def take(self, may: Callable[[PartitionKey], bool]) -> dict[PartitionKey, int]:
        """Partitions to ask Kafka about from now on, with the time of it; `may` says of which it can be asked here.

        Each is under way until `answered`.
        """
        with self._lock:
            now_ns, taken, known = self._clock(), dict[PartitionKey, int](), dict[PartitionKey, int]()
            for epoch, partition, since_ns in self._demands():
                key = epoch, partition
                known[key] = self._answered.get(key, 0)
                due = known[key] < since_ns <= now_ns  # one of a time to come is by another clock than this
                if due and key not in self._under_way and may(key):
                    taken[key] = now_ns
            self._under_way |= taken
            self._answered = known
            return taken

    def answered(self, key: PartitionKey) -> None:
        """Kafka has answered, or will not: a demand that came since the asking is due now."""
        with self._lock:
            self._answered[key] = self._under_way.pop(key)
