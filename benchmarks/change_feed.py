"""Events of a change feed to one subscriber and to a hundred, beside a bare consumer of the same log.

ours     subscribers of one reader, in one event loop of this process; every one hears of every write
ceiling  librdkafka consume, one consumer

Each subscriber must have heard of the newest write of every row.
"""

import asyncio
import statistics
import time
import uuid
from typing import Any

from confluent_kafka import TopicPartition

from benchmarks.bare import bare_consumer
from logstore import Admin, AsyncStore, Position, Store

PARTITIONS, ROWS, VALUE_BYTES = 4, 1_000, 100
SUBSCRIBERS = {1: 40_000, 100: 1_000}  # how many, and records for each of them


def run(dev: dict[str, Any], *, rounds: int = 3) -> list[dict[str, Any]]:
    """Rows of {name, ours, ceiling, ratio, unit, ...}. `dev`: what `logstore dev` says when it is ready."""
    return [_measure(dev, subscribers, records, rounds) for subscribers, records in SUBSCRIBERS.items()]


def _measure(dev: dict[str, Any], subscribers: int, records: int, rounds: int) -> dict[str, Any]:
    table = f"bench-feed-{uuid.uuid4().hex[:8]}"
    with Admin(dev["bootstrap"]) as admin, Store(dev["bootstrap"], dev["http"]) as store:
        definition = admin.create(table, partitions=PARTITIONS)
        last = store.put_many(table, [(f"k{i % ROWS}", f"{i:0{VALUE_BYTES}}") for i in range(records)])
        store.get(table, "k0", after=last, deadline_ms=30_000)
        start = Position({(definition.epoch, partition): 0 for partition in range(PARTITIONS)})
        ours, bare = list[float](), list[float]()
        for _ in range(rounds):
            ours.append(asyncio.run(_events_per_s(dev, table, start, subscribers, records)))
            bare.append(_consumed_per_s(dev["bootstrap"], definition.topic, records))
        admin.drop(table)
    ratios = [mine / beside for mine, beside in zip(ours, bare, strict=True)]
    return {
        "name": f"change feed to {subscribers} / bare consumer", "unit": "events/s", "ours": statistics.median(ours),
        "ceiling": statistics.median(bare), "ratio": statistics.median(ratios), "spread": [min(ratios), max(ratios)],
    }  # fmt: skip


async def _events_per_s(
    dev: dict[str, Any], table: str, start: Position, subscribers: int, records: int
) -> float:  # fmt: skip
    async with AsyncStore(dev["bootstrap"], dev["http"]) as store:
        began_s = time.perf_counter()
        counts = await asyncio.gather(*(_hear(store, table, start, records) for _ in range(subscribers)))
        return sum(counts) / (time.perf_counter() - began_s)


async def _hear(store: AsyncStore, table: str, start: Position, records: int) -> int:
    """Events until there are no more; every row's newest must be among them."""
    newest, count = dict[bytes, bytes | None](), 0
    async for event in store.changes(table, since=start, follow=False):
        newest[event.key] = event.value
        count += 1
    for i in range(records - min(records, ROWS), records):
        if newest.get(b"k%d" % (i % ROWS)) != f"{i:0{VALUE_BYTES}}".encode():
            raise RuntimeError(f"row k{i % ROWS} is not as it was written last")
    return count


def _consumed_per_s(bootstrap: str, topic: str, records: int) -> float:
    """Rate from the first record on: what a consumer takes to find its way is no part of it."""
    consumer, end_s = bare_consumer(bootstrap), time.monotonic() + 60
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    first = None
    while first is None and time.monotonic() < end_s:
        first = consumer.poll(1)
    began_s, count = time.perf_counter(), 1
    while count < records and time.monotonic() < end_s:
        count += sum(message.error() is None for message in consumer.consume(min(records - count, 10_000), 1))
    seconds = time.perf_counter() - began_s
    consumer.close()
    if first is None or first.error() is not None or count < records:
        raise RuntimeError(f"{count:,} of {records:,} records were consumed")
    return records / seconds
