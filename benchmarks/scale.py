"""How a compaction grows: with partitions, with storage far away, with what has changed, with the runs before it.

All in this process, with a pool that runs already, 100-byte values.

`run_partitions`: the same 200,000 records in 4 to 1,024 partitions: the first snapshot, 1 % new, nothing new, and the
operations that the driver asked of the storage. `run_far`: the same with a storage of which every operation takes 30 ms
(`far_storage.FarStorage`). `run_change`: 1 M rows, of which 0.1 to 25 % are written anew, beside a rebuild.
`run_runs`: 1 % new again and again, so that manifests, segments and snapshots pile up.
"""

import random
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from batch.context import Context
from batch.defaults import LOCAL
from batch.engine.choice import Engines
from batch.engine.local import LocalEngine
from batch.jobs.compact import Compacted, compact, rebuild
from benchmarks.batch import table_of
from benchmarks.far_storage import CountingStorage, FarStorage
from logstore.log import topics
from logstore.log.kafka.clients import admin
from logstore.log.tables.registry import Registry
from logstore.model.table import Table

ROWS, VALUE_BYTES = 200_000, 100
PARTITIONS, FAR_PARTITIONS = (4, 16, 64, 256, 1_024), (4, 16, 64, 256)
MANY_ROWS, SHARES = 1_000_000, (0.001, 0.01, 0.05, 0.25)
RUNS, EACH = 120, 20
NEW_SHARE, NOTHING_AIM_S, FLAT_AIM, CHANGE_AIM = 0.01, 0.3, 1.5, 0.1

Row = dict[str, Any]


class Job:
    """A table and what compacts it; every measure is checked by what the job says that it did."""

    def __init__(self, bootstrap: str, storage: CountingStorage, partitions: int, name: str) -> None:
        self.storage = storage
        registry = Registry(bootstrap)
        registry.ensure_store()
        engine = LocalEngine()
        self.ctx = Context(bootstrap, registry, registry.read(), storage, engines=Engines(LOCAL, made={LOCAL: engine}))
        self.table = table_of(self.ctx, f"bench-{name}-{partitions}", partitions)
        engine.run("warm", abs, range(engine.processes), lambda _: None)

    def first(self, rows: int) -> float:
        """Seconds of the first snapshot, and of nothing: trimming wants a second one."""
        put(self.ctx.bootstrap, self.table, range(rows))
        seconds, done = self.timed()
        if done.records < rows:
            raise RuntimeError(f"{done.records:,} records were folded of {rows:,}")
        self.timed()
        return seconds

    def changed(self, rows: int, count: int, seed: int) -> tuple[float, Compacted]:
        """Seconds of a compaction after so many of the rows were written anew."""
        put(self.ctx.bootstrap, self.table, random.Random(seed).sample(range(rows), count), seed)
        seconds, done = self.timed()
        if done.unchanged or done.records < count or entries(done) != rows:
            raise RuntimeError(f"{done.records:,} records were folded of {count:,}, {entries(done):,} rows of {rows:,}")
        return seconds, done

    def timed(self) -> tuple[float, Compacted]:
        """Seconds of a compaction; `storage.asked` counts what it asked."""
        self.storage.asked = 0
        began_s = time.perf_counter()
        done = compact(self.ctx, self.table)
        return time.perf_counter() - began_s, done

    def close(self) -> None:
        """End the pool, and drop the topic."""
        self.ctx.close()
        topics.delete(admin(self.ctx.bootstrap), self.table.topic)


def entries(done: Compacted) -> int:
    """Rows of a snapshot."""
    return sum(part.entries for part in done.manifest.parts.values())


def put(bootstrap: str, table: Table, rows: Iterable[int], seed: int = 1) -> None:
    """Write each of these rows once."""
    values = [random.Random(seed).randbytes(VALUE_BYTES) for _ in range(100)]
    own = {"partitioner": "murmur2_random", "linger.ms": 20, "queue.buffering.max.messages": 1 << 20}
    producer: Any = Producer({"bootstrap.servers": bootstrap, **own})
    for number in rows:
        key, value = b"%016d" % number, values[number % 100]
        while True:
            try:
                producer.produce(table.topic, value, key)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    if producer.flush(120):
        raise RuntimeError("not everything was written")


def run_partitions(bootstrap: str, scratch: Path, rounds: int = 3) -> list[Row]:
    """Rows of partitions on a disk here."""
    return _partitions(bootstrap, PARTITIONS, lambda n: CountingStorage(f"file://{scratch}/near-{n}"), "disk", rounds)


def run_far(bootstrap: str, scratch: Path, rounds: int = 3) -> list[Row]:
    """Rows of partitions on a storage with 30 ms for each operation."""
    return _partitions(bootstrap, FAR_PARTITIONS, lambda n: FarStorage(f"file://{scratch}/far-{n}"), "30 ms", rounds)


