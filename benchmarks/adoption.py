"""What a snapshot costs those who read and write meanwhile, and how soon an empty node answers from one.

`run_bootstrap`: 1 M rows of 100 B in 4 partitions, one snapshot on the local disk. A node with an empty directory, in a
replica group of its own, is started; then the same node again with what it has by then, beside it. Rows drawn at random
are compared. `run_adoption`: the same rows. 2,000 point reads a second over HTTP (open loop, every answer compared),
first with nothing else going on, then from when the node looks at a snapshot until it serves from it; Spark, which ends
meanwhile, is on the same cores. Before that, a steady writer's records, one every 2 ms to one partition: the largest
gap between applied positions around each of some cuts, with the digest of the partition computed beside, and around
each of as many barriers: control records that do nothing. And how long it takes from a cut in all partitions until
every digest is known: of views that hold everything, and over the snapshot, by difference.
"""

import random
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.applied import Applied
from examples.flights import adopted, load, wire
from examples.flights.running import CALL_S, STORE, Dev, RunningStore, call
from examples.flights.source import Stream
from logstore import Store
from logstore.log.control import append_control
from logstore.log.tables.registry import Registry
from logstore.model.partitioner import partition_of

TABLE, PARTITIONS, ROWS, VALUE_BYTES = "rows", 4, 1_000_000, 100
CHECKED, DEADLINE_MS = 1_000, 30_000
READS_PER_S, CONNECTIONS, QUIET_S, SLICE_S = 2_000, 32, 15, 0.25
CUTS, DIGESTS, WRITE_EVERY_S, AROUND_S = 5, 3, 0.002, 1.0
READY_AIM_S, SLOW_AIM_MS, PAUSE_AIM_MS, DIGEST_AIM_S = 2.0, 50.0, 20.0, 5.0

Row = dict[str, Any]
Rows = list[tuple[bytes, bytes]]


def run_bootstrap(scratch: Path, rounds: int = 3) -> list[Row]:
    """Rows for the table of `make bench`."""
    rows, cold, warm = _rows(), [], []
    with _filled(scratch, rows) as facts:
        _batch(scratch, facts)
        for number in range(rounds):
            place = scratch / f"empty-{number}"
            cold.append(_start(place, facts, rows, seed=number))
            warm.append(_start(place, facts, rows, seed=number))
    ready, answered = zip(*cold, strict=True)
    return [
        _beside("empty node, start to ready / the same again", "s", list(ready), [again for again, _ in warm]),
        _against("empty node, ready to first right answer / aim", "s", list(answered), READY_AIM_S),
    ]


def run_adoption(scratch: Path) -> list[Row]:
    """Rows for the table of `make bench`.

    Raises RuntimeError when an answer is wrong, LogStoreError when one does not come.
    """
    rows = _rows()
    with _filled(scratch, rows) as facts:
        at_cuts, at_barriers = _pauses(scratch, facts, rows)
        whole_s = [_digested_s(facts) for _ in range(DIGESTS)]
        work = wire.reads_of(facts["http"], TABLE, random.Random(2).sample(rows, 20_000))
        quiet = _drive(facts["http"], work, QUIET_S)
        meanwhile = _while_adopting(scratch, facts, work)
        over_s = [_digested_s(facts) for _ in range(DIGESTS)]
    pause = _against("lane pause at a cut / aim", "ms", [max(at_cuts)], PAUSE_AIM_MS)
    slow = _against("http get, p99.9 while a snapshot is adopted / aim", "ms", [_p999(meanwhile)], SLOW_AIM_MS)
    return [
        pause | {"all": at_cuts, "at_barriers": at_barriers},
        _against("digests at a cut, 1 M rows in views / aim", "s", whole_s, DIGEST_AIM_S),
        _against("digests at a cut, over the snapshot / aim", "s", over_s, DIGEST_AIM_S),
        _beside("lane pause at a cut / at a barrier", "ms", [max(at_cuts)], [max(at_barriers)]),
        slow | {"reads": len(meanwhile), "wrong": 0},
        _beside("http get, p99.9 while adopting / before", "ms", [_p999(meanwhile)], [_p999(quiet)]),
    ]


def _rows() -> Rows:
    rng = np.random.default_rng(1)
    return [(b"key-%012d" % number, rng.bytes(VALUE_BYTES)) for number in range(ROWS)]


@contextmanager
def _filled(scratch: Path, rows: Rows) -> Iterator[Row]:
    """A store that has applied all rows."""
    with Dev(scratch) as dev:
        facts = dev.ready()
        load.create(facts["bootstrap"], [Stream(TABLE, PARTITIONS, [])])
        with Store(facts["bootstrap"], facts["http"]) as store:
            load.await_applied(store, TABLE, store.put_many(TABLE, rows))
        yield facts


def _batch(scratch: Path, facts: Row) -> Row:
    return call(
        scratch, "batch", "compact", TABLE, "--bootstrap", facts["bootstrap"], "--data-dir", str(scratch / STORE)
    )


def _start(place: Path, facts: Row, rows: Rows, seed: int) -> tuple[float, float]:
    """Seconds from the start of a node's process to ready, and from there to its first right answer."""
    rng, began_s = random.Random(seed), time.perf_counter()
    with RunningStore(
        place,
        "node",
        "--bootstrap",
        facts["bootstrap"],
        "--data-dir",
        str(place),
        "--group",
        place.name,
        "--http",
        "127.0.0.1:0",
    ) as node:
        url = node.ready()["http"]
        ready_s = time.perf_counter()
        with Store(facts["bootstrap"], url) as store:
            _compare(store, rng.sample(rows, 1))
            answered_s = time.perf_counter()
            _compare(store, rng.sample(rows, min(CHECKED, len(rows))))
        if any(row["base"] is None for row in adopted.partitions(url, TABLE)):
            raise RuntimeError("the node did not begin from the snapshot")
    return ready_s - began_s, answered_s - ready_s


