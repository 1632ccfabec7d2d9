"""Compare tasks of an audit: fold one partition from the beginning; compare with a snapshot or a served view.

Nothing of the snapshots that are judged goes into the fold: it begins at offset 0 (in a restored table: at the snapshot
it was made from). What a view holds is read through its read API, a page at a time, and may be newer than the cut: a
key that the log names between the cut and the page is left out, every other one has to be exactly as it was at the cut.
"""

import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgpack

from batch.defaults import LISTED, LISTED_CELLS
from batch.tasks.conditional import begun
from batch.tasks.conditional_fold import ConditionalFold
from batch.tasks.fold import Fold, Shape, over
from batch.tasks.sst_files import SstTarget, levels_opened, linked, scanned
from batch.tasks.sstables import feed
from logstore.log.read.ranges import read_range
from logstore.model.errors import Corrupted, ServerUnreachable
from logstore.model.folding.difference import ended
from logstore.model.folding.digest import Digest, digest
from logstore.model.folding.entry import CELLS, SIBLINGS, Entry
from logstore.model.folding.fold import FoldRules
from logstore.model.folding.packed_values import seen_at
from logstore.model.folding.sibling import Sibling, Value, size_bytes
from logstore.model.folding.sorted_merge import join
from logstore.model.folding.terms import Column
from logstore.model.hard_rows.changes.cell_differences import column_name, differing_cells
from logstore.model.hard_rows.packed import side_by_side
from logstore.model.hard_rows.row import CellState
from logstore.model.position import Position
from logstore.model.table import MAX_VERSIONS, Table
from logstore.model.wide.cell import PackedCells, WideCell
from logstore.model.wide.selection import CellSelection
from logstore.snapshot.work import (
    Comparison,
    DigestOrder,
    FoldOrder,
    GuiltyCell,
    GuiltyKey,
    PartDigest,
    SeenValue,
    ServedOrder,
    SnapshotOrder,
)

PAGE_ROWS = 1_000
AGAIN_S = 0.2
ASK_MS = 10_000
_AT_HAND = 4  # expected rows: the one that is compared, and what is read ahead

_CELL_FIELDS = ("family", "qualifier", "version", "timestamp", "value")
_EVERY_CELL = CellSelection((), MAX_VERSIONS)

Cells = tuple[WideCell, ...]
Version = tuple[int, bytes, int, int | None]  # of a cell, with value, timestamp and end
Versions = list[Version]  # newest first
Cell = tuple[bytes, SeenValue, Any]  # key, what is shown, what is compared


class CompareSource(NamedTuple):
    """A table, its repository, and its log."""

    table: Table
    target: SstTarget
    bootstrap: str


@contextmanager
def entries(order: FoldOrder, where: CompareSource) -> Iterator[Iterator[tuple[bytes, bytes]]]:
    """The live entries of a partition at a cut, in key order. Raises Corrupted, Unsupported, StorageUnreachable."""
    with _folding(order, where) as (fold, scratch):
        _feed(fold, order, where, order.since, order.cut)
        with scanned(where.target, order.base_files, scratch) as base:
            yield _over(where.table, fold, base)


@contextmanager
def _folding(order: FoldOrder, where: CompareSource) -> Iterator[tuple[Fold | ConditionalFold, Path]]:
    """A fold of a partition to which nothing was given yet, and a folder for what it does not hold in memory."""
    table, partition = where.table, order.partition
    place = FoldRules.of(table, partition)
    with tempfile.TemporaryDirectory(prefix="logstore-audit-") as scratch, ExitStack() as opened:
        if table.conditional:
            below = Path(scratch, "rows")
            below.mkdir()
            rows = opened.enter_context(levels_opened(linked(where.target, order.base_files, below)))
            yield begun(order, table, where.target, rows, Path(scratch), opened), Path(scratch)
        else:
            yield Fold(Shape(table.name, place, table.skips.get(partition, [])), Path(scratch)), Path(scratch)


def _over(
    table: Table, fold: Fold | ConditionalFold, base: Iterator[tuple[bytes, bytes]]
) -> Iterator[tuple[bytes, bytes]]:
    """The live entries of a fold over what lies below it, at the fold's log time."""
    if not table.expiring:
        return over(base, fold.items())
    return over(ended(base, fold.log_time_ms), ended(fold.items(), fold.log_time_ms))


def _feed(fold: Fold | ConditionalFold, order: FoldOrder, where: CompareSource, since: int, cut: int) -> None:
    """Give the fold the records `[since, cut)` of the order's segments."""
    segments = [segment for segment in order.segments if segment.start < cut and segment.end > since]
    feed(fold, segments, where.target.storage, where.table.skips.get(order.partition, []), since, cut)
    fold.finish()


