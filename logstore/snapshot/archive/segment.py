"""Segment: records of a partition in one Parquet file; its place in the storage follows from what it holds."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from logstore.model.errors import Corrupted
from logstore.model.safe_path import one_step


class Segment(NamedTuple):
    """The records of offsets `[start, end)` of a partition, in one Parquet file."""

    partition: int
    start: int
    end: int
    path: str  # in the storage
    records: int  # fewer than end - start where offsets were stepped over
    size_bytes: int
    checksum: str  # xxh3-128 of the file, 32 hex digits
    last: str = ""  # `<offset>-<xxh3-128>` of its last record: the log still has that one, or it lost its end since
    latest_ms: int = -1  # highest timestamp of its records; -1: unknown, an earlier build wrote it


def path_of(root: str, partition: int, start: int, end: int, attempt: str) -> str:
    """Path of a segment's file below the archive's root; `attempt` is unique to the try at writing it."""
    return f"{_before_attempt(root, partition, start, end)}{one_step(attempt)}.parquet"


def attempt_of(root: str, segment: Segment) -> str:
    """The attempt that wrote a segment; raises Corrupted where its file lies elsewhere than `path_of` says."""
    before = _before_attempt(root, segment.partition, segment.start, segment.end)
    attempt = segment.path[len(before) :].removesuffix(".parquet")
    if segment.path != f"{before}{attempt}.parquet":
        raise Corrupted(f"{segment.path} is not where the archive {root} keeps what it is said to hold")
    return attempt


def _before_attempt(root: str, partition: int, start: int, end: int) -> str:
    return f"{root}/p{partition:05d}/{start:020d}-{end:020d}-"


def following(segments: Iterable[Segment], known: Mapping[int, int]) -> dict[int, int]:
    """Partition -> next offset behind these; raises Corrupted when one does not begin where the one before ended."""
    reach = dict(known)
    for segment in segments:
        at = reach.get(segment.partition, 0)
        if segment.start != at or segment.end <= segment.start:
            what = "overlaps what is archived" if segment.start < at else "leaves a hole"
            raise Corrupted(
                f"{segment.path} {what}: it holds {segment.start:,} to {segment.end - 1:,}, expected to begin at {at:,}"
            )
        reach[segment.partition] = segment.end
    return reach