def _compare(store: Store, rows: Rows) -> None:
    found = store.get_many(TABLE, [key for key, _ in rows], deadline_ms=DEADLINE_MS)
    if [row and row.value for row in found] != [value for _, value in rows]:
        raise RuntimeError("the node answers something else than was written")


def _pauses(scratch: Path, facts: Row, rows: Rows) -> tuple[list[float], list[float]]:
    """Largest gaps between applied positions in milliseconds: around cuts, and around as many barriers."""
    table = Registry(facts["bootstrap"]).table(TABLE)
    at_cuts, at_barriers = list[float](), list[float]()
    ended = threading.Event()
    writing = [pair for pair in rows[:10_000] if partition_of(pair[0], PARTITIONS) == 0]  # the same values again
    with (
        Store(facts["bootstrap"], facts["http"]) as store,
        Applied(scratch / STORE, table.epoch, 0) as applied,
        ThreadPoolExecutor(1) as pool,
    ):
        writer = pool.submit(_write_steadily, store, writing, ended)
        try:
            for _ in range(CUTS):
                for op, gaps in (
                    ("barrier", at_barriers),
                    ("cut", at_cuts),
                ):  # a barrier is written the same way, and does nothing
                    begun_s = time.perf_counter()
                    append_control(facts["bootstrap"], table, op, {"job": "00000000", "table": TABLE}, [0])
                    gaps.append(applied.largest_gap_ms(begun_s, AROUND_S))
        finally:
            ended.set()
        writer.result()
    return at_cuts, at_barriers


def _digested_s(facts: Row) -> float:
    """Seconds from a cut in every partition until this node has shown all their digests (it looks once a second)."""
    table = Registry(facts["bootstrap"]).table(TABLE)
    began_s = time.perf_counter()
    cuts = append_control(facts["bootstrap"], table, "cut", {"job": "00000000", "table": TABLE})
    while time.perf_counter() - began_s < CALL_S:
        known = {
            row["partition"]: {found["cut"] for found in row["digests"]}
            for row in adopted.partitions(facts["http"], TABLE)
        }
        if all(cut in known.get(partition, ()) for partition, cut in cuts.items()):
            return time.perf_counter() - began_s
        time.sleep(0.02)
    raise RuntimeError(f"the digests were not computed within {CALL_S:g} s")


def _write_steadily(store: Store, rows: Rows, ended: threading.Event) -> None:
    with store.pipeline(TABLE) as pipeline:
        number, next_s = 0, time.perf_counter()
        while not ended.wait(max(0.0, next_s - time.perf_counter())):
            pipeline.put(*rows[number % len(rows)])
            number, next_s = number + 1, next_s + WRITE_EVERY_S


def _drive(url: str, work: list[wire.Read], seconds: float) -> list[float]:
    driven = wire.drive(url, work, seconds=seconds, connections=CONNECTIONS, rate=READS_PER_S)
    if driven.wrong:
        raise RuntimeError(f"{driven.wrong:,} of {len(driven.late_ms):,} reads were wrong")
    return driven.late_ms


def _while_adopting(scratch: Path, facts: Row, work: list[wire.Read]) -> list[float]:
    """Latencies from the slice in which the node began until it serves from the snapshot."""
    slices: list[tuple[str, list[float]]] = []
    deadline = time.monotonic() + CALL_S
    with ThreadPoolExecutor(1) as pool:
        compacting: Future[Row] = pool.submit(_batch, scratch, facts)
        while not (compacting.done() and slices[-1][0] == "adopted"):
            late_ms = _drive(facts["http"], work, SLICE_S)
            slices.append((_standing(facts["http"]), late_ms))
            if compacting.done():
                compacting.result()
            if time.monotonic() > deadline:
                raise RuntimeError(f"the snapshot was not adopted within {CALL_S:g} s")
    begun = [late for standing, late_ms in slices if standing == "adopting" for late in late_ms]
    first = next(
        late_ms for standing, late_ms in slices if standing == "adopted"
    )  # in this slice the last partition was flipped
    return begun + first


def _standing(url: str) -> str:
    rows = adopted.partitions(url, TABLE)
    if any(row["state"] == "refused" for row in rows):
        raise RuntimeError(f"the snapshot was refused: {rows}")
    if len(rows) == PARTITIONS and all(row["base"] for row in rows):
        return "adopted"
    return "before" if all(row["candidate"] is None and row["base"] is None for row in rows) else "adopting"


def _p999(late_ms: list[float]) -> float:
    return float(np.percentile(late_ms, 99.9))


def _beside(name: str, unit: str, ours: list[float], floor: list[float]) -> Row:
    mine, bare = statistics.median(ours), statistics.median(floor)
    return {
        "name": name,
        "unit": unit,
        "ours": mine,
        "ceiling": bare,
        "ratio": mine / bare,
        "lower_is_better": True,
        "all": [ours, floor],
    }


def _against(name: str, unit: str, ours: list[float], most: float) -> Row:
    mine = statistics.median(ours)
    return {
        "name": name,
        "unit": unit,
        "ours": mine,
        "ceiling": most,
        "ratio": mine / most,
        "aim": 1.0,
        "lower_is_better": True,
        "all": ours,
    }