def _partitions(bootstrap: str, counts: Iterable[int], storage_of: Any, where: str, rounds: int) -> list[Row]:
    rows: list[Row] = []
    few: float | None = None
    for count in counts:
        job = Job(bootstrap, storage_of(count), count, "parts")
        first_s = job.first(ROWS)
        some, asked = [], 0
        for seed in range(rounds):
            seconds, _ = job.changed(ROWS, int(ROWS * NEW_SHARE), seed + 2)
            some.append(seconds)
            asked = job.storage.asked
        nothing = [job.timed() for _ in range(rounds)]
        if not all(done.unchanged for _, done in nothing):
            raise RuntimeError("something was new")
        few = few or statistics.median(some)
        what, at = f"{count} partitions, {where}", ("partitions", where, count)
        rows += [
            {"name": f"compact 200,000 records, {what}", "ours": first_s, "unit": "s", **_point("first", at, first_s)},
            {**_aimed(f"compact 1 % new, {what} / {PARTITIONS[0]}", some, few, FLAT_AIM),
             **_point("1 % new", at, statistics.median(some))},
            {**_aimed(f"compact nothing new, {what}", [s for s, _ in nothing], NOTHING_AIM_S),
             **_point("nothing new", at, statistics.median(s for s, _ in nothing))},
            {"name": f"storage operations of the driver, 1 % new, {what}", "ours": asked, "unit": "",
             **_point("1 % new", ("operations", where, count), asked)},
        ]  # fmt: skip
        job.close()
    return rows


def run_change(bootstrap: str, scratch: Path, rounds: int = 3) -> list[Row]:
    """Rows of 1 M rows of which a share is written anew."""
    job = Job(bootstrap, CountingStorage(f"file://{scratch}/change"), 4, "change")
    job.first(MANY_ROWS)
    whole = statistics.median(_folding_s(rebuild(job.ctx, job.table)) for _ in range(rounds))
    rows: list[Row] = []
    for share in SHARES:
        count, some = int(MANY_ROWS * share), []
        for seed in range(rounds):
            _, done = job.changed(MANY_ROWS, count, seed)
            some.append(_folding_s(done))
        ours = statistics.median(some)
        what = f"compact, {share:.1%} of {MANY_ROWS:,} rows new / rebuild"
        aim = {"aim": CHANGE_AIM, "lower_is_better": True} if share <= 0.05 else {}
        rows.append({
            "name": what, "ours": ours, "ceiling": whole, "ratio": ours / whole, "unit": "s", **aim,
            "spread": [min(some) / whole, max(some) / whole], **_point("compact", ("change", "", share), ours / whole),
        })  # fmt: skip
    job.close()
    return rows


def run_runs(bootstrap: str, scratch: Path, rounds: int = 3) -> list[Row]:  # noqa: ARG001 - the runs are the rounds
    """Rows of the same job after so many others."""
    job = Job(bootstrap, CountingStorage(f"file://{scratch}/runs"), 16, "runs")
    job.first(ROWS)
    rows: list[Row] = []
    beginning: float | None = None
    for begin in range(0, RUNS, EACH):
        some, asked = [], []
        for number in range(begin, begin + EACH):
            some.append(job.changed(ROWS, int(ROWS * NEW_SHARE) // 10, number)[0])
            asked.append(job.storage.asked)
        beginning = beginning or statistics.median(some)
        name, at = f"compact 0.1 % new, runs {begin + 1} to {begin + EACH} / the first {EACH}", begin + EACH
        rows += [
            {**_aimed(name, some, beginning, FLAT_AIM),
             **_point("seconds", ("runs", "", at), statistics.median(some))},
            {"name": f"storage operations of the driver, runs to {at}", "ours": statistics.median(asked), "unit": ""},
        ]  # fmt: skip
    job.close()
    return rows


def _folding_s(done: Compacted) -> float:
    """Folding, reading back and publishing: cutting and archiving are the same for both."""
    return sum(done.seconds[step] for step in ("fold", "verify", "publish"))


def _aimed(name: str, seconds: list[float], beside: float, aim: float = 1.0) -> Row:
    """A row of seconds beside others, or beside their aim."""
    ours = statistics.median(seconds)
    return {
        "name": name, "ours": ours, "ceiling": beside, "ratio": ours / beside, "unit": "s", "aim": aim,
        "spread": [min(seconds) / beside, max(seconds) / beside], "lower_is_better": True,
    }  # fmt: skip


def _point(line: str, at: tuple[str, str, float], y: float) -> Row:
    """A point of a plot: the plot's name, the line's, and where it lies."""
    plot, where, x = at
    return {"plot": plot, "line": f"{line}, {where}" if where else line, "x": x, "y": y}
