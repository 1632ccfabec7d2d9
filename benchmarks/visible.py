"""Write to visible against bare produce-to-consume.

The same broker, topic settings, producer settings, rate and records.

ours  put, its acknowledgement, and an HTTP read with its token that brings what was written, by a client on 16 threads
bare  produce, until a tuned librdkafka consumer on another thread has the record

Open loop: writes are due at fixed times, latency counts from when one was due. The two take turns; figures are medians
of the rounds.
"""

import json
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
from confluent_kafka import Consumer, TopicPartition

from examples.flights import visible
from examples.flights.load import create
from examples.flights.source import Stream
from logstore import Store
from logstore.log import topics
from logstore.log.kafka import clients
from logstore.log.tables import ddl
from logstore.log.tables.registry import Registry
from logstore.log.write.limits import QUEUE_BYTES, QUEUE_RECORDS
from logstore.log.write.producer import Producer
from logstore.model.table import DEFAULT_MAX_VALUE_BYTES

PARTITIONS = 4
VALUE_BYTES = 100
WARM = 100  # writes before those that count
DEADLINE_S = 30.0

Work = Sequence[tuple[bytes, bytes]]


def run(dev: dict[str, Any], *, rate: float = 200.0, seconds: float = 5.0, rounds: int = 3) -> list[dict[str, Any]]:
    """Rows of {name, ours, ceiling, ratio, unit, ...} for p50 and p99.

    `dev`: what `logstore dev` says when it is ready.
    """
    name = f"bench-visible-{uuid.uuid4().hex[:8]}"
    create(dev["bootstrap"], [Stream(name, PARTITIONS, [])])
    bare = f"{name}-bare"
    client = clients.admin(dev["bootstrap"])
    topics.create(client, bare, PARTITIONS, 1, topics.wal_settings(DEFAULT_MAX_VALUE_BYTES, 1))
    pairs = []
    for number in range(rounds):
        work = _work(number, int(rate * seconds) + WARM)
        pairs.append((_ours(dev, name, work, rate), _bare(dev["bootstrap"], bare, work, rate)))
    ddl.drop(Registry(dev["bootstrap"]), name)
    topics.delete(client, bare)
    return [_row(percentile, pairs, rate) for percentile in (50, 99)]


def _row(percentile: int, pairs: list[tuple[list[float], list[float]]], rate: float) -> dict[str, Any]:
    figures = [tuple(float(np.percentile(late_ms, percentile)) for late_ms in pair) for pair in pairs]
    ours, ceiling = (statistics.median(column) for column in zip(*figures, strict=True))
    ratios = [mine / bare for mine, bare in figures]
    return {
        "name": f"write to visible, p{percentile}, {rate:,.0f} writes/s", "ours": ours, "ceiling": ceiling,
        "unit": "ms",
        "ratio": statistics.median(ratios), "spread": [min(ratios), max(ratios)], "aim": 2.0, "lower_is_better": True,
        "ceiling_is": "librdkafka produce to consume", "all": figures,
    }  # fmt: skip


def _work(seed: int, count: int) -> Work:
    rng = np.random.default_rng(seed)
    return [(b"key-%012d" % number, rng.bytes(VALUE_BYTES)) for number in rng.permutation(count)]


def _ours(dev: dict[str, Any], table: str, work: Work, rate: float) -> list[float]:
    with Store(dev["bootstrap"], dev["http"]) as store:
        visible.measure(store, dev["http"], table, work[:WARM], rate)
        late_ms, _ = visible.measure(store, dev["http"], table, work[WARM:], rate)
    return late_ms


def _bare(bootstrap: str, topic: str, work: Work, rate: float) -> list[float]:
    settings = Producer.settings(queue_records=QUEUE_RECORDS, queue_bytes=QUEUE_BYTES)
    producer = clients.producer(bootstrap, **settings)
    with closing(_consumer(bootstrap)) as consumer:
        ends = [
            consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=DEADLINE_S)[1] for p in range(PARTITIONS)
        ]
        consumer.assign([TopicPartition(topic, partition, end) for partition, end in enumerate(ends)])
        watch = _Watch(consumer)
        watch.start()
        for part in (work[:WARM], work[WARM:]):
            due = _produce(producer, topic, part, rate)
            seen = watch.await_all(part)
        watch.stop()
    return [(seen[key] - due_s) * 1000 for (key, _), due_s in zip(part, due, strict=True)]


def _produce(producer: Any, topic: str, work: Work, rate: float) -> list[float]:
    """Produce on schedule; returns when each was due."""
    start_s = time.perf_counter() + 0.2
    due = [start_s + number / rate for number in range(len(work))]
    for (key, value), due_s in zip(work, due, strict=True):
        time.sleep(max(0.0, due_s - time.perf_counter()))
        producer.produce(topic, value, key)
        producer.poll(0)
    assert producer.flush(DEADLINE_S) == 0, "every record is acknowledged"
    return due


def _consumer(bootstrap: str) -> Any:
    return Consumer(
        {
            "bootstrap.servers": bootstrap, "group.id": "bench.visible.bare", "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.queue.backoff.ms": 2, "check.crcs": True,
        }
    )  # fmt: skip


class _Watch(threading.Thread):
    """Notes when each record came, and that it is the one written."""

    def __init__(self, consumer: Any) -> None:
        super().__init__(name="bench-consumer", daemon=True)
        self._consumer, self._stopped = consumer, False
        self._seen: dict[bytes, tuple[float, bytes]] = {}

    def run(self) -> None:
        while not self._stopped:
            record = self._consumer.poll(0.1)
            if record is not None and record.error() is None:
                self._seen[record.key()] = time.perf_counter(), record.value()

    def await_all(self, work: Work) -> dict[bytes, float]:
        """When each record of `work` came."""
        deadline = time.monotonic() + DEADLINE_S
        while not all(key in self._seen for key, _ in work):
            assert time.monotonic() < deadline, "records did not come back"
            time.sleep(0.01)
        assert all(self._seen[key][1] == value for key, value in work), "a record came back with another value"
        return {key: self._seen[key][0] for key, _ in work}

    def stop(self) -> None:
        self._stopped = True
        self.join(DEADLINE_S)


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1])), indent=2))
