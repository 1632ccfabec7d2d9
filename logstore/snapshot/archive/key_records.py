"""Key records of a segment: those of one key, found in the column of keys; other columns are read where it occurs.

Of a table that takes edits of several rows the column of values is looked through, too, for edits that name the row.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from logstore.model.history.carried import names_row
from logstore.model.history.logged import LoggedRecord
from logstore.snapshot.archive.segment import Segment
from logstore.snapshot.archive.segment_file import local_copy
from logstore.snapshot.storage import Storage

_COLUMNS = ["key", "offset", "timestamp", "value", "headers"]


def records_of_key(
    segment: Segment,
    storage: Storage,
    key: bytes,
    *,
    carried: bool = False,
    newest_first: bool = False,
    scanned: Callable[[int], None] = lambda _: None,
) -> Iterator[LoggedRecord]:
    """Records of a key in a segment, in the order of the log or against it; with `carried` edits of other keys, too.

    A row group is held at a time; `scanned` hears of the records that were looked through. Raises Corrupted when the
    file is not, byte for byte, what the manifest says, StorageUnreachable.
    """
    with local_copy(segment, storage) as path:
        yield from _found(path, key, scanned, carried=carried, newest_first=newest_first)


def _found(
    path: Path, key: bytes, scanned: Callable[[int], None], *, carried: bool, newest_first: bool
) -> Iterator[LoggedRecord]:
    with parquet.ParquetFile(path) as file:
        groups = range(file.num_row_groups)
        for group in reversed(groups) if newest_first else groups:
            looked = file.read_row_group(group, columns=["key", "value"] if carried else ["key"], use_threads=False)
            hits = _hits(looked, key, carried=carried)
            if pc.any(hits).as_py():
                rows = file.read_row_group(group, columns=_COLUMNS, use_threads=False).filter(hits)
                yield from _records(rows.take(pa.array(range(len(rows) - 1, -1, -1))) if newest_first else rows, key)
            scanned(len(looked))


def _hits(looked: pa.Table, key: bytes, *, carried: bool) -> pa.ChunkedArray:
    """Records of the key, and with `carried` those whose value has its bytes."""
    own = pc.fill_null(pc.equal(looked.column("key"), pa.scalar(key, pa.binary())), False)
    if not carried:
        return own
    return pc.or_(own, pc.fill_null(pc.match_substring(looked.column("value"), key), False))


def _records(rows: pa.Table, key: bytes) -> Iterator[LoggedRecord]:
    for batch in rows.to_batches(max_chunksize=1_024):
        columns = (batch.column(name).to_pylist() for name in _COLUMNS)
        for name, offset, timestamp_ms, value, headers in zip(*columns, strict=True):
            pairs = tuple((header["key"], header["value"]) for header in headers or ())
            if name == key:
                yield LoggedRecord(offset, timestamp_ms, value, pairs)
            elif name is not None and names_row(key, value, pairs):
                yield LoggedRecord(offset, timestamp_ms, value, pairs, name)
