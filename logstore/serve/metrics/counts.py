"""Counts of one reader process: requests, reads, waiters, connections. All of them carry the label `reader`."""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import NamedTuple

from logstore.process.figures import HISTOGRAM, Family, Sample, counter, gauge, of_process
from logstore.serve.state.catalog import Catalog
from logstore.serve.state.partition import SNAPSHOT, VIEW
from logstore.serve.state.waiters import Waiters

_BOUNDS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_FIRST_BOUND_S = _BOUNDS_S[0]
_ROW = "row"
FAST, ORDINARY = "fast", "ordinary"


class Latency:
    """A histogram of seconds, without locks: everything happens on the event loop."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(_BOUNDS_S) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count a request by its duration."""
        self.buckets[bisect_left(_BOUNDS_S, seconds)] += 1
        self.total += seconds


class _Answered(NamedTuple):
    """Kind of answer. `way`: the fast path, or the ordinary one."""

    route: str
    status: str
    way: str


class Metrics:
    """Counts of a reader."""

    def __init__(self, reader: int, catalog: Catalog, waiters: Waiters) -> None:
        self.process, self._labels = f"reader-{reader}", {"reader": str(reader)}
        self._catalog, self._waiters = catalog, waiters
        self._requests: dict[tuple[str, str, int], int] = {}
        self._latency: dict[_Answered, Latency] = {}
        self.fast = self._latency[_Answered(_ROW, "200", FAST)] = Latency()
        self.fast_requests = 0  # GETs of rows answered 200 by the fast path
        self.fast_from_base = 0  # those of them whose entry came from a snapshot
        self.connections: Callable[[], int] = lambda: 0
        self.more: list[Callable[[dict[str, str]], Iterable[Family]]] = []  # figures that others keep, given the labels

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer of the ordinary way by method, route and status."""
        key = (method, route, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        self._latency.setdefault(_Answered(route, str(status), ORDINARY), Latency()).observe(seconds)

    def count_fast(self, seconds: float) -> None:
        """Count one answer of the fast path."""
        self.fast_requests += 1
        fast = self.fast
        fast.total += seconds
        if seconds < _FIRST_BOUND_S:
            fast.buckets[0] += 1
        else:
            fast.buckets[bisect_left(_BOUNDS_S, seconds)] += 1

    def families(self) -> Iterable[Family]:
        """Families of all that this process has counted."""
        yield from of_process(self.process)
        yield self._reads()
        yield self._http_requests()
        yield self._http_seconds()
        for name, text, value in (
            ("logstore_waiters", "Requests that wait for a position.", self._waiters.count),
            ("logstore_http_open_connections", "Open connections.", self.connections()),
        ):
            yield gauge(name, text, [(self._labels, value)])
        for families in self.more:
            yield from families(self._labels)
        quick = [(self._labels, self.fast_requests)]
        yield counter("logstore_fast_path", "Rows answered by the short cut.", quick)

    def _reads(self) -> Family:
        fast = {VIEW: self.fast_requests - self.fast_from_base, SNAPSHOT: self.fast_from_base}
        values = [
            ({**self._labels, "source": source}, count + fast[source]) for source, count in self._catalog.reads.items()
        ]
        return counter("logstore_reads", "Single rows looked up, by where the entry was.", values)

    def _http_requests(self) -> Family:
        counts = dict(self._requests)
        counts["GET", _ROW, 200] = counts.get(("GET", _ROW, 200), 0) + self.fast_requests
        values = [
            ({**self._labels, "method": method, "route": route, "status": str(status)}, count)
            for (method, route, status), count in counts.items()
        ]
        return counter("logstore_http_requests", "Answers by method, route and status.", values)

    def _http_seconds(self) -> Family:
        samples = [
            sample
            for answered, latency in self._latency.items()
            for sample in _histogram({**self._labels, **answered._asdict()}, latency)
        ]
        text = "Time to an answer, by route, status and way: the fast path's, or the ordinary one."
        return Family("logstore_http_request_seconds", HISTOGRAM, text, tuple(samples))


def _histogram(labels: dict[str, str], latency: Latency) -> Iterable[Sample]:
    counts = list(accumulate(latency.buckets))
    for bound, count in zip((*_BOUNDS_S, "+Inf"), counts, strict=True):
        yield Sample("_bucket", {**labels, "le": str(bound)}, count)
    yield Sample("_sum", labels, latency.total)
    yield Sample("_count", labels, counts[-1])
