"""Times: where in the archive a time lies."""

from pyarrow import compute as pc
from pyarrow import parquet

from logstore.snapshot.archive.segment import Segment
from logstore.snapshot.archive.segment_file import local_copy
from logstore.snapshot.storage import Storage


def may_hold_later(segments: list[Segment], time_ms: int) -> list[Segment]:
    """The segments of a partition in which the first record later than a time may be: one, where all have their times.

    Those before it hold nothing so late, and those of earlier builds, before it, do not say.
    """
    found: list[Segment] = []
    for segment in segments:
        if segment.latest_ms > time_ms:
            return [*found, segment]
        if segment.latest_ms < 0:
            found.append(segment)
    return found


def first_archived_later(segments: list[Segment], time_ms: int, storage: Storage) -> int | None:
    """The first offset in these segments whose timestamp is later than a time. Raises Corrupted, StorageUnreachable."""
    for segment in segments:
        with local_copy(segment, storage) as path, parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["offset", "timestamp"], use_threads=False):
                later = batch.filter(pc.greater(batch.column("timestamp"), time_ms))
                if later.num_rows:
                    return int(later.column("offset")[0].as_py())
    return None
