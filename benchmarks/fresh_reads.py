"""Reads at the levels that ask the log, beside `eventual`: one node, 32 reads at a time, by one `AsyncStore`.

ours  `latest` (the end of the log is asked for) and `linearizable` (a barrier is appended), shared by what waits
bare  `eventual`, which waits for nothing

The levels take turns within each round, closed loop; figures are medians of the rounds. Every answer is compared with
what was written, and nobody writes meanwhile.
"""

import asyncio
import statistics
import time
import uuid
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from examples.flights.load import create
from examples.flights.source import Stream
from logstore import AsyncStore, Store
from logstore.client.read.level import Level
from logstore.log.tables import ddl
from logstore.log.tables.registry import Registry

TASKS, KEYS, PARTITIONS, DEADLINE_MS = 32, 200, 4, 30_000
LEVELS: tuple[Level, ...] = ("eventual", "latest", "linearizable")


class Measured(NamedTuple):
    """Reads of one level in one round."""

    per_s: float
    late_ms: list[float]


def run(dev: dict[str, Any], *, seconds: float = 3.0, rounds: int = 3) -> list[dict[str, Any]]:
    """Rows of {name, ours, ceiling, ratio, unit, ...} for each level. `dev`: what `logstore dev` says when ready."""
    name = f"bench-fresh-{uuid.uuid4().hex[:8]}"
    create(dev["bootstrap"], [Stream(name, PARTITIONS, [])])
    with Store(dev["bootstrap"], dev["http"]) as store:
        for key in range(KEYS):
            last = store.put(name, f"k{key}", f"v{key}")
        list(store.scan(name, after=last, consistency="linearizable", deadline_ms=DEADLINE_MS))  # all is warm now
    found: dict[Level, list[Measured]] = {level: [] for level in LEVELS}
    for _ in range(rounds):
        for level in LEVELS:
            found[level].append(asyncio.run(_measure(dev["http"], name, level, seconds)))
    ddl.drop(Registry(dev["bootstrap"]), name)
    return [_row(level, found[level], found["eventual"]) for level in LEVELS[1:]]


async def _measure(url: str, table: str, level: Level, seconds: float) -> Measured:
    numbers, late_ms = count(), list[float]()
    async with AsyncStore(url=url) as store:
        await store.get(table, "k0", consistency=level, deadline_ms=DEADLINE_MS)
        begin = time.perf_counter()
        tasks = (_read(store, table, level, numbers, begin + seconds, late_ms) for _ in range(TASKS))
        await asyncio.gather(*tasks)
        return Measured(len(late_ms) / (time.perf_counter() - begin), late_ms)


async def _read(
    store: AsyncStore, table: str, level: Level, numbers: Iterator[int], end: float, late_ms: list[float]
) -> None:  # fmt: skip
    while (asked := time.perf_counter()) < end:
        key = next(numbers) % KEYS
        row = await store.get(table, f"k{key}", consistency=level, deadline_ms=DEADLINE_MS)
        if row is None or row.value != f"v{key}".encode():
            raise AssertionError(f"{level}: k{key} is {row}")
        late_ms.append((time.perf_counter() - asked) * 1000)


def _row(level: Level, ours: list[Measured], eventual: list[Measured]) -> dict[str, Any]:
    ratios = [mine.per_s / its.per_s for mine, its in zip(ours, eventual, strict=True)]
    return {
        "name": f"{level} / eventual, {TASKS} at a time", "unit": "reads/s",
        "ours": statistics.median(one.per_s for one in ours),
        "ceiling": statistics.median(one.per_s for one in eventual),
        "ratio": statistics.median(ratios), "ratios": ratios, "aim": 0.5,
        **_latencies("", ours), **_latencies("ceiling_", eventual),
    }  # fmt: skip


def _latencies(prefix: str, rounds: list[Measured]) -> dict[str, float]:
    return {
        f"{prefix}p{p}_ms": statistics.median(float(np.percentile(one.late_ms, p)) for one in rounds) for p in (50, 99)
    }
