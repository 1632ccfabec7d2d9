"""Log points: ends and barriers of logs as Kafka told them to workers, and those that requests of this reader wait for.

A point says at which time it was asked for, and up to which offset a view must have applied the log so that nothing is
missing that was acknowledged before. A reader that needs a later one names the partition in its acknowledgements, again
and again until there is an answer (a worker may have been restarted meanwhile), and one answer serves everybody whose
request came before it was asked for.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import itemgetter

from logstore.model.table import PartitionKey
from logstore.serve.state.waiters import Waiters
from logstore.view.feed.acknowledgement import LogDemand
from logstore.view.feed.log_records import LogPointRecord, clock_ns

END, BARRIER = "end", "barrier"  # kinds of points
MOST = 500  # partitions named at once, of each kind; the others come next
_MOST_POINTS = 16

Place = tuple[str, str, int]  # kind, epoch, partition
_asked = itemgetter(0)


class LogPoints:
    """Points of the logs that are known here, and wanted. `on_change` is called when more of them are wanted."""

    def __init__(self, waiters: Waiters) -> None:
        self._waiters = waiters
        self._known: dict[Place, list[tuple[int, int]]] = {}  # (asked, next offset), in the order of asking
        self._failed: dict[Place, LogPointRecord] = {}  # the newest answer, where that is that there is none
        self._wanted: dict[Place, _Wanted] = {}
        self.on_change: Callable[[], None] = lambda: None

    def first(self, place: Place, since_ns: int) -> int | None:
        """Next offset of the first point that was asked for at `since_ns` or later; None while there is none."""
        known = self._known.get(place)
        if not known or known[-1][0] < since_ns:
            return None
        return known[bisect_left(known, since_ns, key=_asked)][1]

    def failure(self, place: Place, since_ns: int) -> str | None:
        """Reason for which Kafka told no point when it was asked at `since_ns` or later; None: it has not been."""
        failed = self._failed.get(place)
        return failed.why if failed is not None and failed.asked_ns >= since_ns else None

    @contextmanager
    def wanted(self, place: Place, since_ns: int) -> Iterator[None]:
        """A point that is asked for at `since_ns` or later is waited for inside the block."""
        one = self._wanted.setdefault(place, _Wanted())
        one.requests += 1
        if since_ns > one.since_ns:
            one.since_ns = since_ns
            self.on_change()
        try:
            yield
        finally:
            one.requests -= 1
            if not one.requests:
                del self._wanted[place]

    def listed(self, kind: str) -> tuple[LogDemand, ...]:
        """Partitions of which a point is wanted that is not known yet, for acknowledgements."""
        due = []
        for place, one in self._wanted.items():
            if place[0] == kind and one.since_ns > self._newest_ns(place):
                due.append(LogDemand(place[1], place[2], one.since_ns))
                if len(due) == MOST:
                    break
        return tuple(due)

    def heard(self, kind: str, where: PartitionKey, record: LogPointRecord, applied: int = 0) -> None:
        """A worker has asked Kafka. `applied`: next offset of the view as last heard, which makes older points idle."""
        place = kind, *where
        if record.asked_ns <= self._newest_ns(place):  # told again, or by a worker that has asked before another did
            return
        if record.asked_ns > clock_ns():  # its worker has another clock: nothing can be known by it
            return
        if record.next_offset < 0:
            self._failed[place] = record
        else:
            self._failed.pop(place, None)
            known = self._known.setdefault(place, [])
            known.append((record.asked_ns, record.next_offset))
            _thin(known, applied)
        self._waiters.reached(place, record.asked_ns)

    def wake(self, where: PartitionKey) -> None:
        """Let everybody look again who waits for a point of a partition whose view, or worker, is another now."""
        self._waiters.wake((END, *where))
        self._waiters.wake((BARRIER, *where))

    def forget(self, epochs: frozenset[str]) -> None:
        """Forget the topics of the past."""
        for points in (self._known, self._failed):
            for place in [place for place in points if place[1] in epochs]:
                del points[place]

    def _newest_ns(self, place: Place) -> int:
        """Time of the newest answer, whatever it was."""
        known, failed = self._known.get(place), self._failed.get(place)
        return max(known[-1][0] if known else 0, failed.asked_ns if failed else 0)


class _Wanted:
    __slots__ = ("requests", "since_ns")

    def __init__(self) -> None:
        self.requests, self.since_ns = 0, -(2**63)


def _thin(known: list[tuple[int, int]], applied: int) -> None:
    """Drop what no request needs: all but the newest that are applied; of too many that are not, the densest."""
    while len(known) > 1 and known[1][1] <= applied:
        del known[0]
    if len(known) > _MOST_POINTS:
        del known[min(range(1, len(known) - 1), key=lambda i: known[i + 1][0] - known[i - 1][0])]
