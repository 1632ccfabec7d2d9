"""Page `/metrics`: the whole node in one scrape, in Prometheus' text format, whichever reader answers.

1 this reader writes its own figures, so that what it tells of itself is what the others tell of it
2 the figures of all processes of the node are read (`logstore.process.figures`)
3 partitions are looked at, and families of one name are put together
"""

import asyncio
import logging
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import logstore
from logstore.process import figures
from logstore.process.figures import Family, ProcessFigures
from logstore.serve.metrics.counts import Metrics
from logstore.serve.metrics.partitions import PartitionFigures, Where
from logstore.serve.state.catalog import Catalog

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LAG_SECONDS = "logstore_worker_lag_seconds"  # of the workers' own, told as `logstore_lag_seconds`

log = logging.getLogger(__name__)


class MetricsPage(Collector):
    """Metrics of a node, as one of its readers gathers them."""

    def __init__(self, data_dir: Path, metrics: Metrics, catalog: Catalog) -> None:
        self._data_dir, self.counts = data_dir, metrics
        self._catalog, self._partitions = catalog, PartitionFigures(catalog)
        self._complaint = ""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """Text of the page."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Metric families, for Prometheus' client library."""
        self.publish()  # 1
        processes = self._processes()  # 2
        true = [family for one in processes for family in one.true_families()]
        ours = [
            _build(),
            _up(processes),
            self._reachable(),
            self._clock_ahead(),
            *self._partitions.families(_lag_seconds(true)),
        ]
        yield from _metrics(family for family in (*ours, *true) if family.name != LAG_SECONDS)  # 3

    def publish(self) -> None:
        """Write this reader's figures, for the others."""
        try:
            figures.publish(self._data_dir, self.counts.process, self.counts.families())
            self._complaint = ""
        except OSError as error:  # a full disk ends no reader
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.warning("figures of this reader are not written, the other readers do not know them: %s", error)

    async def publish_always(self) -> None:
        """Write them again and again, for ever."""
        while True:
            self.publish()
            await asyncio.sleep(figures.EVERY_S)

    def _reachable(self) -> Family:
        reachable = self._catalog.reachable
        value = figures.UNKNOWN if reachable is None else float(reachable)
        text = "1 while Kafka answers the workers of this node, 0 while it does not, NaN while no worker says so."
        return figures.gauge("logstore_kafka_reachable", text, [({}, value)])

    def _clock_ahead(self) -> Family:
        ahead_ms = self._catalog.broker_clock.ahead_ms
        value = figures.UNKNOWN if ahead_ms is None else ahead_ms / 1000
        text = "Seconds that this node's clock is ahead of the brokers', at least; NaN while no worker has told theirs."
        return figures.gauge("logstore_clock_ahead_seconds", text, [({}, value)])

    def _processes(self) -> list[ProcessFigures]:
        """All processes that have written, this one among them whatever became of its file."""
        others = [one for one in figures.published(self._data_dir) if one.process != self.counts.process]
        mine = ProcessFigures(self.counts.process, 0.0, tuple(self.counts.families()))
        return [*others, mine] if self._complaint else figures.published(self._data_dir)


def _build() -> Family:
    labels = {"version": logstore.__version__, "python": platform.python_version()}
    return figures.gauge("logstore_build_info", "1; its labels say what runs.", [(labels, 1)])


def _up(processes: list[ProcessFigures]) -> Family:
    values = [({"process": one.process}, one.fresh) for one in processes]
    return figures.gauge("logstore_process_up", "1 while the process writes its figures, each second.", values)


def _lag_seconds(families: Iterable[Family]) -> Mapping[Where, float]:
    samples = [sample for family in families if family.name == LAG_SECONDS for sample in family.samples]
    return {(sample.labels["table"], sample.labels["partition"]): sample.value for sample in samples}


def _metrics(families: Iterable[Family]) -> Iterable[Metric]:
    """Families of one name as one metric, in order of their first."""
    found: dict[str, Metric] = {}
    for family in families:
        metric = found.setdefault(family.name, Metric(family.name, family.text, family.kind))
        for sample in family.samples:
            metric.add_sample(family.name + sample.suffix, dict(sample.labels), sample.value)
    return found.values()
