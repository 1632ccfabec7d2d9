"""Reading a view in the process itself, beside bare LMDB on the same data: point reads and a full scan."""

import random
import statistics
import time
from pathlib import Path
from typing import Any

import lmdb

from logstore.model.folding.fold import FoldRules, Records, fold_batch
from logstore.view.reader import ViewReader
from logstore.view.view import View, ViewIdentity

ROWS, GETS, VALUE_BYTES = 200_000, 200_000, 100


def run(data_dir: Path, rounds: int = 3) -> list[dict[str, Any]]:
    """Rows of {name, ours, ceiling, ratio, unit, spread}; every value read is compared."""
    rng = random.Random(1)
    rows = {b"%016d" % n: rng.randbytes(VALUE_BYTES) for n in range(ROWS)}
    wanted = rng.choices(list(rows), k=GETS)
    view = _view(data_dir / "view", rows)
    env, entries = _bare(data_dir / "bare", rows)
    reader = view.reader()
    gets = [(_our_gets(reader, wanted, rows), _bare_gets(env, entries, wanted, rows)) for _ in range(rounds)]
    scans = [(_our_scan(reader), _bare_scan(env, entries)) for _ in range(rounds)]
    view.close()
    env.close()
    return [_row("embedded get", gets, "gets/s"), _row("embedded scan", scans, "rows/s")]


def _row(name: str, pairs: list[tuple[float, float]], unit: str) -> dict[str, Any]:
    ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = [mine / raw for mine, raw in pairs]
    return {
        "name": name, "ours": ours, "ceiling": bare, "ratio": statistics.median(ratios), "unit": unit,
        "spread": [min(ratios), max(ratios)],
        "aim": 0.5, "ceiling_is": "bare LMDB",
    }  # fmt: skip


def _view(path: Path, rows: dict[bytes, bytes]) -> View:
    view = View(path, ViewIdentity("t", "e" * 32, 0, 1, 1_000_000))
    count = len(rows)
    records = Records(range(count), list(rows), list(rows.values()), [1] * count, [None] * count)
    view.apply(fold_batch(records, FoldRules(0, 1, 1_000_000), 0, 0))
    return view


def _bare(path: Path, rows: dict[bytes, bytes]) -> tuple[Any, Any]:
    path.mkdir(parents=True)
    env = lmdb.open(str(path), map_size=1 << 30, max_dbs=1, sync=False, metasync=False, writemap=True, readahead=False)
    entries = env.open_db(b"entries")
    with env.begin(write=True) as txn:
        txn.cursor(db=entries).putmulti(sorted(rows.items()))
    return env, entries


def _our_gets(reader: ViewReader, wanted: list[bytes], rows: dict[bytes, bytes]) -> float:
    begin = time.perf_counter()
    found = [reader.point(key)[1] for key in wanted]
    rate = len(wanted) / (time.perf_counter() - begin)
    if any(raw is None or raw[17:] != rows[key] for raw, key in zip(found, wanted, strict=True)):
        raise RuntimeError("the view answered wrongly")
    return rate


def _bare_gets(env: Any, entries: Any, wanted: list[bytes], rows: dict[bytes, bytes]) -> float:
    begin = time.perf_counter()
    found = []
    for key in wanted:
        with env.begin() as txn:
            found.append(txn.get(key, db=entries))
    rate = len(wanted) / (time.perf_counter() - begin)
    if found != [rows[key] for key in wanted]:
        raise RuntimeError("LMDB answered wrongly")
    return rate


def _our_scan(reader: ViewReader) -> float:
    begin = time.perf_counter()
    with reader.reading() as reading:
        count = sum(1 for _ in reading.scan())
    return _rate(count, begin)


def _bare_scan(env: Any, entries: Any) -> float:
    begin = time.perf_counter()
    with env.begin() as txn:
        count = sum(1 for _ in txn.cursor(db=entries))
    return _rate(count, begin)


def _rate(count: int, begin: float) -> float:
    seconds = time.perf_counter() - begin
    if count != ROWS:
        raise RuntimeError(f"the scan saw {count:,} rows of {ROWS:,}")
    return count / seconds
