"""Read tasks of `spark.read.format("logstore")`: rows of snapshots, rows as of a position, changes. No Spark in here.

Everything streams: a task holds a batch of the log, the fold's buffer (`fold.BUFFER_BYTES`, what is more lies on disk)
and the batch it gives away (`row_shape.BATCH_ROWS` rows, or BATCH_BYTES bytes and one row).
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from batch.datasource.key_filter import Keys
from batch.datasource.row_shape import BATCH_ROWS, ROWS, TIME, RowShape
from batch.tasks.conditional_fold import ConditionalFold, FoldStart
from batch.tasks.fold import BUFFER_BYTES, Fold, Shape, is_plain, over, without_skipped
from batch.tasks.sst_files import SstTarget, decisions_here, levels_opened, linked, readable
from logstore.log.read.ranges import HEADERS, read_range
from logstore.model.errors import Unsupported
from logstore.model.folding.difference import Item, ended
from logstore.model.folding.fold import FoldRules
from logstore.model.folding.mutation import Control, Delete, Quarantined, Refused, parse
from logstore.model.safe_path import below as path_below
from logstore.model.table import Table
from logstore.snapshot.archive.segment_file import read_segment
from logstore.snapshot.manifest import FileFacts
from logstore.snapshot.storage import Storage
from logstore.snapshot.work import FileOrder, LogStretch, StateOrder

CHANGES = pa.schema([*ROWS, ("headers", HEADERS)])

PLAIN = RowShape()
Saw = Callable[[int], None]  # so many rows or records were looked at


class TableSource(NamedTuple):
    """Locations of a table's log and snapshots."""

    bootstrap: str
    table: Table
    storage: Storage

    @property
    def target(self) -> SstTarget:
        """Target of SSTables: the repository's folder."""
        return SstTarget(self.storage, f"{self.table.topic}/{self.table.epoch}/snapshots", "")


def snapshot_rows(
    where: TableSource, order: FileOrder, keys: Keys, saw: Saw, shape: RowShape = PLAIN
) -> Iterator[pa.RecordBatch]:
    """The wanted rows of SSTables. Raises Corrupted, StorageUnreachable."""
    with tempfile.TemporaryDirectory(prefix="logstore-read-") as scratch:
        yield from shape.batches(order.partition, _base(where, order.files, keys, Path(scratch), saw))


def rows_as_of(
    where: TableSource, order: StateOrder, keys: Keys, saw: Saw, shape: RowShape = PLAIN
) -> Iterator[pa.RecordBatch]:
    """The wanted rows of SSTables after the stretch that follows them.

    Raises also what `logstore.log.read.ranges.read_range` does, and Unsupported.
    """
    with state_as_of(where, order, keys, saw) as (_, entries):
        yield from shape.batches(order.stretch.partition, entries)


@contextmanager
def state_as_of(
    where: TableSource, order: StateOrder, keys: Keys, saw: Saw, buffer_bytes: int = BUFFER_BYTES
) -> Iterator[tuple[Fold | ConditionalFold, Iterator[tuple[bytes, bytes]]]]:
    """The fold of the stretch, and the wanted entries after it in key order. Raises as `rows_as_of`."""
    with tempfile.TemporaryDirectory(prefix="logstore-read-") as scratch, ExitStack() as opened:
        folding = _conditional if where.table.conditional else _plain
        fold = folding(where, order, keys, saw, Path(scratch), opened, buffer_bytes)
        tail: Iterator[Item] = (item for item in fold.items() if keys.holds(item[0]))
        base = _base(where, order.base_files, keys, Path(scratch), saw)
        if where.table.expiring:
            base, tail = ended(base, fold.log_time_ms), ended(tail, fold.log_time_ms)
        yield fold, over(base, tail)


def _plain(
    where: TableSource, order: StateOrder, keys: Keys, saw: Saw, scratch: Path, _opened: ExitStack, buffer_bytes: int
) -> Fold:
    """The fold of the stretch's mutations of wanted keys."""
    table, partition = where.table, order.stretch.partition
    shape = Shape(table.name, FoldRules.of(table, partition), table.skips.get(partition, []))
    fold = Fold(shape, scratch, buffer_bytes=buffer_bytes)
    for batch in _records(where, order.stretch):
        saw(batch.num_rows)
        fold.take(_of_interest(batch, keys, table.max_value_bytes))
    return fold


def _conditional(
    where: TableSource, order: StateOrder, _keys: Keys, saw: Saw, scratch: Path, opened: ExitStack, _buffer_bytes: int
) -> ConditionalFold:
    """The fold of the whole stretch: how long an id lasts depends on all that was decided, of whatever key."""
    below = path_below(scratch, "below")
    below.mkdir()
    rows = opened.enter_context(levels_opened(linked(where.target, order.base_files, below)))
    start = FoldStart(order.base.facts, decisions_here(where.target, order.base.decisions, scratch), rows)
    fold = ConditionalFold(where.table, order.stretch.partition, start, scratch)
    opened.callback(fold.close)
    for batch in _records(where, order.stretch):
        saw(batch.num_rows)
        fold.take(batch)
    return fold


