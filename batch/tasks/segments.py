"""Segments: tasks that read a stretch of the log from Kafka and write it to Parquet, or read Parquet back.

A task streams: it holds a batch of some 16 MB, whatever the stretch. A file is written to a local folder and uploaded
whole, under a name of this very attempt, so a killed or repeated task disturbs nothing.
"""

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from batch import failpoints
from logstore.log.read.ranges import SCHEMA, identity_at, read_range
from logstore.model.errors import Corrupted, LogTruncated
from logstore.model.skips import first_missing
from logstore.model.table import Table
from logstore.snapshot.archive.index import ArchiveIndex
from logstore.snapshot.archive.segment import Segment
from logstore.snapshot.sst import checksum
from logstore.snapshot.storage import Storage
from logstore.snapshot.work import OffsetRange

_AGAIN = "snapshots stand on what was folded before, but `batch rebuild` and `batch restore` need it"
FILE_BYTES = 256 << 20  # a segment is closed when its records have so many bytes


def extract(chunk: OffsetRange, bootstrap: str, table: Table, storage: Storage, job: str) -> list[Segment]:
    """Archive one stretch; returns its segments, none of which counts before a manifest names it.

    Raises as `read_range`, and LogTruncated when the log does not have the record `after` which the stretch follows.
    """
    partition, start, end, after = chunk
    batches = _behind(chunk, bootstrap, table) if after else read_range(bootstrap, table, partition, start, end)
    found: list[Segment] = []
    with tempfile.TemporaryDirectory(prefix="logstore-archive-") as scratch:
        while start < end:
            local = Path(scratch, f"{start}.parquet")
            written = _write(local, batches, end)
            failpoints.crash("worker:2")
            index = ArchiveIndex(storage, table.topic, table.epoch)
            path = index.segment_path(partition, start, written.reached, f"{job}{secrets.token_hex(4)}")
            segment = Segment(
                partition, start, written.reached, path, written.records, local.stat().st_size, checksum(local),
                written.last, written.latest_ms,
            )  # fmt: skip
            _upload(local, segment, storage)
            local.unlink()
            found.append(segment)
            start = written.reached
    next(batches, None)  # nothing is left but to compare the topic's id once more
    return found


def _upload(local: Path, segment: Segment, storage: Storage) -> None:
    storage.upload(local, segment.path)
    size = storage.size(segment.path)
    if size != segment.size_bytes:
        raise Corrupted(
            f"{segment.path} was uploaded with {segment.size_bytes:,} bytes and has {size:,} now; run the job again"
        )


def _behind(chunk: OffsetRange, bootstrap: str, table: Table) -> Iterator[pa.RecordBatch]:
    """The batches of a chunk, after a look at the record before them.

    A log that lost its end and grew again has another one there.
    """
    before = int(chunk.after.partition("-")[0])
    batches = read_range(bootstrap, table, chunk.partition, before, chunk.end)
    first = next(batches, None)
    if first is None or identity_at(first, 0) != chunk.after:
        raise LogTruncated(
            f"the record at offset {before:,} of {table.name}/{chunk.partition} is not the one that was archived: the "
            "log lost its end "
            f"after that (an unclean leader election, a power cut?) and was written to again; "
            f"{way_out(table, chunk.partition)}"
        )
    inside = int(np.searchsorted(first.column("offset").to_numpy(), chunk.start))
    if inside < first.num_rows:
        yield first.slice(inside)
    yield from batches


def way_out(table: Table, partition: int) -> str:
    """The way out for an archive that holds what the log lost."""
    return (
        f"`logstore batch restore` makes a table of what the archive holds; `logstore table repair {table.name} "
        f"--partition {partition} --accept-loss` and then `logstore batch archive {table.name} --repair` go on without"
    )


class _Written(NamedTuple):
    """Facts of a written file: the offset it reaches, and as in `Segment`."""

    reached: int
    records: int
    last: str
    latest_ms: int


