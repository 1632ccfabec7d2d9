"""Metrics of one reader process, in Prometheus' text format.

The readers of a node share one port and a scrape meets one of them: what belongs to the process carries the label
`reader`, what belongs to a partition reads the same on every reader of the node.
"""

import resource
from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from logstore.model.errors import LogStoreError
from logstore.serve.snapshot_page import standing
from logstore.serve.state.catalog import Catalog
from logstore.serve.state.partition import SNAPSHOT, VIEW, ServedPartition
from logstore.serve.state.waiters import Waiters
from logstore.view.feed_records import CATCHING_UP, LIVE, REFUSED, STOPPED
from logstore.view.layout import State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_FIRST_BOUND_S = _BOUNDS_S[0]
_FAST = "row"


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


class Metrics(Collector):
    """Metrics of a reader."""

    def __init__(self, reader: int, catalog: Catalog, waiters: Waiters) -> None:
        self._reader, self._catalog, self._waiters = str(reader), catalog, waiters
        self._requests: dict[tuple[str, str, int], int] = {}
        self._latency: dict[str, Latency] = {}
        self.fast = self._latency[_FAST] = Latency()  # rows: both ways count here
        self.fast_requests = 0  # GETs of rows answered 200 by the fast path
        self.fast_below = 0  # those of them whose entry came from a snapshot
        self.connections: Callable[[], int] = lambda: 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer by method, route and status."""
        key = (method, route, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        self._latency.setdefault(route, Latency()).observe(seconds)

    def count_fast(self, seconds: float) -> None:
        """Count one answer of the fast path."""
        self.fast_requests += 1
        fast = self.fast
        fast.total += seconds
        if seconds < _FIRST_BOUND_S:
            fast.buckets[0] += 1
        else:
            fast.buckets[bisect_left(_BOUNDS_S, seconds)] += 1

    def text(self) -> bytes:
        """Text of the page `/metrics`."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Metric families, for Prometheus' client library."""
        yield from self._of_partitions()
        yield from self._of_snapshots()
        yield self._reads()
        yield self._quarantined()
        yield self._http_requests()
        yield self._http_seconds()
        yield from self._of_process()

    def _of_partitions(self) -> Iterable[Metric]:
        labels = ("table", "partition")
        applied = GaugeMetricFamily("logstore_applied_offset", "Next offset of the partition's view.", labels=labels)
        lag = GaugeMetricFamily(
            "logstore_lag_records", "Records behind the end of the log as last heard.", labels=labels
        )
        size = GaugeMetricFamily("logstore_view_bytes", "Bytes of the view in use.", labels=labels)
        mapped = GaugeMetricFamily("logstore_view_map_bytes", "Address space of the view's map.", labels=labels)
        slots = GaugeMetricFamily(
            "logstore_view_reader_slots", "The most reader slots in use at once, of 1,024.", labels=labels
        )
        state = GaugeMetricFamily(
            "logstore_partition_state", "1 for the state the partition is in.", labels=(*labels, "state")
        )
        for served in self._catalog.served.values():
            where = (served.table, str(served.partition))
            actual, stands = _actual(served)
            if served.reader is not None and stands is not None:
                applied.add_metric(where, stands.next_offset)
                lag.add_metric(where, served.lag(stands.next_offset) or 0)
                size.add_metric(where, served.reader.size_bytes())
                mapped.add_metric(where, served.reader.map_bytes())
                slots.add_metric(where, served.reader.slots())
            for name in (LIVE, CATCHING_UP, STOPPED):
                state.add_metric((*where, name), float(name == actual))
        return applied, lag, size, mapped, slots, state

    def _of_snapshots(self) -> Iterable[Metric]:
        labels = ("table", "partition")
        cut = GaugeMetricFamily(
            "logstore_snapshot_cut", "First offset that the snapshot under the view does not cover.", labels=labels
        )
        adopted = GaugeMetricFamily("logstore_snapshot_adopted", "1 when the view stands on a snapshot.", labels=labels)
        refused = GaugeMetricFamily(
            "logstore_snapshot_refused", "1 while a snapshot is refused; /v1/snapshots says why.", labels=labels
        )
        fetched = GaugeMetricFamily(
            "logstore_snapshot_fetched_bytes", "Bytes of the candidate brought so far.", labels=labels
        )
        for served in self._catalog.served.values():
            where, stands = (served.table, str(served.partition)), standing(self._catalog, served)
            if served.base is not None:
                cut.add_metric(where, served.base.cut)
            adopted.add_metric(where, float(served.base is not None))
            refused.add_metric(where, float(stands.state == REFUSED))
            fetched.add_metric(where, stands.fetched_bytes)
        return cut, adopted, refused, fetched

    def _reads(self) -> Metric:
        family = CounterMetricFamily(
            "logstore_reads", "Single rows looked up, by where the entry was.", labels=("reader", "source")
        )
        fast = {VIEW: self.fast_requests - self.fast_below, SNAPSHOT: self.fast_below}
        for source, count in self._catalog.reads.items():
            family.add_metric((self._reader, source), count + fast[source])
        return family

    def _quarantined(self) -> Metric:
        family = CounterMetricFamily(
            "logstore_quarantined", "Records that the fold skipped.", labels=("table", "partition", "reason")
        )
        for served in self._catalog.served.values():
            for reason, count in _skipped(served).items():
                family.add_metric((served.table, str(served.partition), reason), count)
        return family

    def _http_requests(self) -> Metric:
        labels = ("reader", "method", "route", "status")
        family = CounterMetricFamily("logstore_http_requests", "Answers by method, route and status.", labels=labels)
        counts = dict(self._requests)
        counts["GET", _FAST, 200] = counts.get(("GET", _FAST, 200), 0) + self.fast_requests
        for (method, route, status), count in counts.items():
            family.add_metric((self._reader, method, route, str(status)), count)
        return family

    def _http_seconds(self) -> Metric:
        family = HistogramMetricFamily(
            "logstore_http_request_seconds", "Time to an answer, by route.", labels=("reader", "route")
        )
        for route, latency in self._latency.items():
            counts = accumulate(latency.buckets)
            buckets = [(str(bound), float(count)) for bound, count in zip((*_BOUNDS_S, "+Inf"), counts, strict=True)]
            family.add_metric((self._reader, route), buckets, latency.total)
        return family

    def _of_process(self) -> Iterable[Metric]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        for name, text, value in (
            ("logstore_waiters", "Requests that wait for a token.", self._waiters.count),
            ("logstore_http_open_connections", "Open connections.", self.connections()),
            ("logstore_reader_resident_bytes", "Resident memory, mapped views included.", _resident_bytes()),
        ):
            gauge = GaugeMetricFamily(name, text, labels=("reader",))
            gauge.add_metric((self._reader,), value)
            yield gauge
        quick = CounterMetricFamily("logstore_fast_path", "Rows answered by the short cut.", labels=("reader",))
        quick.add_metric((self._reader,), self.fast_requests)
        yield quick
        cpu = CounterMetricFamily("logstore_reader_cpu_seconds", "CPU time used.", labels=("reader",))
        cpu.add_metric((self._reader,), usage.ru_utime + usage.ru_stime)
        yield cpu


def _actual(served: ServedPartition) -> tuple[str, State | None]:
    """The state that the partition is in, and where its view stands; one that cannot be read has stopped."""
    if served.reader is None:
        return served.state, None
    try:
        stands = served.reader.state()
    except LogStoreError:
        return STOPPED, None
    return STOPPED if stands.stop else served.state, stands


def _skipped(served: ServedPartition) -> dict[str, int]:
    """Counts of skipped records, by reason; nothing of a view that cannot be read."""
    try:
        return served.reader.quarantine_counts() if served.reader is not None else {}
    except LogStoreError:
        return {}


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
