"""HTTP reads of a row and of pages that come from a snapshot, beside the same reads of a view without one.

And the digest of a snapshot.

Work: 200,000 rows of 100 bytes under 16-byte keys in one partition, once in a view ("above"), once in a snapshot under
an empty view ("below"), served by one reader process. wrk over 32 connections asks for random rows, and one client for
pages of 1,000 in key order; the two tables take turns within each round. The digest is of a view of a million such
rows, read and hashed; beside it the hash alone, over the same bytes in memory.
"""

import contextlib
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgpack
import xxhash

from benchmarks import http
from logstore.model.folding.digest import digest
from logstore.model.folding.entry import VALUE, Entry
from logstore.model.folding.fold import Folded
from logstore.model.slots import DEFAULT_SLOTS
from logstore.model.table import Table
from logstore.snapshot.sst import SstWriter, prepare
from logstore.view import paths
from logstore.view.feed.node_records import NodeRecord, NodesKey, NodesRecord
from logstore.view.feed.position_records import AppliedKey, AppliedRecord
from logstore.view.feed.server import FeedServer
from logstore.view.feed.table_records import TablesKey, TablesRecord
from logstore.view.feed.view_records import LIVE, LocalSnapshotRecord, ViewKey, ViewRecord
from logstore.view.layout import Base
from logstore.view.view import View, ViewIdentity

ROWS, DIGESTED, VALUE_BYTES = 200_000, 1_000_000, 100
ABOVE, BELOW = "above", "below"
_EPOCHS = {ABOVE: "a" * 32, BELOW: "b" * 32}
_NODE = "bench"
_RANDOM_KEYS = """
math.randomseed({seed})
request = function()
  return wrk.format("GET", string.format("/v1/tables/{table}/rows/key-%012d", math.random(0, {last})))
end
"""


def run(data_dir: Path, seconds: int = 4, rounds: int = 3) -> list[dict[str, Any]]:
    """Rows for the table of `make bench`. Scratch lies under `data_dir`."""
    with tempfile.TemporaryDirectory(dir=data_dir) as scratch:
        digested = _digest_row(Path(scratch) / "digested", rounds)
        with _reader(Path(scratch) / "node") as url:
            _check(url)
            points = _points(Path(scratch), url, seconds, rounds) if shutil.which("wrk") else None
            pages = [_pages(url, number) for number in range(rounds)]
    first = {"name": "http get from snapshot / from view", "skipped": "wrk is not installed"}
    if points is not None:
        first = _row("http get from snapshot / from view", "requests/s", points, 0.7)
    return [first, _row("http scan over snapshot / over view", "rows/s", pages, 0.5), digested]


def _points(scratch: Path, url: str, seconds: int, rounds: int) -> list[tuple[float, float]]:
    measured = []
    for number in range(rounds):
        figures = {}
        for table in _turn(number):
            script = scratch / f"{table}.lua"
            script.write_text(_RANDOM_KEYS.format(seed=number, last=ROWS - 1, table=table))
            figures[table] = http._wrk(url, script, seconds)["per_s"]
        measured.append((figures[BELOW], figures[ABOVE]))
    return measured


def _turn(number: int) -> tuple[str, str]:
    """Who begins changes from round to round: the first one meets a colder processor."""
    return (BELOW, ABOVE) if number % 2 else (ABOVE, BELOW)


def _pages(url: str, number: int) -> tuple[float, float]:
    figures = {table: _scanned_per_s(url, table) for table in _turn(number)}
    return figures[BELOW], figures[ABOVE]


def _scanned_per_s(url: str, table: str) -> float:
    """Rows a second, page by page through the whole table."""
    count, cursor, began = 0, None, time.perf_counter()
    with httpx.Client(base_url=url, trust_env=False, headers={"Accept": "application/msgpack"}) as client:
        while count == 0 or cursor is not None:
            params = {"limit": "1000"} | ({} if cursor is None else {"cursor": cursor})
            page = msgpack.unpackb(client.get(f"/v1/tables/{table}/rows", params=params).content)
            count, cursor = count + len(page["rows"]), page["cursor"]
    if count != ROWS:
        raise RuntimeError(f"{table} has {count:,} rows, not {ROWS:,}")
    return count / (time.perf_counter() - began)


