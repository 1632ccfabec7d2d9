"""Segments: tasks that read a stretch of the log from Kafka and write it to Parquet, or read Parquet back.

A task streams: it holds a batch of some 16 MB, whatever the stretch. A file is written to a local folder and uploaded
whole, under a name of this very attempt, so a killed or repeated task disturbs nothing.
"""

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from batch import failpoints
from logstore.log.read.range_group import read_group
from logstore.log.read.ranges import SCHEMA, identity_at, read_range
from logstore.model.errors import Corrupted, LogTruncated
from logstore.model.table import Table
from logstore.snapshot.archive.index import ArchiveIndex
from logstore.snapshot.archive.segment import Segment
from logstore.snapshot.sst import checksum
from logstore.snapshot.storage import Storage
from logstore.snapshot.work import OffsetRange

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
            file = _written(Path(scratch, f"{start}.parquet"), batches)
            failpoints.crash("worker:2")
            segment = _segment(start, file, chunk, ArchiveIndex(storage, table.topic, table.epoch), job)
            storage.upload(file.path, segment.path)
            _check_size(segment, storage)
            file.path.unlink()
            found.append(segment)
            start = segment.end
    next(batches, None)  # nothing is left but to compare the topic's id once more
    return found


def extract_group(chunks: list[OffsetRange], bootstrap: str, table: Table, storage: Storage, job: str) -> list[Segment]:
    """Archive several stretches, each as `extract` does; together, where they are short ones of several partitions.

    Those have one consumer, and their files are synced together. Raises as `extract`.
    """
    if len(chunks) < 2 or len({chunk.partition for chunk in chunks}) < len(chunks):
        return [segment for chunk in chunks for segment in extract(chunk, bootstrap, table, storage, job)]
    with tempfile.TemporaryDirectory(prefix="logstore-archive-") as scratch:
        files = {chunk.partition: _SegmentFile(Path(scratch, f"{chunk.partition}.parquet")) for chunk in chunks}
        with ExitStack() as closing:
            for file in files.values():
                closing.enter_context(file)
            for batch in _short(chunks, bootstrap, table):
                files[batch.column("part")[0].as_py()].add(batch)
        failpoints.crash("worker:2")
        index = ArchiveIndex(storage, table.topic, table.epoch)
        made = [_segment(chunk.start, files[chunk.partition], chunk, index, job) for chunk in chunks]
        storage.upload_all([(files[segment.partition].path, segment.path) for segment in made])
        storage.looks(partial(_check_size, storage=storage), made)
    return made


def _short(chunks: list[OffsetRange], bootstrap: str, table: Table) -> Iterator[pa.RecordBatch]:
    """The batches of short chunks, after a look at the record before each of them."""
    awaited = {chunk.partition: chunk for chunk in chunks if chunk.after}
    ranges = {chunk.partition: (_before(chunk) if chunk.after else chunk.start, chunk.end) for chunk in chunks}
    for batch in read_group(bootstrap, table, ranges):
        chunk = awaited.pop(batch.column("part")[0].as_py(), None)
        inside = batch if chunk is None else _behind_first(chunk, batch, table)
        if inside.num_rows:
            yield inside
    for chunk in awaited.values():
        raise _lost_end(chunk, table)


def _segment(start: int, file: "_SegmentFile", chunk: OffsetRange, index: ArchiveIndex, job: str) -> Segment:
    """Facts of a file, under a name of this attempt."""
    end = min(file.reached, chunk.end) if file.is_full else chunk.end
    path = index.segment_path(chunk.partition, start, end, f"{job}{secrets.token_hex(4)}")
    return Segment(
        chunk.partition, start, end, path, file.records, file.path.stat().st_size, checksum(file.path), file.last,
        file.latest_ms,
    )  # fmt: skip


def _check_size(segment: Segment, storage: Storage) -> None:
    size = storage.size(segment.path)
    if size != segment.size_bytes:
        raise Corrupted(
            f"{segment.path} was uploaded with {segment.size_bytes:,} bytes and has {size:,} now; run the job again"
        )


def _behind(chunk: OffsetRange, bootstrap: str, table: Table) -> Iterator[pa.RecordBatch]:
    """The batches of a chunk, after a look at the record before them."""
    batches = read_range(bootstrap, table, chunk.partition, _before(chunk), chunk.end)
    first = next(batches, None)
    if first is None:
        raise _lost_end(chunk, table)
    inside = _behind_first(chunk, first, table)
    if inside.num_rows:
        yield inside
    yield from batches


def _before(chunk: OffsetRange) -> int:
    return int(chunk.after.partition("-")[0])


def _behind_first(chunk: OffsetRange, first: pa.RecordBatch, table: Table) -> pa.RecordBatch:
    """The rows of the first batch that are in the chunk. Raises LogTruncated where another record comes before them.

    A log that lost its end and grew again has another one there.
    """
    if identity_at(first, 0) != chunk.after:
        raise _lost_end(chunk, table)
    return first.slice(int(np.searchsorted(first.column("offset").to_numpy(), chunk.start)))


def _lost_end(chunk: OffsetRange, table: Table) -> LogTruncated:
    return LogTruncated(
        f"the record at offset {_before(chunk):,} of {table.name}/{chunk.partition} is not the one that was archived: "
        "the log lost its end "
        f"after that (an unclean leader election, a power cut?) and was written to again; "
        f"{way_out(table, chunk.partition)}"
    )


def way_out(table: Table, partition: int) -> str:
    """The way out for an archive that holds what the log lost."""
    return (
        f"`logstore batch restore` makes a table of what the archive holds; `logstore table repair {table.name} "
        f"--partition {partition} --accept-loss` and then `logstore batch archive {table.name} --repair` go on without"
    )


class _SegmentFile:
    """A segment's file as it is written."""

    def __init__(self, path: Path) -> None:
        self.path, self.reached, self.records, self.last, self.latest_ms = path, 0, 0, "", -1
        self._size_bytes = 0
        self._writer = parquet.ParquetWriter(
            path,
            SCHEMA,
            compression="zstd",
            compression_level=1,
            use_dictionary=["part"],
            write_statistics=["part", "offset"],
        )

    @property
    def is_full(self) -> bool:
        """True where what follows belongs into another file."""
        return self._size_bytes >= FILE_BYTES

    def add(self, batch: pa.RecordBatch) -> None:
        """Append a batch."""
        self._writer.write_batch(batch)  # a row group each: readers hold one at a time
        self.last = identity_at(batch, batch.num_rows - 1)
        self.latest_ms = max(self.latest_ms, pc.max(batch.column("timestamp")).as_py())
        self.reached = batch.column("offset")[-1].as_py() + 1
        self._size_bytes, self.records = self._size_bytes + batch.nbytes, self.records + batch.num_rows

    def __enter__(self) -> "_SegmentFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


def _written(path: Path, batches: Iterator[pa.RecordBatch]) -> _SegmentFile:
    """A file of the next batches, as many as it takes."""
    with _SegmentFile(path) as file:
        for batch in batches:
            file.add(batch)
            if file.is_full:
                break
    return file
