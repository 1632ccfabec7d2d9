"""Conditional writes until their outcomes are known, beside the same records acknowledged alone.

ours     `incr` and `put_if` in a pipeline of one client, increments of one row in one, and 32 single `incr` at a time
ceiling  the same records through bare librdkafka (idempotent, acks=all), and 32 single `put` at a time

All take turns within each round. Every write must have been applied, and the counters are read and compared.
"""

import asyncio
import os
import statistics
import time
import uuid
from collections.abc import Callable
from typing import Any

from confluent_kafka import Producer

from logstore import Admin, AsyncStore, Store
from logstore.client.conditional.record import ConditionalRecord, Expected, incr_record, put_record

PARTITIONS, ROWS, VALUE_BYTES, TASKS, DEADLINE_MS = 4, 1_000, 100, 32, 30_000
AIM_PER_S = 13_000


def run(
    dev: dict[str, Any], *, records: int = 40_000, singles: int = 4_000, rounds: int = 3
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of {name, ours, ceiling, ratio, unit, ...}. `dev`: what `logstore dev` says when it is ready."""
    table = f"bench-conditional-{uuid.uuid4().hex[:8]}"
    value = os.urandom(VALUE_BYTES)
    kinds: dict[str, Callable[[int], ConditionalRecord]] = {
        "incr in a pipeline": lambda i: incr_record(f"n{i % ROWS}", 1, None),
        "incr of one row in a pipeline": lambda _: incr_record("hot", 1, None),
        "put_if absent in a pipeline": lambda _: put_record(uuid.uuid4().bytes, value, Expected(absent=True), None),
    }
    with Admin(dev["bootstrap"]) as admin, Store(dev["bootstrap"], dev["http"]) as store:
        topic = admin.create(table, partitions=PARTITIONS, conditional=True).topic
        bare = admin.create(f"{table}-bare", partitions=PARTITIONS).topic
        store.incr(table, "warm")
        found: dict[str, list[tuple[float, float]]] = {}
        for number in range(rounds):
            for name, made in kinds.items():
                some = [made(i) for i in range(records)]
                pair = _pipelined_per_s(store, table, some), _bare_per_s(dev["bootstrap"], bare, some)
                found.setdefault(f"{name} / bare librdkafka", []).append(pair)
            _check(store, table, number + 1, records)
            pair = asyncio.run(_at_once_per_s(dev, table, singles))
            found.setdefault(f"incr, {TASKS} at a time / put, {TASKS} at a time", []).append(pair)
        assert topic != bare, "two tables have two logs"
        for name in (table, f"{table}-bare"):
            admin.drop(name)
    return [_row(name, pairs) for name, pairs in found.items()]


def _pipelined_per_s(store: Store, table: str, some: list[ConditionalRecord]) -> float:
    began_s = time.perf_counter()
    with store.pipeline(table) as pipeline:
        decided = [pipeline.decide(record) for record in some]
    seconds = time.perf_counter() - began_s
    if not all(one.result().applied for one in decided):
        raise RuntimeError("a write of the pipeline was not applied")
    return len(some) / seconds


def _bare_per_s(bootstrap: str, topic: str, some: list[ConditionalRecord]) -> float:
    """Rate at which librdkafka alone has them in the log; values, and no headers, which its table would refuse."""
    settings = {"enable.idempotence": True, "acks": "all", "partitioner": "murmur2_random", "compression.type": "lz4"}
    producer = Producer({"bootstrap.servers": bootstrap, **settings})
    producer.list_topics(topic, timeout=10)
    failed = []

    def delivered(error: Any, _message: Any) -> None:
        if error is not None:
            failed.append(error)

    began_s = time.perf_counter()
    for number, record in enumerate(some):
        producer.produce(topic, record.value, record.key, on_delivery=delivered)
        if number % 100 == 0:
            producer.poll(0)
    left = producer.flush(60)
    seconds = time.perf_counter() - began_s
    if left or failed:
        raise RuntimeError(f"{left:,} records were not acknowledged, {len(failed):,} failed")
    return len(some) / seconds


async def _at_once_per_s(dev: dict[str, Any], table: str, singles: int) -> tuple[float, float]:
    """Single increments and single puts per second, so many of each at a time."""
    async with AsyncStore(dev["bootstrap"], dev["http"]) as store:
        await store.incr(table, "warm")

        async def incr(i: int) -> None:
            if not await store.incr(table, f"single-{i % ROWS}"):
                raise RuntimeError(f"increment {i:,} was not applied")

        async def put(i: int) -> None:
            await store.put(table, f"plain-{i % ROWS}", b"v" * 8)

        return await _per_s(incr, singles), await _per_s(put, singles)


async def _per_s(call: Callable[[int], Any], count: int) -> float:
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await call(number)

    began_s = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(TASKS)))
    return count / (time.perf_counter() - began_s)


def _check(store: Store, table: str, rounds: int, records: int) -> None:
    """Counters hold as many increments as have been sent."""
    names = ["hot", *(f"n{i}" for i in range(ROWS))]
    rows = store.get_many(table, names, consistency="latest", deadline_ms=DEADLINE_MS)
    sums = [0 if row is None else int.from_bytes(row.value, signed=True) for row in rows]
    if sums[0] != rounds * records or sum(sums[1:]) != rounds * records:
        raise RuntimeError(f"{sums[0]:,} and {sum(sums[1:]):,} are counted of {rounds * records:,} increments")


def _row(name: str, pairs: list[tuple[float, float]]) -> dict[str, Any]:
    ratios = [ours / beside for ours, beside in pairs]
    return {
        "name": name, "unit": "writes/s", "ours": statistics.median(ours for ours, _ in pairs),
        "ceiling": statistics.median(beside for _, beside in pairs), "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)], "aim_per_s": AIM_PER_S,
    }  # fmt: skip
