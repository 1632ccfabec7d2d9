"""A replica beside bare LMDB with the same rows in this process, and beside `Store` over HTTP; all take turns.

200,000 rows of 100 bytes in 4 partitions, read at random. Bare LMDB has them in one environment, a transaction for each
read, as a replica begins one; it places no keys, knows no versions and makes no rows. Every answer is compared.
"""

import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import lmdb

from benchmarks.http import NODE, ROWS, key_of, reader_of, value_of
from logstore import Replica, Store

GETS, STORED, MANY, MANY_TIMES, SCANNED = 100_000, 2_000, 100, 500, 100_000
Rates = dict[str, list[float]]


def run(data_dir: Path, rounds: int = 3) -> list[dict[str, Any]]:
    """Rows for the table of `make bench`; scratch lies under `data_dir`."""
    rng = random.Random(1)
    keys = [key_of(rng.randrange(ROWS)) for _ in range(GETS)]
    rows = {key_of(n): value_of(n) for n in range(ROWS)}
    late_us: list[float] = []
    with _node(data_dir / "node") as url, Replica(data_dir / "node") as replica, Store(url=url) as store:
        bare = _Bare(data_dir / "bare", rows)
        ways: dict[str, Callable[[], float]] = {
            "get": lambda: _gets(lambda key: replica.get("t", key), keys, rows),
            "bare get": lambda: bare.gets(keys, rows),
            "stored get": lambda: _gets(lambda key: store.get("t", key), keys[:STORED], rows),
            "in place": lambda: _in_place(replica, keys, rows),
            "get_many": lambda: _many(replica, keys, rows),
            "bare get_many": lambda: bare.many(keys, rows),
            "scan": lambda: _scan(replica),
            "bare scan": bare.scan,
        }
        rates: Rates = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                rates[name].append(way())
            late_us += _each_us(replica, keys)
        bare.env.close()
    p99 = {"p99_ms": sorted(late_us)[len(late_us) * 99 // 100] / 1_000}
    return [
        _row("Replica.get / bare LMDB", rates, "get", "bare get", 0.95) | p99,
        _row("Replica.get / Store.get", rates, "get", "stored get", None),
        _row("view.get in place / bare LMDB", rates, "in place", "bare get", None),
        _row(f"Replica.get_many of {MANY} / bare LMDB", rates, "get_many", "bare get_many", None),
        _row(f"Replica.scan of {SCANNED:,} / bare LMDB", rates, "scan", "bare scan", None),
    ]


def _row(name: str, rates: Rates, ours: str, theirs: str, aim: float | None) -> dict[str, Any]:
    ratios = [mine / its for mine, its in zip(rates[ours], rates[theirs], strict=True)]
    return {
        "name": name, "unit": "rows/s", "ours": statistics.median(rates[ours]),
        "ceiling": statistics.median(rates[theirs]), "ratio": statistics.median(ratios), "ratios": ratios, "aim": aim,
    }  # fmt: skip


@contextmanager
def _node(data_dir: Path) -> Iterator[str]:
    """URL of a node in a process of its own: its views are open there, and can be opened here for a replica."""
    data_dir.mkdir(parents=True)
    (data_dir / "node_id").write_text(NODE)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(data_dir, there))
    process.start()
    there.close()
    try:
        yield here.recv()
    finally:
        here.close()
        process.join(60)


def _serve(data_dir: Path, pipe: Connection) -> None:
    with reader_of(data_dir) as url:
        pipe.send(url)
        pipe.poll(None)  # until the other end closes


class _Bare:
    """The same rows in one environment, whose keys are put in order before."""

    def __init__(self, path: Path, rows: dict[bytes, bytes]) -> None:
        path.mkdir(parents=True)
        self.env = lmdb.open(str(path), map_size=1 << 30, max_dbs=1, sync=False, metasync=False, readahead=False)
        self._entries = self.env.open_db(b"entries")
        with self.env.begin(write=True) as txn:
            txn.cursor(db=self._entries).putmulti(sorted(rows.items()))

    def gets(self, keys: list[bytes], rows: dict[bytes, bytes]) -> float:
        def get(key: bytes) -> bytes | None:
            with self.env.begin() as txn:
                return txn.get(key, None, self._entries)

        begin = time.perf_counter()
        found = [get(key) for key in keys]
        rate = len(keys) / (time.perf_counter() - begin)
        _check(found == [rows[key] for key in keys])
        return rate

    def many(self, keys: list[bytes], rows: dict[bytes, bytes]) -> float:
        begin = time.perf_counter()
        for n in range(MANY_TIMES):
            some = keys[n * MANY : n * MANY + MANY]
            with self.env.begin() as txn:
                found = [txn.get(key, None, self._entries) for key in some]
            _check(found[-1] == rows[some[-1]])
        return MANY * MANY_TIMES / (time.perf_counter() - begin)

    def scan(self) -> float:
        begin = time.perf_counter()
        with self.env.begin() as txn:
            found = [item for item, _ in zip(txn.cursor(db=self._entries), range(SCANNED), strict=False)]
        _check(len(found) == SCANNED)
        return SCANNED / (time.perf_counter() - begin)


def _gets(get: Callable[[bytes], Any], keys: list[bytes], rows: dict[bytes, bytes]) -> float:
    begin = time.perf_counter()
    found = [get(key) for key in keys]
    rate = len(keys) / (time.perf_counter() - begin)
    _check([row.value for row in found] == [rows[key] for key in keys])
    return rate


def _in_place(replica: Replica, keys: list[bytes], rows: dict[bytes, bytes]) -> float:
    begin = time.perf_counter()
    for first in range(0, len(keys), MANY):
        with replica.view("t") as view:
            row = [view.get(key) for key in keys[first : first + MANY]][-1]
            _check(row is not None and row.value == rows[keys[first + MANY - 1]])
    return len(keys) / (time.perf_counter() - begin)


def _many(replica: Replica, keys: list[bytes], rows: dict[bytes, bytes]) -> float:
    begin = time.perf_counter()
    for n in range(MANY_TIMES):
        some = keys[n * MANY : n * MANY + MANY]
        row = replica.get_many("t", some)[-1]
        _check(row is not None and row.value == rows[some[-1]])
    return MANY * MANY_TIMES / (time.perf_counter() - begin)


def _scan(replica: Replica) -> float:
    begin = time.perf_counter()
    _check(len(list(replica.scan("t", limit=SCANNED))) == SCANNED)
    return SCANNED / (time.perf_counter() - begin)


def _each_us(replica: Replica, keys: list[bytes]) -> list[float]:
    """Microseconds of each read."""
    clock, get, took = time.perf_counter_ns, replica.get, []
    for key in keys:
        begin = clock()
        get("t", key)
        took.append((clock() - begin) / 1_000)
    return took


def _check(right: bool) -> None:
    if not right:
        raise RuntimeError("a read answered wrongly")