def _write(path: Path, batches: Iterator[pa.RecordBatch], end: int) -> _Written:
    """Fill one file."""
    size = records = 0
    last, latest_ms = "", -1
    with parquet.ParquetWriter(
        path,
        SCHEMA,
        compression="zstd",
        compression_level=1,
        use_dictionary=["part"],
        write_statistics=["part", "offset"],
    ) as writer:
        for batch in batches:
            writer.write_batch(batch)  # a row group each: readers hold one at a time
            last = identity_at(batch, batch.num_rows - 1)
            latest_ms = max(latest_ms, pc.max(batch.column("timestamp")).as_py())
            size, records = size + batch.nbytes, records + batch.num_rows
            if size >= FILE_BYTES:
                reached = batch.column("offset")[-1].as_py() + 1
                return _Written(min(reached, end), records, last, latest_ms)
    return _Written(end, records, last, latest_ms)


def read_segment(segment: Segment, storage: Storage, skips: list[tuple[int, int]]) -> Iterator[pa.RecordBatch]:
    """The records of a segment, in order.

    Raises Corrupted when the file is not, byte for byte, what the manifest says.
    """
    with local_copy(segment, storage) as path:
        yield from _checked(segment, path, skips)


@contextmanager
def local_copy(segment: Segment, storage: Storage) -> Iterator[Path]:
    """The segment's file, on this machine. Raises Corrupted when it is not, byte for byte, what the manifest says."""
    with tempfile.TemporaryDirectory(prefix="logstore-segment-") as scratch:
        path = storage.local(segment.path)
        if path is None:
            path = Path(scratch, "segment.parquet")
            storage.download(segment.path, path)
        _check_file(segment, path)
        yield path


def verify_segment(segment: Segment, storage: Storage, skips: dict[int, list[tuple[int, int]]]) -> int:
    """Read a segment back; returns its bytes. `skips`: by partition. Raises Corrupted."""
    for _ in read_segment(segment, storage, skips.get(segment.partition, [])):
        pass
    return segment.size_bytes


def _check_file(segment: Segment, path: Path) -> None:
    if not path.exists():
        raise Corrupted(
            f"{segment.path} is gone from the archive; bring it back from a backup of the storage: {_AGAIN}"
        )
    size = path.stat().st_size
    if size != segment.size_bytes or checksum(path) != segment.checksum:
        raise Corrupted(
            f"{segment.path} is damaged: {size:,} bytes of {segment.size_bytes:,}, or another checksum; partition "
            f"{segment.partition}, "
            f"offsets {segment.start:,} to {segment.end - 1:,}; bring it back from a backup of the storage: {_AGAIN}"
        )


def _checked(segment: Segment, path: Path, skips: list[tuple[int, int]]) -> Iterator[pa.RecordBatch]:
    """Offsets follow each other but for `skips`, and all are there."""
    following, records = segment.start, 0
    with parquet.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            for batch in file.read_row_group(group, use_threads=False).to_batches():
                offsets = batch.column("offset")
                _follow(segment, following, offsets, skips)
                following, records = offsets[-1].as_py() + 1, records + batch.num_rows
                yield batch
    _none_missing(segment, range(following, segment.end), skips)
    if records != segment.records:
        raise Corrupted(f"{segment.path} holds {records:,} records, its manifest says {segment.records:,}")


def _follow(segment: Segment, following: int, offsets: pa.Array, skips: list[tuple[int, int]]) -> None:
    first, last = offsets[0].as_py(), offsets[-1].as_py()
    if (
        first == following
        and last - first == len(offsets) - 1
        and pc.min(pc.pairwise_diff(offsets)).as_py() in (1, None)
    ):
        return
    for offset in offsets.to_pylist():
        if offset < following:
            raise Corrupted(f"{segment.path} holds offset {offset:,} out of order")
        _none_missing(segment, range(following, offset), skips)
        following = offset + 1


def _none_missing(segment: Segment, offsets: range, skips: list[tuple[int, int]]) -> None:
    missing = first_missing(offsets, skips)
    if missing is not None:
        raise Corrupted(f"{segment.path} lacks offset {missing:,}")
