"""Memory of each process of a running store.

Idle, at its highest while a million records are written and read, and afterwards.

Anonymous memory is what a process needs for itself. Mapped files (views, Kafka's indexes) are the page cache, seen
through the process: the kernel takes them back when somebody needs the room, so they grow with the data and cost
nothing. Source: RssAnon, RssFile of proc(5).
"""

import json
import random
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from examples.flights import load, wire
from examples.flights.source import Stream
from logstore import LogStoreError, Store
from logstore.log.tables import ddl
from logstore.log.tables.registry import Registry

PARTITIONS, KEYS, VALUE_BYTES, SAMPLE = 4, 200_000, 100, 20_000
READ_S, CONNECTIONS = 3.0, 32
EVERY_S = 0.1


class Memory(NamedTuple):
    """Resident memory in MiB."""

    anonymous: float
    files: float


def run(dev: dict[str, Any], *, records: int = 1_000_000) -> list[dict[str, Any]]:
    """One row per process; `ours` is the highest anonymous memory, in MiB, `ceiling` None: there is none."""
    pids, table = _pids(dev), f"bench-memory-{uuid.uuid4().hex[:8]}"
    load.create(dev["bootstrap"], [Stream(table, PARTITIONS, [])])
    before = {name: memory_of(pid) for name, pid in pids.items()}
    with _peaks(pids) as highest:
        _work(dev, table, records)
    after = {name: memory_of(pid) for name, pid in pids.items()}
    ddl.drop(Registry(dev["bootstrap"]), table)
    return [
        {
            "name": f"memory of {name}, {records:,} records", "ours": highest[name], "ceiling": None, "ratio": None,
            "unit": "MiB anonymous", "before": before[name].anonymous, "after": after[name].anonymous,
            "files_before": before[name].files,
            "files_after": after[name].files,
        }
        for name in pids
    ]  # fmt: skip


def memory_of(pid: int) -> Memory:
    """A process's resident memory now."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Rss")
    )
    mib = {name: int(value.split()[0]) / 1024 for name, value in fields.items()}
    return Memory(round(mib["RssAnon"], 1), round(mib["RssFile"] + mib["RssShmem"], 1))


def _pids(dev: dict[str, Any]) -> dict[str, int]:
    pids = dev["pids"]
    named = {"node": pids["node"], "kafka": pids["kafka"]}
    for kind in ("workers", "readers"):
        named |= {f"{kind[:-1]} {number}": pid for number, pid in enumerate(pids[kind])}
    return {name: pid for name, pid in named.items() if pid is not None}


def _work(dev: dict[str, Any], table: str, records: int) -> None:
    """Write all, wait until they are applied, read them whole once and some of them often."""
    rng = random.Random(1)
    value = rng.randbytes(VALUE_BYTES)
    with Store(dev["bootstrap"], dev["http"]) as store:
        position = store.put_many(table, ((b"%016d" % rng.randrange(KEYS), value) for _ in range(records)))
        load.await_applied(store, table, position)
        keys = [row.key for row in store.scan(table, after=position, deadline_ms=30_000)]
    if not 0 < len(keys) <= min(KEYS, records):
        raise LogStoreError(f"{len(keys):,} rows are there after {records:,} records over {KEYS:,} keys")
    work = wire.reads_of(dev["http"], table, [(key, value) for key in rng.choices(keys, k=SAMPLE)])
    driven = wire.drive(dev["http"], work, seconds=READ_S, connections=CONNECTIONS)
    if driven.wrong:
        raise LogStoreError(f"{driven.wrong:,} of {len(driven.late_ms):,} reads were wrong")


@contextmanager
def _peaks(pids: dict[str, int]) -> Iterator[dict[str, float]]:
    """The highest anonymous memory of each process while the block runs."""
    highest, ended = dict.fromkeys(pids, 0.0), threading.Event()

    def watch() -> None:
        while True:
            for name, pid in pids.items():
                highest[name] = max(highest[name], memory_of(pid).anonymous)
            if ended.wait(EVERY_S):
                return

    watcher = threading.Thread(target=watch, name="bench-memory")
    watcher.start()
    try:
        yield highest
    finally:
        ended.set()
        watcher.join()


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1])), indent=2))
