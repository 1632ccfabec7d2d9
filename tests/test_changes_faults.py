"""The change feed while readers, the worker and Kafka are killed, and with very many subscribers."""

import asyncio
import os
import random
import signal
import threading
import time

import httpx
import pytest
from support_wait import until

from logstore import Store
from logstore.model.position import Position

SEED = 11


@pytest.mark.slow
def test_a_consumer_ends_with_the_table_whatever_is_killed_meanwhile(dev):
    dev("table", "create", "fedkilled", "--partitions", "4")
    copy: dict[bytes, tuple[int, bytes | None]] = {}
    source, position = random.Random(SEED), Position()

    def consume(store: Store) -> None:
        for event in store.changes("fedkilled", since="beginning", patience_s=120):
            if event.version >= copy.get(event.key, (-1, None))[0]:
                copy[event.key] = event.version, event.value
            if event.key == b"end":
                return

    def some() -> dict[bytes, bytes | None]:
        return {b"k%d" % source.randrange(500): source.choice([None, source.randbytes(5)]) for _ in range(300)}

    with Store(bootstrap=dev.facts["bootstrap"], url=dev.facts["http"]) as store:
        consumer = threading.Thread(target=consume, args=(store,), daemon=True)
        consumer.start()
        for kind in ("readers", "workers", "kafka"):
            before = dev.pids()
            position = position | store.put_many("fedkilled", some())
            for victim in [before["kafka"]] if kind == "kafka" else before[kind]:
                os.kill(victim, signal.SIGKILL)
            until(
                f"{kind} are back",
                lambda kind=kind, before=before: dev.pids()[kind] not in (before[kind], None, []) and dev.pids()[kind],
            )
            position = position | store.put_many("fedkilled", some())
        rows = {row.key: row.value for row in store.scan("fedkilled", after=position, deadline_ms=30_000)}
        until(
            "the copy is the table",
            lambda: {key: value for key, (_, value) in list(copy.items()) if value is not None} == rows,
        )
        store.put("fedkilled", "end", "")
        consumer.join(60)
        assert not consumer.is_alive()


@pytest.mark.parametrize("subscribers", [50, pytest.param(1_000, marks=pytest.mark.long)])
def test_many_subscribers_each_get_everything(dev, subscribers):
    table = f"fed{subscribers}"
    dev("table", "create", table, "--partitions", "1")

    async def run() -> None:
        live, limits = asyncio.Semaphore(0), httpx.Limits(max_connections=None)

        async def subscribe(client: httpx.AsyncClient) -> float:
            puts = 0
            async with client.stream("GET", f"/v1/tables/{table}/changes?since=beginning") as answer:
                async for line in answer.aiter_lines():
                    if line == "event: live":
                        live.release()
                    puts += line == "event: put"
                    if puts == 100:
                        break
            return time.monotonic()

        async with httpx.AsyncClient(
            base_url=dev.facts["http"], timeout=120, limits=limits, trust_env=False
        ) as client:  # fmt: skip
            tasks = [asyncio.create_task(subscribe(client)) for _ in range(subscribers)]
            for _ in tasks:
                await live.acquire()
            began_s = time.monotonic()
            await asyncio.to_thread(write)
            ended_s = max(await asyncio.gather(*tasks))
            print(f"{100 * subscribers / (ended_s - began_s):,.0f} events/s to {subscribers:,} subscribers")

    def write() -> None:
        with Store(bootstrap=dev.facts["bootstrap"]) as store:
            store.put_many(table, {b"k%d" % i: b"v" for i in range(100)})

    asyncio.run(asyncio.wait_for(run(), 150))