def _digest_row(path: Path, rounds: int) -> dict[str, Any]:
    entries = {_key(i): _entry(i) for i in range(DIGESTED)}
    view = View(path, ViewIdentity("digested", "d" * 32, 0, 1, 1_000_000), map_bytes=1 << 30)
    view.apply(Folded(DIGESTED, 1, entries, [], None))
    ours, bare = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        with view.reader().reading() as reading:
            found = digest(reading.scan())
        ours.append(time.perf_counter() - began)
        if found.entries != DIGESTED:
            raise RuntimeError(f"the digest is of {found.entries:,} entries")
        began = time.perf_counter()
        for key, entry in entries.items():
            xxhash.xxh3_128_intdigest(key + entry)
        bare.append(time.perf_counter() - began)
    view.close()
    took, floor = statistics.median(ours), statistics.median(bare)
    return {
        "name": "digest of 1 M entries / hash alone", "unit": "s, aim 5 s", "ours": took, "ceiling": floor,
        "ratio": took / floor,
        "seconds": ours,
    }  # fmt: skip


def _row(name: str, unit: str, measured: list[tuple[float, float]], aim: float) -> dict[str, Any]:
    ratios = [below / above for below, above in measured]
    ours, ceiling = (statistics.median(figures) for figures in zip(*measured, strict=True))
    return {
        "name": name,
        "unit": unit,
        "ours": ours,
        "ceiling": ceiling,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "aim": aim,
    }


def _key(i: int) -> bytes:
    return b"key-%012d" % i


def _value(i: int) -> bytes:
    return (b"%d/" % i * VALUE_BYTES)[:VALUE_BYTES]


def _entry(i: int) -> bytes:
    return Entry(VALUE, i, 1, _value(i)).encode()


def _check(url: str) -> None:
    source = random.Random(1)
    with httpx.Client(base_url=url, trust_env=False) as client:
        for i in [0, ROWS - 1, *source.sample(range(ROWS), 100)]:
            for table, where in ((ABOVE, "view"), (BELOW, "snapshot")):
                answer = client.get(f"/v1/tables/{table}/rows/{_key(i).decode()}")
                if (answer.content, answer.headers["ls-source"]) != (_value(i), where):
                    raise RuntimeError(f"the reader answered {_key(i)!r} of {table} with {answer.content[:80]!r}")


@contextlib.contextmanager
def _reader(data_dir: Path) -> Iterator[str]:
    """A real reader process over a view, and over an empty view that stands on a snapshot.

    This process stands for the worker.
    """
    feed = FeedServer(paths.feed_path(data_dir, 0))
    tables = [Table(name, name, epoch, 1) for name, epoch in _EPOCHS.items()]
    slots = tuple(range(DEFAULT_SLOTS))
    feed.publish(TablesKey(), TablesRecord(1, "c" * 32, tables=tuple(table.to_json() for table in tables)))
    feed.publish(NodesKey(), NodesRecord((NodeRecord(_NODE, 0, slots=slots, live=slots, tables=1),)))
    views = [_view(feed, data_dir, table) for table in tables]
    with http.reader_process(data_dir, _NODE) as url:
        yield url
    feed.close()
    for view in views:
        view.close()


def _view(feed: FeedServer, data_dir: Path, table: Table) -> View:
    entries = {_key(i): _entry(i) for i in range(ROWS)}
    base = None if table.name == ABOVE else Base("s", ROWS, 1, digest(entries.items()).hex, ROWS, "")
    path = paths.partition_dir(data_dir, table.name, table.epoch, 0) / "1"
    view = View(path, ViewIdentity(table.name, table.epoch, 0, 1, 1_000_000), base, map_bytes=1 << 30)
    shown = None
    if base is None:
        view.apply(Folded(ROWS, 1, entries, [], None))
    else:
        below = _snapshot(paths.snapshot_dir(data_dir, table.name, table.epoch, 0) / "s", entries)
        shown = LocalSnapshotRecord(str(below), base.snapshot, base.cut, base.log_time_ms)
    feed.publish(ViewKey(table.name, table.epoch, 0), ViewRecord(str(view.path), 0, LIVE, base=shown))
    feed.publish(AppliedKey(table.epoch, 0), AppliedRecord(ROWS, ROWS))
    return view


def _snapshot(directory: Path, entries: dict[bytes, bytes]) -> Path:
    directory.parent.mkdir(parents=True)
    file = directory.with_suffix(".sst")
    writer = SstWriter(file)
    for key, entry in entries.items():
        writer.put(key, entry)
    writer.close()
    prepare(directory, [[file]])
    return directory


if __name__ == "__main__":
    print(json.dumps(run(Path(tempfile.gettempdir())), indent=2))
