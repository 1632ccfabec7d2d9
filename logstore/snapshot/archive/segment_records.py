"""Segment records: those of a segment from an offset on, as columns for the fold."""

from collections.abc import Iterator

import pyarrow as pa

from logstore.model.folding.fold import Records
from logstore.snapshot.archive.segment import Segment
from logstore.snapshot.archive.segment_file import read_segment
from logstore.snapshot.storage import Storage

_MOST = 1_000  # of one run: they are Python objects


def records_from(segment: Segment, storage: Storage, skips: list[tuple[int, int]], start: int) -> Iterator[Records]:
    """Records of a segment from `start` on, in order, some at a time. Raises Corrupted, StorageUnreachable."""
    for batch in read_segment(segment, storage, skips):
        for first in range(0, batch.num_rows, _MOST):
            records = _records(batch.slice(first, _MOST))
            below = sum(offset < start for offset in records.offsets)
            if below < len(records.offsets):
                yield records.slice(below)


def _records(batch: pa.RecordBatch) -> Records:
    offsets, keys, values, timestamps_ms, headers = (
        batch.column(name).to_pylist() for name in ("offset", "key", "value", "timestamp", "headers")
    )
    return Records(
        offsets, keys, values, timestamps_ms,
        [tuple((one["key"], one["value"]) for one in some) if some else None for some in headers],
    )  # fmt: skip
