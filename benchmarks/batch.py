"""The accurate path beside raw ceilings.

Archive against bare librdkafka, the fold against Arrow reading and sorting the same archive.

`run_archive`: 1 M mutations of 100 B over 200 k keys, 4 partitions, copied to Parquet; the ceiling consumes the same
log, keeps nothing. `run_fold`: a rebuild of 1 M and of 5 M archived mutations; the ceiling reads the same Parquet files
and sorts them by key and offset, in as many processes as there are cores. Start-up (JVM, Python workers) is not
counted: a first, small job warms both up.
"""

import contextlib
import os
import random
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
from confluent_kafka import Producer, TopicPartition
from pyarrow import parquet

from batch.context import Context
from batch.defaults import SPARK
from batch.engine.choice import Engines
from batch.jobs.archive import archive
from batch.jobs.compact import Compacted, compact, rebuild
from benchmarks.bare import bare_consumer
from logstore.log import topics
from logstore.log.kafka.clients import admin
from logstore.log.kafka.descriptions import topic_ids
from logstore.log.tables.registry import Registry
from logstore.model.table import Table
from logstore.snapshot.storage import Storage

PARTITIONS, KEYS, VALUE_BYTES = 4, 200_000, 100
MILLION = 1_000_000
NEW_SHARE = 0.05

Row = dict[str, Any]


def run_archive(bootstrap: str, scratch: Path, rounds: int = 3) -> list[Row]:
    """Rows of {name, ours, ceiling, ratio, unit, spread} in records/s and per CPU second."""
    ctx = _context(bootstrap, scratch / "warm")
    table = table_of(ctx, "bench-archive")
    fill(bootstrap, table, MILLION)
    _warm(ctx)
    pairs, per_cpu, peaks = [], [], []
    for turn in range(rounds):
        ctx.storage = Storage(f"file://{scratch}/archive-{turn}")
        with _watched() as watched:
            done = archive(ctx, table)
        if done.records != MILLION:
            raise RuntimeError(f"{done.records:,} records were archived of {MILLION:,}")
        pairs.append((MILLION / done.seconds["archive"], _consume(bootstrap, table, MILLION)))
        per_cpu.append(MILLION / watched["cpu_s"])
        peaks.append(watched["peak_mb"])
    ctx.close()
    topics.delete(admin(bootstrap), table.topic)
    row = _row("archive, 100 B values", pairs, "records/s", "bare librdkafka consume, one process")
    return [
        {**row, "target": 180_000},
        {"name": "archive, per CPU second", "ours": statistics.median(per_cpu), "unit": "records/CPU-s"},
        {"name": "archive, peak memory of a Python worker", "ours": max(peaks), "unit": "MB"},
    ]


def run_fold(bootstrap: str, scratch: Path, rounds: int = 3) -> list[Row]:
    """Rows for 1 M and 5 M mutations, what 5 M cost over 1 M, and what 5 % new mutations cost over a rebuild."""
    ctx = _context(bootstrap, scratch / "warm")
    _warm(ctx)
    rows: list[Row] = []
    costs: dict[int, float] = {}
    archiving: dict[int, float] = {}
    for millions in (1, 5):
        ctx.storage = Storage(f"file://{scratch}/fold-{millions}")
        table = table_of(ctx, f"bench-fold-{millions}")
        fill(bootstrap, table, millions * MILLION)
        archived_s = archiving[millions] = archive(ctx, table).seconds["archive"]
        pairs, peaks, cpu, whole = [], [], [], []
        for _ in range(rounds):
            with _watched() as watched:
                done = _checked(rebuild(ctx, table), table)
            pairs.append((done.records / done.seconds["fold"], _read_and_sort(ctx, table)))
            peaks.append(watched["peak_mb"])
            cpu.append(done.records / watched["cpu_s"])
            whole.append(_job_s(done))
        costs[millions] = millions * MILLION / statistics.median(rate for rate, _ in pairs)
        row = _row(
            f"fold, {millions} M mutations", pairs, "records/s", "Arrow reads and sorts the same Parquet, all cores"
        )
        rows += [
            {
                "name": f"archive, {millions} M mutations",
                "ours": millions * MILLION / archived_s,
                "unit": "records/s",
                "target": 180_000,
            },
            {**row, "target": 180_000},
            {"name": f"rebuild, {millions} M: per CPU second", "ours": statistics.median(cpu), "unit": "records/CPU-s"},
            {"name": f"rebuild, {millions} M: peak memory of a Python worker", "ours": max(peaks), "unit": "MB"},
            *_incremental(ctx, table, millions, statistics.median(whole), archived_s, rounds),
        ]
        topics.delete(admin(bootstrap), table.topic)
    ctx.close()
    return [*rows, _linear("archive", archiving), _linear("fold", costs)]


def _linear(name: str, seconds: dict[int, float]) -> Row:
    """What 5 M cost over 1 M."""
    return {
        "name": f"{name}: cost of 5 M over 1 M", "ours": seconds[5], "ceiling": seconds[1],
        "ratio": seconds[5] / seconds[1], "unit": "s",
        "aim": 5.5, "lower_is_better": True, "ceiling_is": "1 M",
    }  # fmt: skip


def _incremental(
    ctx: Context, table: Table, millions: int, rebuild_s: float, archived_s: float, rounds: int
) -> list[Row]:
    """What 5 % new mutations cost, beside a rebuild from the archive, and beside all of history from the log."""
    folding, whole = [], []
    for turn in range(rounds):
        fill(ctx.bootstrap, table, int(millions * MILLION * NEW_SHARE), seed=10 + turn)
        done = _checked(compact(ctx, table), table)
        folding.append(_job_s(done))
        whole.append(_job_s(done) + done.seconds["archive"])
    return [
        _cost(f"compact 5 % new over {millions} M, rebuild beside", folding, rebuild_s),
        _cost(f"archive and compact 5 % new over {millions} M, all from the log beside", whole, rebuild_s + archived_s),
    ]


