"""Segment file: the records of a segment read back, and whether they are what was archived."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from xxhash import xxh3_128_hexdigest

from logstore.model.errors import Corrupted
from logstore.model.skips import first_missing
from logstore.snapshot.archive.segment import Segment
from logstore.snapshot.sst import checksum
from logstore.snapshot.storage import Storage

_AT_ONCE = 4 << 20  # bytes of a file that is read once, and held, to be checked and parsed
_AGAIN = "snapshots stand on what was folded before, but `batch rebuild` and `batch restore` need it"


def read_segment(segment: Segment, storage: Storage, skips: list[tuple[int, int]]) -> Iterator[pa.RecordBatch]:
    """The records of a segment, in order.

    Raises Corrupted when the file is not, byte for byte, what the manifest says.
    """
    if segment.size_bytes <= _AT_ONCE:
        yield from _checked(segment, pa.BufferReader(_content(segment, storage)), skips)
        return
    with local_copy(segment, storage) as path:
        yield from _checked(segment, path, skips)


@contextmanager
def local_copy(segment: Segment, storage: Storage) -> Iterator[Path]:
    """The segment's file, on this machine. Raises Corrupted when it is not, byte for byte, what the manifest says."""
    near = storage.local(segment.path)
    if near is not None:
        _check_file(segment, near)
        yield near
        return
    with tempfile.TemporaryDirectory(prefix="logstore-segment-") as scratch:
        path = Path(scratch, "segment.parquet")
        storage.download(segment.path, path)
        _check_file(segment, path)
        yield path


def verify_segment(segment: Segment, storage: Storage, skips: dict[int, list[tuple[int, int]]]) -> int:
    """Read a segment back; returns its bytes. `skips`: by partition. Raises Corrupted."""
    for _ in read_segment(segment, storage, skips.get(segment.partition, [])):
        pass
    return segment.size_bytes


def _content(segment: Segment, storage: Storage) -> bytes:
    """The bytes of a small file, read once to be checked and parsed. Raises Corrupted."""
    near = storage.local(segment.path)
    try:
        content = storage.read(segment.path) if near is None else near.read_bytes()
    except FileNotFoundError as error:
        raise _gone(segment) from error
    if len(content) != segment.size_bytes or xxh3_128_hexdigest(content) != segment.checksum:
        raise _damaged(segment, len(content))
    return content


def _check_file(segment: Segment, path: Path) -> None:
    if not path.exists():
        raise _gone(segment)
    size = path.stat().st_size
    if size != segment.size_bytes or checksum(path) != segment.checksum:
        raise _damaged(segment, size)


def _gone(segment: Segment) -> Corrupted:
    return Corrupted(f"{segment.path} is gone from the archive; bring it back from a backup of the storage: {_AGAIN}")


def _damaged(segment: Segment, size: int) -> Corrupted:
    return Corrupted(
        f"{segment.path} is damaged: {size:,} bytes of {segment.size_bytes:,}, or another checksum; partition "
        f"{segment.partition}, "
        f"offsets {segment.start:,} to {segment.end - 1:,}; bring it back from a backup of the storage: {_AGAIN}"
    )


def _checked(
    segment: Segment, source: Path | pa.BufferReader, skips: list[tuple[int, int]]
) -> Iterator[pa.RecordBatch]:
    """Offsets follow each other but for `skips`, and all are there."""
    following, records = segment.start, 0
    with parquet.ParquetFile(source) as file:
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
    numbers = offsets.to_numpy()
    if numbers[0] == following and (np.diff(numbers) == 1).all():
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