def fold_digests(order: DigestOrder, where: CompareSource) -> list[PartDigest]:
    """Digests of a partition at every cut, its log read once; raises as `entries`."""
    fold, at, found = order.fold, order.fold.since, list[PartDigest]()
    with _folding(fold, where) as (folding, scratch):
        for cut in order.cuts:
            _feed(folding, fold, where, at, cut)
            with scanned(where.target, fold.base_files, scratch) as base:
                total = digest(_over(where.table, folding, base))
            if isinstance(folding, ConditionalFold):
                total = total.plus(Digest(folding.decided_digest().value))
            found.append(PartDigest(total.hex, total.entries))
            at = cut
    return found


def compare_snapshot(order: SnapshotOrder, where: CompareSource) -> Comparison:
    """Compare the fold with the files of a snapshot at the same cut, byte for byte. Raises as `entries`."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="logstore-audit-") as scratch, entries(order.fold, where) as expected:
        try:
            with scanned(where.target, order.files, Path(scratch)) as held:
                tally.take(differences(map(_entry, expected), map(_entry, held), _cells))
        except Corrupted as error:
            return tally.result(str(error))
    return tally.result()


def compare_view(order: ServedOrder, where: CompareSource) -> Comparison:
    """Compare the fold with what the node at a URL serves of the partition.

    Raises as `entries`, and what `read_range` does.
    """
    pages = _Pages(order, where.table)
    changed, ends = _Changed(where, order.fold), _Ends()
    tally = Tally(lambda key: changed.since_cut(key, pages.position) or ends.had_come(key, pages.time_ms))
    with entries(order.fold, where) as expected, pages:
        try:
            tally.take(differences(map(_row, ends.noting(expected)), pages.rows(), _served_cells))
        except ServerUnreachable as error:
            return tally.result(str(error))
    return tally.result()


def _no_cells(_expected: bytes, _found: bytes) -> tuple[GuiltyCell, ...]:
    return ()


def differences(
    expected: Iterable[Cell], found: Iterable[Cell], cells: Callable[[bytes, bytes], tuple[GuiltyCell, ...]] = _no_cells
) -> Iterator[GuiltyKey]:
    """Rows that two lists do not have in common. `cells` names those of a row that both have.

    Requires: both in key order.
    """
    for left, right in join(expected, found):
        if left is None:
            assert right is not None, "one of them is there"
            yield GuiltyKey(right[0], None, right[1])
        elif right is None:
            yield GuiltyKey(left[0], left[1], None)
        elif left[1:] != right[1:]:
            yield GuiltyKey(left[0], left[1], right[1], cells(left[2], right[2]))


def _cells(expected: bytes, found: bytes) -> tuple[GuiltyCell, ...]:
    """Cells in which two encoded entries differ, the first of them."""
    differing = differing_cells(expected, found)[:LISTED_CELLS]
    return tuple(GuiltyCell(one.name, *_first_apart(_versions(one.left), _versions(one.right))) for one in differing)


def _first_apart(left: Versions, right: Versions) -> tuple[SeenValue | None, SeenValue | None]:
    """The newest versions of a cell that both sides do not have alike. Requires: there are some."""
    one, other = next(pair for pair in zip_longest(left, right) if pair[0] != pair[1])
    return _seen(one), _seen(other)


def _seen(version: Version | None) -> SeenValue | None:
    return None if version is None else SeenValue(version[0], len(version[1]))


def _versions(cell: CellState | None) -> Versions:
    found = () if cell is None else (*cell.members, *cell.older)
    return [(one.version, one.payload, one.timestamp_ms, one.expires_ms) for one in found]


class Tally:
    """Counts differences, and keeps the first of them."""

    def __init__(self, excused: Callable[[bytes], bool] = lambda _: False) -> None:
        """`excused`: true for a key that may differ."""
        self._excused = excused
        self.counts: dict[str, int] = {}
        self.listed: list[GuiltyKey] = []

    def take(self, guilty: Iterable[GuiltyKey]) -> None:
        """Count the differences."""
        for one in guilty:
            if self._excused(one.key):
                continue
            kind = "missing" if one.found is None else "extra" if one.expected is None else "different"
            self.counts[kind] = self.counts.get(kind, 0) + 1
            if len(self.listed) < LISTED:
                self.listed.append(one)

    def result(self, why: str = "") -> Comparison:
        """Result of the count; `why` it ended early."""
        return Comparison(self.counts, self.listed, why)


class _Changed:
    """The keys that the log names from the cut on."""

    def __init__(self, where: CompareSource, order: FoldOrder) -> None:
        self._where, self._partition, self._reached = where, order.partition, order.cut
        self._keys: set[bytes] = set()

    def since_cut(self, key: bytes, position: int) -> bool:
        """True when a record of the key lies between the cut and the position."""
        if position > self._reached:
            for batch in read_range(self._where.bootstrap, self._where.table, self._partition, self._reached, position):
                self._keys.update(one for one in batch.column("key").to_pylist() if one is not None)
            self._reached = position
        return key in self._keys


class _Ends:
    """Ends of the rows that are compared at present: a node's clock may be further than the log time of the cut."""

    def __init__(self) -> None:
        self._newest: deque[tuple[bytes, bytes]] = deque(maxlen=_AT_HAND)

    def noting(self, expected: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        """The entries that are expected."""
        for pair in expected:
            self._newest.append(pair)
            yield pair

    def had_come(self, key: bytes, time_ms: int) -> bool:
        """True when the row, or a part of it, had ended by then."""
        return any(one == key and seen_at(raw, time_ms) is not raw for one, raw in self._newest)


class _Pages:
    """The rows of one partition as one node serves them. Pages are asked for again until the time is over."""

    def __init__(self, order: ServedOrder, table: Table) -> None:
        self._partition = order.fold.partition
        self._url, self._timeout_s = f"{order.url}/v1/tables/{table.name}/rows", order.timeout_s
        token = Position({(table.epoch, self._partition): order.fold.cut}).token
        self._headers = {
            "Accept": "application/msgpack", "LS-Forwarded": "1", "LS-Consistency": "session", "LS-Token": token,
            "LS-Deadline": str(ASK_MS),
        }  # fmt: skip
        self._http = httpx.Client(timeout=ASK_MS / 1_000 + 1, trust_env=False)
        self._cells = {"versions": str(MAX_VERSIONS)} if table.wide else {}  # every version that the rows have
        self.position = order.fold.cut  # of the newest page
        self.time_ms = 0  # the latest instant at which rows that may expire were seen

    def rows(self) -> Iterator[Cell]:
        """Rows of the partition, in key order; raises ServerUnreachable when a page does not come in time."""
        query = {"partitions": str(self._partition), "limit": str(PAGE_ROWS), **self._cells}
        cursor: str | None = ""
        while cursor is not None:
            page = self._page({**query, "cursor": cursor} if cursor else query)
            self.position = max(self.position, *page["positions"].values())
            self.time_ms = max(self.time_ms, Position.parse(page["token"]).time_ms)
            cursor = page["cursor"]
            for row in page["rows"]:
                yield _served(row["key"], row["version"], _value_of(row))

    def _page(self, query: dict[str, str]) -> dict[str, Any]:
        end = time.monotonic() + self._timeout_s
        while True:
            try:
                answer = self._http.get(self._url, params=query, headers=self._headers)
                if answer.status_code == 200:
                    page: dict[str, Any] = msgpack.unpackb(answer.content)
                    return page
                why = f"status {answer.status_code}: {answer.text[:300]}"
            except httpx.TransportError as error:
                why = str(error) or type(error).__name__
            if time.monotonic() + AGAIN_S > end:
                raise ServerUnreachable(f"{self._url} gave no page of partition {self._partition}: {why}")
            time.sleep(AGAIN_S)

    def __enter__(self) -> "_Pages":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()


def _entry(pair: tuple[bytes, bytes]) -> Cell:
    """Cell of a snapshot's entry: every byte counts."""
    entry = Entry.decode(pair[1])
    return pair[0], SeenValue(entry.version, len(entry.payload)), pair[1]


def _row(pair: tuple[bytes, bytes]) -> Cell:
    """Cell of a served row: the part that the read API shows. Requires: what has ended is not in its entry."""
    entry = Entry.decode(pair[1])
    if entry.kind == CELLS:
        return _served(pair[0], entry.version, _EVERY_CELL.of(PackedCells(entry.payload)).cells)
    value = side_by_side(entry, 0)[0] if entry.kind == SIBLINGS else entry.payload
    assert value is not None, "an entry of siblings holds one at least"
    return _served(pair[0], entry.version, value)


def _served(key: bytes, version: int, value: Value | Cells) -> Cell:
    cells = [one for one in value if isinstance(one, WideCell)] if isinstance(value, tuple) else []
    size = sum(len(one.value) for one in cells) if cells else size_bytes(value)
    return key, SeenValue(version, size), value


def _value_of(row: dict[str, Any]) -> Value | Cells:
    """The value of a row of a page, its siblings, or its cells."""
    if "cells" in row:
        return tuple(WideCell(*(one[name] for name in _CELL_FIELDS)) for one in row["cells"])
    if "siblings" in row:
        return tuple(Sibling(one["version"], one["value"]) for one in row["siblings"])
    value: bytes = row["value"]
    return value


def _served_cells(expected: Value | Cells, found: Value | Cells) -> tuple[GuiltyCell, ...]:
    """Cells in which two served rows differ, the first of them."""
    if isinstance(expected, bytes) or isinstance(found, bytes) or not isinstance(expected[0], WideCell):
        return ()
    one, other = _by_column(expected), _by_column(found)
    apart = [column for column in sorted({*one, *other}) if one.get(column) != other.get(column)]
    return tuple(
        GuiltyCell(column_name(column), *_first_apart(one.get(column, []), other.get(column, [])))
        for column in apart[:LISTED_CELLS]
    )


def _by_column(cells: Iterable[Any]) -> dict[Column, Versions]:
    found: dict[Column, Versions] = {}
    for family, qualifier, version, timestamp_ms, value in cells:
        found.setdefault((family, qualifier), []).append((version, value, timestamp_ms, None))
    return found