def changes(where: TableSource, stretch: LogStretch, keys: Keys, saw: Saw) -> Iterator[pa.RecordBatch]:
    """The puts and deletes of a stretch, in order.

    Without control records and what the fold quarantines. Raises as `rows_as_of`.
    """
    for batch in _records(where, stretch):
        saw(batch.num_rows)
        mutations = _mutations(where.table, stretch.partition, _of_interest(batch, keys, where.table.max_value_bytes))
        if not keys.all:
            mutations = mutations.filter(keys.mask(mutations.column("key")))
        yield from _bounded(mutations)


def _base(
    where: TableSource, files: list[FileFacts], keys: Keys, scratch: Path, saw: Saw
) -> Iterator[tuple[bytes, bytes]]:
    wanted = [file for file in files if keys.meets(file.first_key, file.last_key)]
    with readable(where.target, wanted, scratch) as reader:
        for pair in keys.scan(reader) if reader is not None else ():
            saw(1)
            yield pair


def _records(where: TableSource, stretch: LogStretch) -> Iterator[pa.RecordBatch]:
    skips = where.table.skips.get(stretch.partition, [])
    for segment in stretch.segments:
        for batch in read_segment(segment, where.storage, skips):
            offsets = batch.column("offset").to_numpy()
            inside = (offsets >= stretch.start) & (offsets < min(stretch.end, stretch.log_start))
            if inside.any():
                yield batch if inside.all() else batch.filter(pa.array(inside))
    yield from read_range(where.bootstrap, where.table, stretch.partition, stretch.log_start, stretch.end)


def _of_interest(batch: pa.RecordBatch, keys: Keys, max_value_bytes: int) -> pa.RecordBatch:
    """Drop plain records of other keys; records that only `parse` understands stay, for they may concern any."""
    if keys.all:
        return batch
    return batch.filter(pc.or_(keys.mask(batch.column("key")), pc.invert(is_plain(batch, max_value_bytes))))


def _mutations(table: Table, partition: int, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The records that change a row, key and value as the fold sees them.

    Offsets that a repair gave up are not among them.
    """
    batch = without_skipped(batch, table.skips.get(partition, ()))
    keep = is_plain(batch, table.max_value_bytes)
    odd = [
        row
        for row in (_parsed(table, partition, record) for record in batch.filter(pc.invert(keep)).to_pylist())
        if row is not None
    ]
    plain = _as_changes(batch.filter(keep))
    if plain.num_rows:
        right = FoldRules.of(table, partition).are_here(plain.column("key").to_pylist())
        plain = plain if right.all() else plain.filter(pa.array(right))
    if not odd:
        return plain
    more = pa.RecordBatch.from_pylist(odd, CHANGES)
    return pa.Table.from_batches([plain, more]).sort_by("version").combine_chunks().to_batches()[0]


def _as_changes(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = {**dict(zip(batch.schema.names, batch.columns, strict=True)), "version": batch.column("offset")}
    columns |= {"partition": batch.column("part"), "timestamp": _time(batch.column("timestamp"))}
    return pa.RecordBatch.from_arrays([columns[name] for name in CHANGES.names], schema=CHANGES)


def _parsed(table: Table, partition: int, record: dict[str, Any]) -> dict[str, Any] | None:
    """A record by the definition; None when it changes nothing. Raises Unsupported."""
    headers = [(header["key"], header["value"]) for header in record["headers"] or ()]
    mutation = parse(
        record["key"], record["value"], headers, max_value_bytes=table.max_value_bytes,
        right_partition=FoldRules.of(table, partition).is_here,
    )  # fmt: skip
    if isinstance(mutation, Refused):
        raise Unsupported(
            f"the record at offset {record['offset']:,} of {table.name}/{partition} cannot be read: {mutation.why}; "
            "upgrade logstore"
        )
    if isinstance(mutation, (Quarantined, Control)):
        return None
    value = None if isinstance(mutation, Delete) else mutation.value
    return {
        "key": mutation.key, "value": value, "version": record["offset"], "timestamp": record["timestamp"] * 1_000,
        "partition": partition, "headers": record["headers"],
    }  # fmt: skip


def _bounded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in pieces of at most BATCH_ROWS rows. Requires: it has some BATCH_BYTES, as those of the log have."""
    for start in range(0, batch.num_rows, BATCH_ROWS):
        yield batch.slice(start, BATCH_ROWS)


def _time(milliseconds: pa.Array) -> pa.Array:
    return pc.multiply(milliseconds, 1_000).cast(TIME)
