"""History of one key beside raw ceilings: a bare consumer of the same partition, and bare reading of the same segments.

A million records of 100 B in one partition, 200,000 keys.
`log`: newest first and oldest first, from Kafka alone; the ceiling consumes the partition and keeps nothing. `archive`:
from Parquet; the ceiling reads the files' columns of keys, each row group once, after the same checksum.
"""

import statistics
import time
from pathlib import Path
from typing import Any

from confluent_kafka import TopicPartition
from pyarrow import parquet

from batch.context import Context
from batch.defaults import LOCAL
from batch.engine.choice import Engines
from batch.jobs.archive import archive
from benchmarks.bare import bare_consumer
from benchmarks.batch import fill, table_of
from logstore.client.history.key_history import Selection
from logstore.client.history.opening import ArchiveChoice, open_history
from logstore.log import topics
from logstore.log.kafka.clients import admin
from logstore.log.tables.registry import Registry
from logstore.model.table import Table
from logstore.snapshot.sst import checksum
from logstore.snapshot.storage import Storage

MILLION = 1_000_000
KEY = b"%016d" % 4_711
AIM = 1_000_000  # records looked through a second


def run(bootstrap: str, scratch: Path, rounds: int = 3) -> list[dict[str, Any]]:
    """Rows of {name, ours, ceiling, ratio, unit, spread} in records/s."""
    registry = Registry(bootstrap)
    registry.ensure_store()
    ctx = Context(bootstrap, registry, registry.read(), Storage(f"file://{scratch}/storage"), engines=Engines(LOCAL))
    table = table_of(ctx, "bench-history", 1)
    registry.write(table)
    fill(bootstrap, table, MILLION)
    log = [
        (
            _history(ctx, table, archived=False),
            _history(ctx, table, archived=False, oldest_first=True),
            _consume(ctx, table),
        )
        for _ in range(rounds)
    ]
    archive(ctx, table)
    archived = [(_history(ctx, table, archived=True), _read_keys(ctx, table)) for _ in range(rounds)]
    topics.delete(admin(bootstrap), table.topic)
    ctx.close()
    consumed, read = "bare librdkafka consume of the partition", "Parquet's columns of keys, and the files' checksums"
    return [
        _row("history of a key, log, newest first", [(one[0], one[2]) for one in log], consumed),
        _row("history of a key, log, oldest first", [(one[1], one[2]) for one in log], consumed),
        _row("history of a key, archive", archived, read),
    ]


def _history(ctx: Context, table: Table, *, archived: bool, oldest_first: bool = False) -> float:
    """Records/s, of those that were looked through, once it is open."""
    scanned: list[int] = []
    selection, choice = Selection(oldest_first=oldest_first), ArchiveChoice(archived, ctx.storage.url)
    history = open_history(ctx.bootstrap, table, KEY, selection, choice, scanned=scanned.append)
    began = time.perf_counter()
    found = list(history)
    rate = sum(scanned) / (time.perf_counter() - began)
    if not found or {one.archived for one in found} != {archived} or sum(scanned) < MILLION:
        raise RuntimeError(f"{len(found)} mutations were found in {sum(scanned):,} records")
    return rate


def _consume(ctx: Context, table: Table) -> float:
    consumer = bare_consumer(ctx.bootstrap)
    began = time.perf_counter()
    consumer.assign([TopicPartition(table.topic, 0, 0)])
    seen = 0
    while seen < MILLION:
        seen += len(consumer.consume(10_000, 1))
    rate = seen / (time.perf_counter() - began)
    consumer.close()
    return rate


def _read_keys(ctx: Context, table: Table) -> float:
    began, rows = time.perf_counter(), 0
    for segment in ctx.archive(table).segments():
        path = Path(str(ctx.storage.local(segment.path)))
        checksum(path)
        with parquet.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                rows += len(file.read_row_group(group, columns=["key"], use_threads=False))
    if rows != MILLION:
        raise RuntimeError(f"{rows:,} records were read")
    return rows / (time.perf_counter() - began)


def _row(name: str, pairs: list[tuple[float, float]], ceiling: str) -> dict[str, Any]:
    ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = [mine / raw for mine, raw in pairs]
    return {
        "name": name, "ours": ours, "ceiling": bare, "ratio": statistics.median(ratios), "unit": "records/s",
        "spread": [min(ratios), max(ratios)], "ceiling_is": ceiling, "target": AIM,
    }  # fmt: skip
