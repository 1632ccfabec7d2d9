"""Key ranges: a partition that is larger than one task holds is folded by ranges of its keys, one task each.

    samples of what is read ─> ranges of about equal bytes ─> a fold of each ─> merged where the levels are to be

The bounds of a base's files are samples that cost nothing; the archive's are read, of a few of its segments. How good
they are decides how even the tasks are, not what comes out: any ranges that hold all keys once do.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from pyarrow import parquet

from batch.tasks.sst_files import SstTarget, fetched
from logstore.model.folding.difference import KeyRange
from logstore.model.key import MAX_KEY_BYTES
from logstore.snapshot import sst
from logstore.snapshot.archive.segment import Segment
from logstore.snapshot.archive.segment_file import local_copy
from logstore.snapshot.manifest import FileFacts
from logstore.snapshot.work import FoldOrder, KeySample, SampleOrder

MOST = 1_024  # ranges of a partition
T = TypeVar("T")
_PIECES = 8  # segments that are looked into, and row groups of each
_FEW = 4  # files of a base for each range: where there are fewer, they are looked into


def size_of(order: FoldOrder) -> int:
    """Bytes of archive and snapshot that a fold reads."""
    return sum(one.size_bytes for one in order.segments) + sum(file.size_bytes for file in order.base_files)


def count_of(order: FoldOrder, task_bytes: int) -> int:
    """Ranges that a partition is folded by, so that none has more than about `task_bytes`."""
    return min(MOST, -(-size_of(order) // task_bytes))


def ranges(samples: Iterable[KeySample], count: int) -> list[KeyRange]:
    """Ranges, `count` at most, that hold all keys once, and of the samples about equally much each."""
    assert count > 0, "all keys are in some range"
    ordered = sorted(samples)
    total, passed, bounds = sum(one.size_bytes for one in ordered), 0, [b""]
    for one in ordered:
        if passed * count >= total * len(bounds) and one.key > bounds[-1] and len(bounds) < count:
            bounds.append(one.key)
        passed += one.size_bytes
    return [KeyRange(start, end) for start, end in pairwise([*bounds, None]) if start is not None]


def sample(order: SampleOrder, where: SstTarget) -> list[KeySample]:
    """Keys of what a fold reads, each with the bytes that it stands for. Raises Corrupted, StorageUnreachable."""
    fold = order.fold
    found = list(_archived(fold.segments, order.ranges, where))
    few = len(fold.base_files) < order.ranges * _FEW
    for file in fold.base_files:
        found += _inside(file, order.ranges, where) if few else [KeySample(file.first_key, file.size_bytes)]
    return found


def _archived(segments: Sequence[Segment], count: int, where: SstTarget) -> Iterator[KeySample]:
    chosen = _spread(segments, _PIECES)
    total = sum(segment.size_bytes for segment in segments)
    keys = [key for segment in chosen for key in _keys(segment, where) if key and len(key) <= MAX_KEY_BYTES]
    picked = _spread(sorted(keys), max(256, count * 16))
    for key in picked:
        yield KeySample(key, max(1, total // len(picked)))


def _keys(segment: Segment, where: SstTarget) -> Iterator[bytes | None]:
    with local_copy(segment, where.storage) as path, parquet.ParquetFile(path) as file:
        for group in _spread(range(file.num_row_groups), _PIECES):
            yield from file.read_row_group(group, columns=["key"], use_threads=False).column("key").to_pylist()


def _inside(file: FileFacts, count: int, where: SstTarget) -> list[KeySample]:
    """Keys of one SSTable, read whole."""
    step = max(1, file.entries // (count * 16))
    with TemporaryDirectory(prefix="logstore-sample-") as scratch:
        local = fetched(where, file, Path(scratch, "file.sst"))
        with sst.opened([[local]]) as reader:
            keys = [key for number, (key, _) in enumerate(reader.stored()) if number % step == 0]
    return [KeySample(key, max(1, file.size_bytes // len(keys))) for key in keys]


def _spread(items: Sequence[T], most: int) -> list[T]:
    """Choose at most so many of the items, spread over all of them."""
    if len(items) <= most:
        return list(items)
    return [items[at * len(items) // most] for at in range(most)]
