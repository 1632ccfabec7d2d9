"""HTTP reads of one column family of wide rows, beside reads of plain rows whose value is the payload of that family.

Work: 20,000 rows in one partition of each of two tables, served by one reader process. A wide row has three families
with three cells each; one family is asked for. A plain row has the bytes of those three values. One client reads random
rows, one after the other; the tables take turns within each round, and every answer is compared with what was written.
"""

import contextlib
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import http
from logstore.client.conditional.record import Expected, edit_record
from logstore.client.store import Store
from logstore.client.wide.row_edit import RowEdit, edited_row
from logstore.model.folding.fold import FoldRules, Records, fold_batch
from logstore.model.hard_rows.rules import rules_of
from logstore.model.hard_rows.stretch import StretchStart, fold_stretch
from logstore.model.slots import DEFAULT_SLOTS
from logstore.model.table import Table
from logstore.view import paths
from logstore.view.conditional.state_before import ViewState
from logstore.view.feed.node_records import NodeRecord, NodesKey, NodesRecord
from logstore.view.feed.position_records import AppliedKey, AppliedRecord
from logstore.view.feed.server import FeedServer
from logstore.view.feed.table_records import TablesKey, TablesRecord
from logstore.view.feed.view_records import LIVE, ViewKey, ViewRecord
from logstore.view.view import View, ViewIdentity

ROWS, CELL_BYTES, AIM = 20_000, 100, 0.7
FAMILIES, QUALIFIERS, ASKED = ("anchor", "content", "notes"), ("a", "b", "c"), "content"
BATCH = 5_000
NOW_MS = 1_700_000_000_000
_NODE = "bench"
NO_KAFKA = "127.0.0.1:1"  # nothing is written


def run(data_dir: Path, reads: int = 4_000, rounds: int = 3) -> list[dict[str, Any]]:
    """A row for the table of `make bench`. Scratch lies under `data_dir`."""
    with (
        tempfile.TemporaryDirectory(dir=data_dir) as scratch,
        _reader(Path(scratch) / "node") as url,
        Store(NO_KAFKA, url) as store,
    ):
        pairs = [_pair(store, reads, number) for number in range(rounds)]
    ours, ceiling = (statistics.median(figures) for figures in zip(*pairs, strict=True))
    ratios = [wide / plain for wide, plain in pairs]
    return [
        {"name": "get_row of a family / get of a plain row", "unit": "reads/s", "ours": ours, "ceiling": ceiling,
         "ratio": statistics.median(ratios), "ratios": ratios, "aim": AIM}
    ]  # fmt: skip


def _pair(store: Store, reads: int, number: int) -> tuple[float, float]:
    """Reads a second of wide and of plain rows. Who begins changes from round to round."""
    wanted = random.Random(number).choices(range(ROWS), k=reads)
    if number % 2:
        return _rate(wanted, partial(_family, store), _cells_asked), _rate(wanted, partial(_value, store), _payload)
    plain = _rate(wanted, partial(_value, store), _payload)
    return _rate(wanted, partial(_family, store), _cells_asked), plain


def _rate(wanted: list[int], read: Callable[[bytes], Any], expected: Callable[[int], Any]) -> float:
    keys = [http.key_of(i) for i in wanted]
    read(keys[0])  # connects
    began_s = time.perf_counter()
    found = [read(key) for key in keys]
    seconds = time.perf_counter() - began_s
    for i, answer in zip(wanted, found, strict=True):
        if answer != expected(i):
            raise RuntimeError(f"the reader answered row {i} with {answer!r:.80}")
    return len(wanted) / seconds


def _family(store: Store, key: bytes) -> dict[bytes, bytes] | None:
    row = store.get_row("wide", key, [f"{ASKED}:"])
    return None if row is None else row.family(ASKED)


def _value(store: Store, key: bytes) -> Any:
    row = store.get("plain", key)
    return None if row is None else row.value


def _cells_asked(i: int) -> dict[bytes, bytes]:
    return _cells(i, ASKED)


def _cells(i: int, family: str) -> dict[bytes, bytes]:
    return {q.encode(): (f"{i}/{family}/{q}/" * CELL_BYTES)[:CELL_BYTES].encode() for q in QUALIFIERS}


def _payload(i: int) -> bytes:
    return b"".join(_cells(i, ASKED).values())


@contextlib.contextmanager
def _reader(data_dir: Path) -> Iterator[str]:
    """A real reader process over the views of both tables. This process stands for the worker."""
    feed, slots = FeedServer(paths.feed_path(data_dir, 0)), tuple(range(DEFAULT_SLOTS))
    wide = Table(
        "wide", "wide", "a" * 32, 1, conditional=True, wide=True, families={family: {} for family in FAMILIES}
    )  # fmt: skip
    plain = Table("plain", "plain", "b" * 32, 1)
    feed.publish(TablesKey(), TablesRecord(1, "c" * 32, tables=(wide.to_json(), plain.to_json())))
    feed.publish(NodesKey(), NodesRecord((NodeRecord(_NODE, 0, slots=slots, live=slots, tables=2),)))
    views = [_view(data_dir, wide), _view(data_dir, plain)]
    for table, view in zip((wide, plain), views, strict=True):
        for first in range(0, ROWS, BATCH):
            (_edit if table.wide else _put)(table, view, range(first, first + BATCH))
        feed.publish(ViewKey(table.name, table.epoch, 0), ViewRecord(str(view.path), 0, LIVE))
        feed.publish(AppliedKey(table.epoch, 0), AppliedRecord(view.next_offset, view.next_offset))
    with http.reader_process(data_dir, _NODE) as url:
        yield url
    feed.close()
    for view in views:
        view.close()


def _view(data_dir: Path, table: Table) -> View:
    path = paths.partition_dir(data_dir, table.name, table.epoch, 0) / "1"
    return View(path, ViewIdentity.of(table, 0), map_bytes=1 << 30)


def _edit(table: Table, view: View, numbers: range) -> None:
    made = []
    for i in numbers:
        edit = RowEdit()
        for family in FAMILIES:
            for qualifier, value in _cells(i, family).items():
                edit = edit.set(family, qualifier, value)
        made.append(edit_record(edited_row(http.key_of(i), edit), Expected(), None))
    records = Records(
        numbers, [one.key for one in made], [one.value for one in made], [NOW_MS] * len(made),
        [list(one.own) for one in made],
    )  # fmt: skip
    start = StretchStart(numbers.start, view.state.log_time_ms, view.counter)
    view.apply(fold_stretch(records, rules_of(table, 0), start, ViewState(view.reader(), lambda: None)))


def _put(table: Table, view: View, numbers: range) -> None:
    count = len(numbers)
    records = Records(
        numbers, [http.key_of(i) for i in numbers], [_payload(i) for i in numbers], [NOW_MS] * count, [None] * count
    )
    view.apply(fold_batch(records, FoldRules.of(table, 0), numbers.start, view.state.log_time_ms))


if __name__ == "__main__":
    print(json.dumps(run(Path(tempfile.gettempdir())), indent=2))
