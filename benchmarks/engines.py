"""Small batch jobs: what they cost from command to adopted.

`run_small`: a store with one node, and a table of 200,000 rows for each round. `logstore batch compact --wait` as a
user types it, with the local engine, then with Spark; each beside the aim. Then the same command when nothing is new.
"""

import random
import statistics
import time
from pathlib import Path
from typing import Any

from examples.flights import load
from examples.flights.running import STORE, Dev, call
from examples.flights.source import Stream
from logstore import Store

ROWS, VALUE_BYTES, TABLE = 200_000, 100, "small"
ADOPTED_AIM_S = 4.0

Row = dict[str, Any]


def run_small(scratch: Path, rounds: int = 3) -> list[Row]:
    """Rows of a job on a store that runs."""
    with Dev(scratch) as dev:
        facts = dev.ready()
        took: dict[str, list[float]] = {"local": [], "spark": []}
        for seed in range(rounds):
            for engine, seconds in took.items():
                table = f"{TABLE}-{engine}-{seed}"
                load.create(facts["bootstrap"], [Stream(table, 4, [])])
                _write(facts, table, seed)
                seconds.append(_compacted_s(scratch, facts, table, "--engine", engine, "--wait", "120"))
        nothing = [_compacted_s(scratch, facts, table, "--engine", "local") for _ in range(rounds + 1)][1:]
    return [
        _aimed(f"compact 200,000 records, {engine}: command to adopted", seconds, ADOPTED_AIM_S)
        for engine, seconds in took.items()
    ] + [{"name": "compact nothing new: the whole command", "ours": statistics.median(nothing), "unit": "s"}]


def _write(facts: Row, table: str, seed: int) -> None:
    rng = random.Random(seed)
    with Store(facts["bootstrap"], facts["http"]) as store:
        rows = [(b"key-%08d" % number, rng.randbytes(VALUE_BYTES)) for number in range(ROWS)]
        load.await_applied(store, table, store.put_many(table, rows))


def _compacted_s(scratch: Path, facts: Row, table: str, *more: str) -> float:
    where = ("--bootstrap", facts["bootstrap"], "--data-dir", str(scratch / STORE))
    began_s = time.perf_counter()
    call(scratch, "batch", "compact", table, *where, *more)
    return time.perf_counter() - began_s


def _aimed(name: str, seconds: list[float], beside: float, aim: float = 1.0) -> Row:
    ours = statistics.median(seconds)
    return {
        "name": name, "ours": ours, "ceiling": beside, "ratio": ours / beside, "unit": "s", "aim": aim,
        "spread": [min(seconds) / beside, max(seconds) / beside], "lower_is_better": True,
    }  # fmt: skip
