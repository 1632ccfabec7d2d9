"""Key records of a segment: those of one key, found in the column of keys; other columns are read where it occurs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from logstore.model.history.logged import LoggedRecord
from logstore.snapshot.archive.segment import Segment
from logstore.snapshot.archive.segment_file import local_copy
from logstore.snapshot.storage import Storage

_COLUMNS = ["offset", "timestamp", "value", "headers"]


def records_of_key(
    segment: Segment,
    storage: Storage,
    key: bytes,
    *,
    newest_first: bool = False,
    scanned: Callable[[int], None] = lambda _: None,
) -> Iterator[LoggedRecord]:
    """Records of a key in a segment, in the order of the log or against it.

    A row group is held at a time; `scanned` hears of the records that were looked through. Raises Corrupted when the
    file is not, byte for byte, what the manifest says, StorageUnreachable.
    """
    with local_copy(segment, storage) as path:
        yield from _found(path, key, scanned, newest_first=newest_first)


def _found(path: Path, key: bytes, scanned: Callable[[int], None], *, newest_first: bool) -> Iterator[LoggedRecord]:
    wanted = pa.scalar(key, pa.binary())
    with parquet.ParquetFile(path) as file:
        groups = range(file.num_row_groups)
        for group in reversed(groups) if newest_first else groups:
            keys = file.read_row_group(group, columns=["key"], use_threads=False).column("key")
            hits = pc.equal(keys, wanted)
            if pc.any(hits).as_py():
                rows = file.read_row_group(group, columns=_COLUMNS, use_threads=False).filter(hits)
                yield from _records(rows.take(pa.array(range(len(rows) - 1, -1, -1))) if newest_first else rows)
            scanned(len(keys))


def _records(rows: pa.Table) -> Iterator[LoggedRecord]:
    for batch in rows.to_batches(max_chunksize=1_024):
        columns = (batch.column(name).to_pylist() for name in _COLUMNS)
        for offset, timestamp_ms, value, headers in zip(*columns, strict=True):
            pairs = tuple((header["key"], header["value"]) for header in headers or ())
            yield LoggedRecord(offset, timestamp_ms, value, pairs)
