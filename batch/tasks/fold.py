"""Fold: the newest mutation of every key of one partition, out of Arrow batches in the order of the log.

No Spark, no Kafka in here.

    batches -> plain rows by column, the others through `model.mutation.parse` -> buffer
            -> one row a key, sorted -> runs on disk

What the log means is `logstore.model`'s to say. As long as every mutation that this build folds is a put or a delete, a
row's entry is that of its last mutation (`model.fold.fold_row` ignores the entry before), so history can be thrown away
early: in each full buffer only the last mutation of every key stays. `tests/test_batch_fold.py` holds the result equal
to `model.fold.fold_batch`.

Memory is bounded by BUFFER_BYTES (and one record), whatever the partition holds: what does not fit lies in sorted runs
on disk.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from logstore.log.read.ranges import identity_at
from logstore.model.errors import Unsupported
from logstore.model.folding import entry as entries
from logstore.model.folding.difference import EVERY_KEY, KeyRange
from logstore.model.folding.digest import TOMBSTONES
from logstore.model.folding.fold import FoldRules
from logstore.model.folding.mutation import RESERVED, WRONG_PARTITION, Control, Delete, Quarantined, Refused, parse
from logstore.model.folding.sorted_merge import overlay
from logstore.model.key import MAX_KEY_BYTES
from logstore.model.skips import Skips, remaining

BUFFER_BYTES = 32 << 20
LISTED = 1_000  # quarantined records of a partition that are listed, the newest
MERGED_RUNS = 8  # so many runs of a level become one of the next
_PIECE_BYTES, _PIECE_ROWS = 1 << 20, 4_096  # of a run, held as Python objects while runs are merged

ROWS = pa.schema([("key", pa.binary()), ("offset", pa.int64()), ("timestamp", pa.int64()), ("value", pa.binary())])

Row = tuple[bytes, int, int, bytes | None]  # key, offset, timestamp, value; None: deleted
Item = tuple[bytes, bytes]  # key, entry; a tombstone where the row was deleted


class QuarantineTally:
    """Counts by reason, and the newest records."""

    def __init__(self, counts: dict[str, int] | None = None, records: Iterable[tuple[int, str]] = ()) -> None:
        """`counts` and `records`: what was known before."""
        self.counts = dict(counts or {})
        self._newest = [(offset, reason) for offset, reason in records]
        heapq.heapify(self._newest)

    def add(self, offset: int, reason: str) -> None:
        """Add a record to the tally."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        if len(self._newest) < LISTED:
            heapq.heappush(self._newest, (offset, reason))
        else:
            heapq.heappushpop(self._newest, (offset, reason))

    def join(self, other: "QuarantineTally") -> None:
        """Add what another tally has counted of other records."""
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
        self._newest = sorted([*self._newest, *other._newest])[-LISTED:]

    @property
    def records(self) -> list[tuple[int, str]]:
        """The newest ones, in order."""
        return sorted(self._newest)


class Shape(NamedTuple):
    """Shape of a fold: one partition of one table. `skips`: offsets a repair gave up, both ends included.

    `keys`: the mutations of these alone. Folds of all ranges are the partition's fold together: what is quarantined as
    it is parsed is counted in the first one.
    """

    table: str
    place: FoldRules
    skips: Skips = ()
    keys: KeyRange = EVERY_KEY


