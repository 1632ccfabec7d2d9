"""Small batch jobs: what they cost from command to adopted, and what partitions cost that have little or nothing new.

`run_small`: a store with 200,000 rows, one node. `logstore batch compact --wait` as a user types it, with the local
engine, then with Spark; each beside the aim. Then the same command when nothing is new. `run_partitions`: the same
200,000 records in 4, 16, 64 and 256 partitions, in this process, with a pool that runs already: the first snapshot,
1 % new records, nothing new; and the questions that the driver asked the storage.
"""

import random
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from batch.context import Context
from batch.defaults import LOCAL
from batch.engine.choice import Engines
from batch.engine.local import LocalEngine
from batch.jobs.compact import Compacted, compact
from benchmarks.batch import fill, table_of
from examples.flights import load
from examples.flights.running import STORE, Dev, call
from examples.flights.source import Stream
from logstore import Store
from logstore.log import topics
from logstore.log.kafka.clients import admin
from logstore.log.tables.registry import Registry
from logstore.snapshot.storage import Storage

ROWS, VALUE_BYTES, TABLE = 200_000, 100, "small"
ADOPTED_AIM_S, NOTHING_AIM_S, FLAT_AIM = 4.0, 0.3, 1.5
PARTITIONS, NEW = (4, 16, 64, 256), 2_000

Row = dict[str, Any]


def run_small(scratch: Path, rounds: int = 3) -> list[Row]:
    """Rows of a job on a store that runs."""
    with Dev(scratch) as dev:
        facts = dev.ready()
        load.create(facts["bootstrap"], [Stream(TABLE, 4, [])])
        took: dict[str, list[float]] = {"local": [], "spark": []}
        for seed in range(rounds):
            for engine, seconds in took.items():
                _write(facts, seed)
                seconds.append(_compacted_s(scratch, facts, "--engine", engine, "--wait", "120"))
        nothing = [_compacted_s(scratch, facts, "--engine", "local") for _ in range(rounds + 1)][1:]
    return [
        _aimed(f"compact 200,000 records, {engine}: command to adopted", seconds, ADOPTED_AIM_S)
        for engine, seconds in took.items()
    ] + [{"name": "compact nothing new: the whole command", "ours": statistics.median(nothing), "unit": "s"}]


def run_partitions(bootstrap: str, scratch: Path, rounds: int = 3) -> list[Row]:
    """Rows of jobs in this process."""
    rows: list[Row] = []
    few: float | None = None
    for count in PARTITIONS:
        storage = _Counting(f"file://{scratch}/parts-{count}")
        registry = Registry(bootstrap)
        registry.ensure_store()
        engine = LocalEngine()
        ctx = Context(bootstrap, registry, registry.read(), storage, engines=Engines(LOCAL, made={LOCAL: engine}))
        table = table_of(ctx, f"bench-parts-{count}", count)
        fill(bootstrap, table, ROWS)
        engine.run("warm", abs, range(engine.processes), lambda _: None)
        first_s, asked, _ = _timed(ctx, table)
        some, questions = [], asked
        for seed in range(rounds):
            fill(bootstrap, table, NEW, seed=seed + 2)
            seconds, questions, done = _timed(ctx, table)
            if done.unchanged or done.records < NEW:
                raise RuntimeError(f"{done.records:,} records were folded of {NEW:,}")
            some.append(seconds)
        nothing = [_timed(ctx, table) for _ in range(rounds)]
        if not all(done.unchanged for _, _, done in nothing):
            raise RuntimeError("something was new")
        few = few or statistics.median(some)
        rows += [
            {"name": f"compact 200,000 records, {count} partitions", "ours": first_s, "unit": "s"},
            _aimed(f"compact 1 % new, {count} partitions / 4 partitions", some, few, FLAT_AIM),
            _aimed(f"compact nothing new, {count} partitions", [s for s, _, _ in nothing], NOTHING_AIM_S),
            {"name": f"storage operations of the driver, 1 % new, {count} partitions", "ours": questions, "unit": ""},
        ]
        ctx.close()
        topics.delete(admin(bootstrap), table.topic)
    return rows


def _write(facts: Row, seed: int) -> None:
    rng = random.Random(seed)
    with Store(facts["bootstrap"], facts["http"]) as store:
        rows = [(b"key-%08d" % number, rng.randbytes(VALUE_BYTES)) for number in range(ROWS)]
        load.await_applied(store, TABLE, store.put_many(TABLE, rows))


def _compacted_s(scratch: Path, facts: Row, *more: str) -> float:
    where = ("--bootstrap", facts["bootstrap"], "--data-dir", str(scratch / STORE))
    began_s = time.perf_counter()
    call(scratch, "batch", "compact", TABLE, *where, *more)
    return time.perf_counter() - began_s


def _timed(ctx: Context, table: Any) -> tuple[float, int, Compacted]:
    """Seconds of a compaction, and what was asked of the storage here."""
    storage = ctx.storage
    assert isinstance(storage, _Counting), "as it was made above"
    storage.asked = 0
    began_s = time.perf_counter()
    done = compact(ctx, table)
    return time.perf_counter() - began_s, storage.asked, done


def _aimed(name: str, seconds: list[float], beside: float, aim: float = 1.0) -> Row:
    ours = statistics.median(seconds)
    return {
        "name": name, "ours": ours, "ceiling": beside, "ratio": ours / beside, "unit": "s", "aim": aim,
        "spread": [min(seconds) / beside, max(seconds) / beside], "lower_is_better": True,
    }  # fmt: skip


class _Counting(Storage):
    """A storage that counts the questions of this process; those of tasks are their own."""

    def __init__(self, url: str) -> None:
        self.asked = 0
        super().__init__(url)

    def __reduce__(self) -> tuple[type[Storage], tuple[str]]:
        return Storage, (self.url,)

    @contextmanager
    def _translating(self, path: str) -> Iterator[None]:
        self.asked += 1
        with super()._translating(path):
            yield
