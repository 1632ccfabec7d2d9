"""Point reads and scans of a snapshot with three deltas, beside the same reads of its base alone.

Work: a million rows of 100 bytes under 16-byte keys, and three deltas upon them, each of 1 % of the rows, a tenth of
those deleted. The two take turns within each round; a tenth of all keys is looked up in random order, and what comes
back is compared.
"""

import random
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from logstore.model.folding.entry import TOMBSTONE, VALUE, Entry
from logstore.snapshot.sst import SstReader, SstWriter, prepare

ROWS, DELTAS, SHARE, VALUE_BYTES = 1_000_000, 3, 0.01, 100
CACHE_BYTES = 256 << 20

Entries = dict[bytes, bytes]
Measure = Callable[[SstReader, Entries], float]


def run(scratch: Path, rounds: int = 3) -> list[dict[str, Any]]:
    """Rows for the table of `make bench`."""
    rng = random.Random(1)
    held = {b"key-%012d" % n: Entry(VALUE, n, n, rng.randbytes(VALUE_BYTES)).encode() for n in range(ROWS)}
    files, states = [[_written(scratch / "base.sst", held)]], [dict(held)]
    for level in range(1, DELTAS + 1):
        changed = _changed(rng, list(held), level)
        files.append([_written(scratch / f"{level}.sst", changed)])
        held |= changed
    states.append(held)
    with ExitStack() as stack:
        readers = [
            stack.enter_context(closing(_reader(scratch / f"levels-{len(levels)}", levels)))
            for levels in (files[:1], files)
        ]
        keys = rng.sample(list(held), ROWS // 10)
        live = [{key: entry for key, entry in state.items() if entry[0] == VALUE} for state in states]
        points = [_measured(readers, live, number, partial(_points_per_s, keys=keys)) for number in range(rounds)]
        scans = [_measured(readers, live, number, _scanned_per_s) for number in range(rounds)]
    return [
        _row("get from base and 3 deltas / from base alone", "reads/CPU-s", points, 0.85),
        _row("scan over base and 3 deltas / over base alone", "rows/CPU-s", scans, 0.7),
    ]


def _changed(rng: random.Random, keys: list[bytes], level: int) -> Entries:
    version = level * ROWS
    changed = {key: Entry(VALUE, version, 0, rng.randbytes(VALUE_BYTES)) for key in rng.sample(keys, int(ROWS * SHARE))}
    gone = {key: Entry(TOMBSTONE, version, 0) for key in rng.sample(list(changed), len(changed) // 10)}
    return {key: entry.encode() for key, entry in (changed | gone).items()}


def _written(path: Path, entries: Entries) -> Path:
    writer = SstWriter(path)
    writer.put_many(sorted(entries.items()))
    writer.close()
    return path


def _reader(directory: Path, levels: list[list[Path]]) -> SstReader:
    prepare(directory, levels)
    return SstReader.open(directory, cache_bytes=CACHE_BYTES)


def _measured(readers: list[SstReader], live: list[Entries], number: int, measure: Measure) -> tuple[float, float]:
    """Rates with deltas and without; who begins changes from round to round."""
    figures = [0.0, 0.0]
    for which in (0, 1) if number % 2 else (1, 0):
        figures[which] = measure(readers[which], live[which])
    return figures[1], figures[0]


def _points_per_s(reader: SstReader, live: Entries, keys: list[bytes]) -> float:
    began = time.process_time()
    found = [reader.get(key) for key in keys]
    seconds = time.process_time() - began
    if found != [live.get(key) for key in keys]:
        raise RuntimeError("a look-up did not give what was written")
    return len(keys) / seconds


def _scanned_per_s(reader: SstReader, live: Entries) -> float:
    began = time.process_time()
    count = sum(1 for _ in reader.scan())
    seconds = time.process_time() - began
    if count != len(live):
        raise RuntimeError(f"{count:,} rows were scanned of {len(live):,}")
    return count / seconds


def _row(name: str, unit: str, measured: list[tuple[float, float]], aim: float) -> dict[str, Any]:
    ratios = [ours / beside for ours, beside in measured]
    return {
        "name": name, "ours": statistics.median(ours for ours, _ in measured),
        "ceiling": statistics.median(beside for _, beside in measured), "ratio": statistics.median(ratios),
        "unit": unit, "spread": [min(ratios), max(ratios)], "aim": aim, "ceiling_is": "the base alone",
    }  # fmt: skip