class Fold:
    """The fold of one partition: batches in the order of the log in, the newest mutation of every key out, by key."""

    revision = 0  # of the rules: those of a plain table never change

    def __init__(
        self,
        shape: Shape,
        directory: Path,
        *,
        log_time_ms: int = 0,
        quarantine: QuarantineTally | None = None,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        """`directory` takes the runs; `log_time_ms` and `quarantine` are those of the snapshot that is continued."""
        self.shape, self.log_time_ms = shape, max(log_time_ms, 0)
        self.quarantine = quarantine or QuarantineTally()
        self.mutations = 0  # records that change a row
        self.last = ""  # identity of the newest record that was handed over
        self._runs, self._buffer_bytes = Runs(directory), buffer_bytes
        self._fresh: list[pa.Table] = []  # as they came: the keys' partition is not checked yet
        self._newest: pa.Table | None = None  # of what came before them: one row a key
        self._held_bytes = 0

    def take(self, batch: pa.RecordBatch) -> None:
        """Fold a batch (the columns of `log.ranges.SCHEMA`).

        Raises Unsupported for a record that only a later build can fold.
        """
        if batch.num_rows:
            self.last = identity_at(batch, batch.num_rows - 1)
        batch = without_skipped(batch, self.shape.skips)
        if not batch.num_rows:
            return
        self.log_time_ms = max(self.log_time_ms, int(batch.column("timestamp").to_numpy().max()))
        rows = self._mutations(batch)
        if rows.num_rows:
            self._fresh.append(rows)
            self._held_bytes += rows.nbytes
        if self._held_bytes > self._buffer_bytes:
            self._collapse()
            if self._newest is not None and self._held_bytes > self._buffer_bytes // 2:
                self._runs.add(self._newest)
                self._newest, self._held_bytes = None, 0

    def items(self) -> Iterator[Item]:
        """Rows in key order as (key, entry), deleted ones as tombstones. Requires: every batch was taken."""
        self._collapse()
        newest = [] if self._newest is None else [_rows(self._newest.to_batches(max_chunksize=_PIECE_ROWS))]
        for key, offset, timestamp, value in _merged([*self._runs.readers(), *newest]):
            yield key, _entry(offset, timestamp, value)

    def finish(self) -> None:
        """Check what is left to check, so that `mutations` and `quarantine` are complete."""
        self._collapse()

    def _mutations(self, batch: pa.RecordBatch) -> pa.Table:
        """The rows of a batch that change something, in order; key and value as the fold sees them."""
        plain, keys = is_plain(batch, self.shape.place.max_value_bytes), self.shape.keys
        rows = pa.Table.from_batches([batch.select(ROWS.names)], ROWS)
        if pc.all(plain).as_py():
            return within(rows, keys)
        parsed = [row for row in map(self._parsed, batch.filter(pc.invert(plain)).to_pylist()) if row is not None]
        odd = [row for row in parsed if keys.holds(row[0])]
        rows = within(rows.filter(plain), keys)
        if not odd:
            return rows
        columns = [pa.array(column, kind.type) for column, kind in zip(zip(*odd, strict=True), ROWS, strict=True)]
        return pa.concat_tables([rows, pa.table(columns, schema=ROWS)]).sort_by("offset")

    def _parsed(self, record: dict[str, Any]) -> Row | None:
        """Parse a record by the definition; None when it changes no row."""
        place, offset, timestamp = self.shape.place, record["offset"], record["timestamp"]
        headers = [(header["key"], header["value"]) for header in record["headers"] or ()]
        mutation = parse(
            record["key"], record["value"], headers, max_value_bytes=place.max_value_bytes,
            right_partition=place.is_here,
        )  # fmt: skip
        if isinstance(mutation, Refused):
            raise Unsupported(mutation.advice(self.shape.table, place.partition, offset))
        if isinstance(mutation, Quarantined) and not self.shape.keys.start:
            self.quarantine.add(offset, mutation.reason)
        if isinstance(mutation, (Quarantined, Control)):
            return None
        return mutation.key, offset, timestamp, None if isinstance(mutation, Delete) else mutation.value

    def _collapse(self) -> None:
        """Keep the last mutation of every key. Keys are looked at once, when they are new."""
        if not self._fresh:
            return
        fresh = self._right(_Keyed(pa.concat_tables(self._fresh).combine_chunks()))
        self._fresh = []
        if self._newest is not None and fresh is not None:
            fresh = _Keyed(pa.concat_tables([self._newest, fresh.newest()]).combine_chunks())
        if fresh is not None:
            self._newest = fresh.newest()
        self._held_bytes = 0 if self._newest is None else self._newest.nbytes

    def _right(self, keyed: "_Keyed") -> "_Keyed | None":
        """Quarantine the records whose key belongs to another partition, and give back the others."""
        place = self.shape.place
        keys = keyed.keys.to_pylist()
        wrong = ~place.are_here(keys)
        rows = keyed.rows
        if wrong.any():
            bad = wrong[keyed.codes]
            for offset in rows.column("offset").to_numpy()[bad].tolist():
                self.quarantine.add(offset, WRONG_PARTITION)
            rows = rows.filter(pa.array(~bad))
            keyed = _Keyed(rows.combine_chunks())
        self.mutations += rows.num_rows
        return keyed if rows.num_rows else None


class _Keyed:
    """Rows in order, with the distinct keys among them."""

    def __init__(self, rows: pa.Table) -> None:
        keys = rows.column("key").combine_chunks()
        encoded = keys.dictionary_encode()
        self.rows, self.keys = rows, encoded.dictionary
        self.codes = encoded.indices.to_numpy(zero_copy_only=False)

    def newest(self) -> pa.Table:
        """The last row of every key, in key order."""
        last = np.empty(len(self.keys), np.int64)
        places = np.arange(len(self.codes))
        last[self.codes] = places  # of equal indices numpy keeps the last
        order = pc.array_sort_indices(self.keys)
        return self.rows.take(pa.array(last).take(order))


class Runs:
    """Sorted runs on disk, one row a key each. Many of them are merged by levels, so each row moves log(n) times."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._made = directory, 0
        self._levels: list[list[Path]] = []  # level 0: the newest

    def add(self, rows: pa.Table) -> None:
        """Add a run, newer than all others."""
        self._put(0, self._write(_pieces(rows)))

    def readers(self) -> list[Iterator[Row]]:
        """Readers of the runs, oldest first."""
        return [_rows(_read(path)) for level in reversed(self._levels) for path in level]

    def _put(self, level: int, path: Path) -> None:
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(path)
        if len(self._levels[level]) >= MERGED_RUNS:
            merging, self._levels[level] = self._levels[level], []
            merged = self._write(_batched(_merged([_rows(_read(run)) for run in merging])))
            for run in merging:
                run.unlink()
            self._put(level + 1, merged)

    def _write(self, batches: Iterable[pa.RecordBatch]) -> Path:
        path = self._directory / f"run-{self._made:06d}.arrow"
        self._made += 1
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, ROWS) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return path


def over(base: Iterable[Item], tail: Iterable[Item]) -> Iterator[Item]:
    """The entries of a snapshot after the tail. Requires: both in key order. Deleted rows vanish."""
    for pair in overlay(tail, base):
        if pair[1][0] not in TOMBSTONES:
            yield pair


def within(rows: pa.Table, keys: KeyRange) -> pa.Table:
    """The rows of a range of keys. Requires: each has a key."""
    if keys.start:
        rows = rows.filter(pc.greater_equal(rows.column("key"), pa.scalar(keys.start, pa.binary())))
    return rows if keys.end is None else rows.filter(pc.less(rows.column("key"), pa.scalar(keys.end, pa.binary())))


def without_skipped(batch: pa.RecordBatch, skips: Skips) -> pa.RecordBatch:
    """The records of a batch that no repair gave up. Requires: offsets rise."""
    left = remaining(batch.column("offset").to_numpy(), skips)
    return batch if left is None else batch.take(pa.array(left, pa.int64()))


def is_plain(batch: pa.RecordBatch, max_value_bytes: int) -> pa.Array:
    """True where a record has no reserved header, and a key and a value of allowed length.

    The key's partition is looked at later.
    """
    key_bytes, value_bytes = _lengths(batch.column("key")), _lengths(batch.column("value"))
    fine = (key_bytes > 0) & (key_bytes <= MAX_KEY_BYTES) & (value_bytes <= max_value_bytes)
    headers = batch.column("headers")
    if headers.null_count < len(headers):
        reserved = pc.starts_with(pc.struct_field(pc.list_flatten(headers), "key"), RESERVED)
        fine[pc.list_parent_indices(headers).filter(reserved).to_numpy(zero_copy_only=False)] = False
    return pa.array(fine)


def _lengths(column: pa.Array) -> np.ndarray[Any, Any]:
    """Bytes of each value, 0 of a null: for few rows NumPy compares them in a fraction of the time that Arrow takes."""
    lengths = pc.binary_length(column)
    numbers: np.ndarray[Any, Any] = (pc.fill_null(lengths, 0) if lengths.null_count else lengths).to_numpy()
    return numbers


def _entry(offset: int, timestamp: int, value: bytes | None) -> bytes:
    # through its module: a bound method of a Struct cannot be pickled
    kind = entries.TOMBSTONE if value is None else entries.VALUE
    return entries.encode_head(kind, offset, max(timestamp, 0)) + (value or b"")


def _merged(runs: Sequence[Iterator[Row]]) -> Iterator[Row]:
    """The newest row of every key, in key order. Requires: runs are sorted, oldest run first."""
    if len(runs) == 1:
        yield from runs[0]
        return
    last: bytes | None = None
    for row in heapq.merge(*runs, key=lambda row: (row[0], -row[1])):
        if row[0] != last:
            last = row[0]
            yield row


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[Row]:
    for batch in batches:
        yield from zip(*(batch.column(name).to_pylist() for name in ROWS.names), strict=True)


def _read(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def _pieces(rows: pa.Table) -> list[pa.RecordBatch]:
    """Batches small enough to be held as objects, one of every run."""
    share = max(1, rows.num_rows * _PIECE_BYTES // max(rows.nbytes, 1))
    return list(rows.to_batches(max_chunksize=min(share, _PIECE_ROWS)))


def _batched(rows: Iterable[Row]) -> Iterator[pa.RecordBatch]:
    held: list[Row] = []
    size = 0
    for row in rows:
        held.append(row)
        size += len(row[0]) + len(row[3] or b"")
        if len(held) >= _PIECE_ROWS or size >= _PIECE_BYTES:
            yield _batch(held)
            held, size = [], 0
    if held:
        yield _batch(held)


def _batch(rows: list[Row]) -> pa.RecordBatch:
    columns = [pa.array(column, kind.type) for column, kind in zip(zip(*rows, strict=True), ROWS, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=ROWS)