def _cost(name: str, seconds: list[float], beside: float) -> Row:
    ours = statistics.median(seconds)
    return {
        "name": name, "ours": ours, "ceiling": beside, "ratio": ours / beside, "unit": "s",
        "spread": [min(seconds) / beside, max(seconds) / beside], "aim": 0.25, "lower_is_better": True,
    }  # fmt: skip


def _job_s(done: Compacted) -> float:
    """Folding, reading back and publishing: cutting and archiving are the same for both."""
    return sum(done.seconds[step] for step in ("fold", "verify", "publish"))


def _checked(done: Compacted, table: Table) -> Compacted:
    entries = sum(part.entries for part in done.manifest.parts.values())
    if not 0 < entries <= KEYS or len(done.manifest.parts) != table.partitions:
        raise RuntimeError(f"the snapshot holds {entries:,} rows of {KEYS:,} keys")
    return done


def _row(name: str, pairs: list[tuple[float, float]], unit: str, ceiling: str) -> Row:
    ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = [mine / raw for mine, raw in pairs]
    return {
        "name": name, "ours": ours, "ceiling": bare, "ratio": statistics.median(ratios), "unit": unit,
        "spread": [min(ratios), max(ratios)], "ceiling_is": ceiling,
    }  # fmt: skip


def _context(bootstrap: str, directory: Path) -> Context:
    registry = Registry(bootstrap)
    registry.ensure_store()
    return Context(bootstrap, registry, registry.read(), Storage(f"file://{directory}"), engines=Engines(SPARK))


def table_of(ctx: Context, name: str, partitions: int = PARTITIONS) -> Table:
    """A table with a topic of its own."""
    topic = f"{name}-{random.randrange(1 << 30):x}"
    client = admin(ctx.bootstrap)
    topics.create(client, topic, partitions, 1, topics.wal_settings(1_000_000, 1))
    return Table(topic, topic, topic_ids(client, [topic])[topic], partitions)


def fill(bootstrap: str, table: Table, count: int, seed: int = 1) -> None:
    """Append puts of random keys."""
    rng = random.Random(seed)
    values = [rng.randbytes(VALUE_BYTES) for _ in range(10_000)]
    producer: Any = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 20,
            "queue.buffering.max.messages": 1 << 20,
        }
    )
    for at in range(0, count, 10_000):
        batch = [{"key": b"%016d" % rng.randrange(KEYS), "value": value} for value in values[: min(10_000, count - at)]]
        while batch:
            producer.produce_batch(table.topic, batch)
            batch = [message for message in batch if message.pop("_error", None)]
            producer.poll(0.05 if batch else 0)
    assert producer.flush(60) == 0


def _warm(ctx: Context) -> None:
    table = table_of(ctx, "bench-warm")
    fill(ctx.bootstrap, table, 10_000)
    compact(ctx, table)
    topics.delete(admin(ctx.bootstrap), table.topic)


def _consume(bootstrap: str, table: Table, count: int) -> float:
    consumer = bare_consumer(bootstrap)
    began = time.perf_counter()
    consumer.assign([TopicPartition(table.topic, partition, 0) for partition in range(PARTITIONS)])
    seen = 0
    while seen < count:
        seen += len(consumer.consume(10_000, 1))
    rate = count / (time.perf_counter() - began)
    consumer.close()
    return rate


def _read_and_sort(ctx: Context, table: Table) -> float:
    """Records/s of reading the archive and sorting it by key and offset, one process a partition at most."""
    segments = ctx.archive(table).segments()
    paths = [
        [str(ctx.storage.local(s.path)) for s in segments if s.partition == partition]
        for partition in range(PARTITIONS)
    ]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        list(pool.map(_sorted_rows, [[path[0]] for path in paths]))  # imports done
        began = time.perf_counter()
        rows = sum(pool.map(_sorted_rows, paths))
        seconds = time.perf_counter() - began
    if rows != sum(segment.records for segment in segments):
        raise RuntimeError(f"the ceiling read {rows:,} rows")
    return rows / seconds


def _sorted_rows(paths: list[str]) -> int:
    whole = pa.concat_tables([parquet.read_table(path, use_threads=False, partitioning=None) for path in paths])
    return int(whole.sort_by([("key", "ascending"), ("offset", "ascending")]).num_rows)


@contextlib.contextmanager
def _watched(every_s: float = 0.05) -> Iterator[Row]:
    """CPU seconds of this process and its children; peak resident memory of the largest Python worker, in MB."""
    me, ended = psutil.Process(), threading.Event()
    found: Row = {"cpu_s": 0.0, "peak_mb": 0.0}
    began = _tree(me)

    def look() -> None:
        while not ended.wait(every_s):
            found["peak_mb"] = max(found["peak_mb"], *(_worker_mb(child) for child in me.children(recursive=True)), 0.0)

    watcher = threading.Thread(target=look, name="memory", daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()
        found["cpu_s"] = max(_tree(me) - began, 1e-9)


def _worker_mb(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        return process.memory_info().rss / 1e6 if "pyspark.daemon" in " ".join(process.cmdline()) else 0.0
    return 0.0


def _tree(process: psutil.Process) -> float:
    """CPU seconds of a process and its descendants, ended and waited-for children included; a broker's are not ours."""
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            times = one.cpu_times()
            if "kafka.Kafka" not in one.cmdline():
                total += times.user + times.system + times.children_user + times.children_system
    return total
