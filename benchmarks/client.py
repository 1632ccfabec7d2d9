"""The write client against bare librdkafka with the same settings, alternating in one run.

Medians, checked by the log's own offsets.
"""

import asyncio
import gc
import random
import statistics
import time
import uuid
from collections.abc import Callable
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from logstore.client.aio import AsyncStore
from logstore.client.store import Store
from logstore.log.kafka import clients, offsets
from logstore.log.kafka.descriptions import topic_ids
from logstore.log.write.producer import Producer
from logstore.model.errors import LogUnreachable
from logstore.model.table import Table

PARTITIONS = 4
KEYS = 200_000
Work = tuple[tuple[bytes, bytes], ...]
SINGLES = 500  # writes of which each is acknowledged before the next one
TASKS = 32
CHUNK = 10_000  # of the bare produce_batch
POLL_EVERY = 1_000  # of the bare produce
_BULK_LINGER_MS = 0.5  # `flush`, behind each of the single ones, waits for none


class _One:
    """A definition without a registry: the topic is the benchmark's own."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def table(self, name: str) -> Table:  # noqa: ARG002 - the protocol's
        return self._table

    def close(self) -> None:
        pass


def run(bootstrap: str, records: int = 1_000_000, rounds: int = 3, value_bytes: int = 100) -> list[dict[str, Any]]:
    """Acknowledged writes per second: `put_many` against `produce_batch`, pipelined `put` against `produce`.

    The rows with a report each compare with bare producers that, like ours, learn of each record whether it was
    written: the binding makes a message object and calls Python for every one, which no client of it can do without,
    since a last record that was acknowledged does not prove the ones before it. The last three are single writes, each
    awaited before the next one, by one task or by each of 32.
    """
    work = _work(records, value_bytes)
    few = work[:SINGLES]
    table = _topic(bootstrap)
    pairs: list[tuple[str, float | None, Callable[..., float], Callable[..., float], Work]] = [
        ("put_many / produce_batch", 0.85, _put_many, _bare_batch, work),
        ("put_many / produce_batch with a report each", 0.85, _put_many, _bare_batch_reported, work),
        ("put pipelined / produce", 0.8, _pipeline, _bare, work),
        ("put pipelined / produce with a report each", None, _pipeline, _bare_reported, work),
        ("Store.put, one by one / produce and flush", None, _put, _bare_single, few),
        ("AsyncStore.put, one by one / the same", None, _async_put, _bare_single, few),
        (f"AsyncStore.put, {TASKS} at once / produce {TASKS} and flush", None, _async_puts, _bare_some, few),
    ]
    results = []
    for name, aim, ours, bare, these in pairs:
        figures: tuple[list[float], list[float]] = [], []
        for _ in range(rounds):
            for side, function in enumerate((ours, bare)):
                before = _end(bootstrap, table)
                figures[side].append(len(these) / function(bootstrap, table, these))
                written = _end(bootstrap, table) - before
                assert written == len(these), f"{name}: {written:,} records in the log, not {len(these):,}"
        mine, ceiling = map(statistics.median, figures)
        results.append(
            {
                "name": name,
                "ours": mine,
                "ceiling": ceiling,
                "ratio": mine / ceiling,
                "unit": "records/s",
                "aim": aim,
                "all": figures,
                "value_bytes": value_bytes,
            }
        )
    return results


def _work(records: int, value_bytes: int) -> Work:
    seeded = random.Random(1)
    pool = seeded.randbytes(1 << 20)
    starts = [seeded.randrange(len(pool) - value_bytes) for _ in range(records)]
    work = tuple([(b"%016d" % seeded.randrange(KEYS), pool[start : start + value_bytes]) for start in starts])
    # tuples of bytes leave the garbage collector's lists, so that it does not walk the benchmark's own million objects
    gc.collect()
    return work


def _topic(bootstrap: str) -> Table:
    name, client = f"client-bench-{uuid.uuid4().hex[:8]}", AdminClient({"bootstrap.servers": bootstrap})
    for future in client.create_topics([NewTopic(name, PARTITIONS, 1)]).values():
        future.result()
    return Table(name, name, topic_ids(client, [name])[name], PARTITIONS)


@retry(retry=retry_if_exception_type(LogUnreachable), stop=stop_after_delay(20), wait=wait_fixed(0.1), reraise=True)
def _end(bootstrap: str, table: Table) -> int:
    client = clients.admin(bootstrap)
    return sum(bound.end for bound in offsets.bounds(client, table.topic, list(range(table.partitions))).values())


def _put_many(bootstrap: str, table: Table, work: Work) -> float:
    with Store(bootstrap, definitions=_One(table)) as store:
        store.put(table.name, b"warm", b"")
        begin = time.perf_counter()
        store.put_many(table.name, work[1:])
        return time.perf_counter() - begin


def _pipeline(bootstrap: str, table: Table, work: Work) -> float:
    with Store(bootstrap, definitions=_One(table)) as store:
        store.put(table.name, b"warm", b"")
        begin = time.perf_counter()
        with store.pipeline(table.name) as pipe:
            put = pipe.put
            for key, value in work[1:]:
                put(key, value)
        return time.perf_counter() - begin


def _put(bootstrap: str, table: Table, work: Work) -> float:
    with Store(bootstrap, definitions=_One(table)) as store:
        store.put(table.name, b"warm", b"")
        begin = time.perf_counter()
        for key, value in work[1:]:
            store.put(table.name, key, value)
        return time.perf_counter() - begin


def _async_put(bootstrap: str, table: Table, work: Work) -> float:
    async def run_all() -> float:
        async with AsyncStore(bootstrap, definitions=_One(table)) as store:
            await store.put(table.name, b"warm", b"")
            begin = time.perf_counter()
            for key, value in work[1:]:
                await store.put(table.name, key, value)
            return time.perf_counter() - begin

    return asyncio.run(run_all())


def _async_puts(bootstrap: str, table: Table, work: Work) -> float:
    async def run_all() -> float:
        async with AsyncStore(bootstrap, definitions=_One(table)) as store:
            await store.put(table.name, b"warm", b"")

            async def one(mine: Work) -> None:
                for key, value in mine:
                    await store.put(table.name, key, value)

            begin = time.perf_counter()
            await asyncio.gather(*(one(work[1 + task :: TASKS]) for task in range(TASKS)))
            return time.perf_counter() - begin

    return asyncio.run(run_all())


def _bare_some(bootstrap: str, table: Table, work: Work) -> float:
    producer = _bare_producer(bootstrap, table)
    begin = time.perf_counter()
    for start in range(1, len(work), TASKS):
        for key, value in work[start : start + TASKS]:
            producer.produce(table.topic, value, key)
        assert producer.flush() == 0, "all are acknowledged before the next ones"
    return time.perf_counter() - begin


def _bare_single(bootstrap: str, table: Table, work: Work) -> float:
    producer = _bare_producer(bootstrap, table)
    begin = time.perf_counter()
    for key, value in work[1:]:
        producer.produce(table.topic, value, key)
        assert producer.flush() == 0, "every record is acknowledged before the next one"
    return time.perf_counter() - begin


def _bare_producer(bootstrap: str, table: Table) -> Any:
    """Bare librdkafka with the settings of the store's own producer and the linger that is best for bulk, warm."""
    settings = Producer.settings(queue_records=1_000_000, queue_bytes=1 << 30, linger_ms=_BULK_LINGER_MS)
    producer = clients.producer(bootstrap, **settings)
    producer.produce(table.topic, b"", b"warm")
    producer.flush()
    return producer


def _bare_batch(bootstrap: str, table: Table, work: Work) -> float:
    return _in_batches(bootstrap, table, work, {})


def _bare_batch_reported(bootstrap: str, table: Table, work: Work) -> float:
    """The same, and the binding's report of each record is taken by the cheapest thing that takes one, a dict."""
    reports: dict[Any, Any] = {}
    seconds = _in_batches(bootstrap, table, work, {"on_delivery": reports.__setitem__})
    assert reports.keys() == {None}, "every record is reported as written"
    return seconds


def _in_batches(bootstrap: str, table: Table, work: Work, more: dict[str, Any]) -> float:
    producer = _bare_producer(bootstrap, table)
    begin = time.perf_counter()
    for start in range(1, len(work), CHUNK):
        messages = [{"key": key, "value": value} for key, value in work[start : start + CHUNK]]
        assert producer.produce_batch(table.topic, messages, **more) == len(messages), "the queue holds them all"
        producer.poll(0)
    producer.flush()
    return time.perf_counter() - begin


def _bare(bootstrap: str, table: Table, work: Work) -> float:
    producer = _bare_producer(bootstrap, table)
    produce, poll = producer.produce, producer.poll
    begin = time.perf_counter()
    for place in range(1, len(work)):
        key, value = work[place]
        produce(table.topic, value, key)
        if not place % POLL_EVERY:
            poll(0)
    producer.flush()
    return time.perf_counter() - begin


def _bare_reported(bootstrap: str, table: Table, work: Work) -> float:
    """The same, and a Python callback notes the partition and offset of each record."""
    producer = _bare_producer(bootstrap, table)
    produce, poll = producer.produce, producer.poll
    places: list[tuple[int, int]] = []

    def report(error: Any, message: Any) -> None:
        if error is None:
            places.append((message.partition(), message.offset()))

    begin = time.perf_counter()
    for place in range(1, len(work)):
        key, value = work[place]
        produce(table.topic, value, key, on_delivery=report)
        if not place % POLL_EVERY:
            poll(0)
    producer.flush()
    seconds = time.perf_counter() - begin
    assert len(places) == len(work) - 1, "every record is reported"
    return seconds
