"""Archive: stretches of a table's log in Parquet files. The manifests say which there are, not the folders.

    <topic>/<epoch>/archive/p00000/<from>-<to>-<attempt>.parquet      the records of one stretch [from, to)
    <topic>/<epoch>/archive/manifests/<number>.json                   created exclusively: the commit of one run
    <topic>/<epoch>/archive/manifests/<number>.whole                  empty: that manifest names all there is
    <topic>/<epoch>/archive/attempts/<job>                            empty: a job that has not ended yet, or was killed

    {"format": 1, "number", "topic", "epoch", "job", "created_ms",
     "whole": true (of a checkpoint or a repair),
     "segments": [[partition, start, end, path, records, size_bytes, checksum, last, latest_ms]...],
     "checksum": xxh3-128 of the document without this field}

Segments of a partition follow each other without a hole and without an overlap, from offset 0 on; both is checked at
every reading. Every CHECKPOINT_RUNS manifests one names all segments, so that a reader opens so many at most; those
before the checkpoint before it are removed.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import groupby
from typing import Any, NamedTuple

import orjson
import xxhash

from logstore.model.errors import Conflict, Corrupted
from logstore.snapshot.storage import Storage, at_once

FORMAT = 1
CHECKPOINT_RUNS = 100
_KINDS = ("json", "whole")
_NO_SEGMENTS = ("manifests", "attempts")  # folders
YOUNG_S = (
    3_600.0  # a file that no manifest names may be about to be named: of a job that was suspended, and lost its lease
)


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


class _Manifest(NamedTuple):
    segments: list[Segment]
    whole: bool


class ArchiveIndex:
    """Index of the archive of one epoch of a topic: its segments by partition, read once and then kept up."""

    def __init__(self, storage: Storage, topic: str, epoch: str) -> None:
        self.storage, self.topic, self.epoch = storage, topic, epoch
        self.root = f"{topic}/{epoch}/archive"
        self._parts: dict[int, list[Segment]] = {}  # of the manifests from `_first` on, below `_read`
        self._reach: dict[int, int] = {}
        self._first = self._read = 0

    def segments(self) -> list[Segment]:
        """Segments of the archive, by partition and offset.

        Raises Corrupted when a manifest is damaged, or the segments have a hole or overlap.
        """
        self._refresh()
        return self._all()

    def next_offsets(self) -> dict[int, int]:
        """Partition -> the first offset that is not archived.

        Partitions without a segment are absent. Raises Corrupted.
        """
        self._refresh()
        return dict(self._reach)

    def lasts(self) -> dict[int, str]:
        """Partition -> what is known of the last record that is archived. Raises Corrupted."""
        self._refresh()
        named = ((p, next((s.last for s in reversed(own) if s.last), "")) for p, own in self._parts.items())
        return {partition: last for partition, last in named if last}

    def covering(self, partition: int, start: int, end: int) -> list[Segment]:
        """The segments that hold `[start, end)` of a partition.

        What is known already is not asked for again. Raises Corrupted when the archive does not hold all of it.
        """
        if start >= end:
            return []
        if self._reach.get(partition, 0) < end:
            self._refresh()
        reach = self._reach.get(partition, 0)
        if reach < end:
            raise Corrupted(
                f"the archive {self.root} ends at offset {reach:,} of partition {partition}, wanted {start:,} to "
                f"{end - 1:,}"
            )
        own = self._parts[partition]
        first = bisect_right(own, start, key=lambda segment: segment.start) - 1
        last = bisect_right(own, end - 1, key=lambda segment: segment.start)
        return own[first:last]

    def _refresh(self) -> None:
        """Read the manifests that have come since. Nothing is taken from them unless all can be."""
        numbers, first = self._numbers()
        counting = [number for number in numbers if number >= first]
        if counting != list(range(first, first + len(counting))):
            absent = next(number for number in range(first, first + len(counting)) if number not in counting)
            raise Corrupted(
                f"{self.root}/manifests lacks the manifest {absent}: part of the archive is gone; `logstore batch "
                "archive --repair` goes on from what is whole"
            )
        end = first + len(counting)
        if not first <= self._read <= end:  # a checkpoint has come, or a commit was taken back
            self._parts, self._reach, self._first, self._read = {}, {}, first, first
        parts, reach, begin = self._parts, self._reach, self._first
        fresh: list[Segment] = []
        for number in range(self._read, end):
            manifest = self._manifest(number)
            if manifest.whole:
                parts, reach, fresh, begin = {}, {}, [], number
            fresh += manifest.segments
        fresh.sort()
        reach = _following(fresh, reach)
        for partition, own in groupby(fresh, key=lambda segment: segment.partition):
            parts.setdefault(partition, []).extend(own)
        self._parts, self._reach, self._first, self._read = parts, reach, begin, end

    def _all(self) -> list[Segment]:
        return [segment for _, own in sorted(self._parts.items()) for segment in own]

    def append(self, segments: Iterable[Segment], job: str, holds: Callable[[], bool] = lambda: True) -> int:
        """Commit segments; returns the manifest's number. `holds`: whether the job still has the table to itself.

        Both that and the files are proved once the manifest is there; otherwise it is taken back, where nothing
        follows it.

        Raises Corrupted when they do not follow what is there, Conflict when another job came first, or took the table.
        """
        fresh = sorted(segments)
        _following(fresh, self.next_offsets())
        number = self._read
        self._commit(number, fresh, job)
        there = at_once(self._is_there, fresh)
        gone = [segment.path for segment, is_there in zip(fresh, there, strict=True) if not is_there]
        if not gone and holds():
            return number
        if number + 1 not in self._numbers()[0]:
            self.storage.remove(self._path(number))
            raise Conflict(
                f"another job took the archive of {self.topic} while this one wrote"
                + (f", and removed {gone[0]}" if gone else "")
                + "; nothing was committed, run this one again"
            )
        if gone:
            raise Corrupted(
                f"{gone[0]} is gone, and more was archived behind it; `logstore batch archive --repair` mends it"
            )
        return number

    def readable(self) -> list[Segment]:
        """The segments that lie end to end from offset 0, in manifests that can be read; holes end a partition."""
        found: set[Segment] = set()
        for number in self._numbers()[0]:
            with suppress(Corrupted):
                manifest = self._manifest(number)
                found = set(manifest.segments) if manifest.whole else found | set(manifest.segments)
        reach: dict[int, int] = {}
        fitting = []
        for segment in sorted(found):
            if segment.start == reach.get(segment.partition, 0) < segment.end:
                reach[segment.partition] = segment.end
                fitting.append(segment)
        return fitting

    def replace(self, segments: Iterable[Segment], job: str) -> int:
        """Commit that these are all there is; what older manifests say does not count any more. Raises Conflict."""
        fresh = sorted(segments)
        _following(fresh, {})
        number = max(self._numbers()[0], default=-1) + 1
        self._commit(number, fresh, job, whole=True)
        return number

    def checkpoint(self, job: str) -> bool:
        """Commit one manifest of all segments, CHECKPOINT_RUNS after the last; True when it was due.

        The manifests of two checkpoints stay: what one of them says can be had from those before it. Raises Conflict,
        Corrupted.
        """
        self._refresh()
        if self._read - self._first <= CHECKPOINT_RUNS:
            return False
        self._commit(self._read, self._all(), job, whole=True)
        for name in self.storage.list(f"{self.root}/manifests"):
            number = name.partition(".")[0]
            if number.isdigit() and int(number) < self._first:
                self.storage.remove(f"{self.root}/manifests/{name}")
        return True

    def _commit(self, number: int, segments: list[Segment], job: str, *, whole: bool = False) -> None:
        body = {
            "format": FORMAT, "number": number, "topic": self.topic, "epoch": self.epoch, "job": job,
            "created_ms": time.time_ns() // 1_000_000, "segments": [list(segment) for segment in segments],
            **({"whole": True} if whole else {}),
        }  # fmt: skip
        try:
            self.storage.create(self._path(number), orjson.dumps({**body, "checksum": _checksum(body)}))
        except FileExistsError as error:
            raise Conflict(f"another job archived {self.topic} at the same time; run this one again") from error
        if whole:
            self.storage.replace(f"{self.root}/manifests/{number:08d}.whole", b"")

    def _is_there(self, segment: Segment) -> bool:
        try:
            return self.storage.size(segment.path) == segment.size_bytes
        except FileNotFoundError:
            return False

    def begin(self, job: str) -> None:
        """Leave the mark of a job that is about to write files."""
        self.storage.replace(f"{self.root}/attempts/{job}", b"")

    def end(self, job: str) -> None:
        """Remove the mark of a job whose files a manifest names."""
        self.storage.remove(f"{self.root}/attempts/{job}")

    def collect_killed(self) -> list[str]:
        """Collect where a killed job has left its mark, until that is an hour old."""
        marks = [f"{self.root}/attempts/{job}" for job in self.storage.list(f"{self.root}/attempts")]
        if not marks:
            return []
        old = [mark for mark in marks if self._is_old(mark)]
        removed = self.collect()
        for mark in old:
            self.storage.remove(mark)
        return removed

    def collect(self) -> list[str]:
        """Remove files that no manifest names, an hour after they were written.

        Leftovers of killed attempts; younger ones may be those of a job that does not know that it lost the table.
        Every folder of the archive is looked through.
        """
        named = {segment.path for segment in self.segments()}
        folders = [f"{self.root}/{folder}" for folder in self.storage.list(self.root) if folder not in _NO_SEGMENTS]
        names = at_once(self.storage.list, folders)
        lying = [f"{folder}/{name}" for folder, found in zip(folders, names, strict=True) for name in found]
        unnamed = [path for path in lying if path not in named]
        garbage = [path for path, old in zip(unnamed, at_once(self._is_old, unnamed), strict=True) if old]
        for path in garbage:
            self.storage.remove(path)
        for folder in self.storage.list(self.root):
            self.storage.tidy(f"{self.root}/{folder}")
        return garbage

    def segment_path(self, partition: int, start: int, end: int, attempt: str) -> str:
        """Path of a segment's file; `attempt` is unique to the try at writing it."""
        return f"{self.root}/p{partition:05d}/{start:020d}-{end:020d}-{attempt}.parquet"

    def _is_old(self, path: str) -> bool:
        try:
            return self.storage.age_s(path) > YOUNG_S
        except FileNotFoundError:
            return False

    def _numbers(self) -> tuple[list[int], int]:
        """The manifests' numbers, and the first one that counts."""
        names = self.storage.list(f"{self.root}/manifests")
        found = [name.partition(".") for name in names]
        numbers = {
            kind: sorted(int(number) for number, _, one in found if number.isdigit() and one == kind) for kind in _KINDS
        }
        whole = [number for number in numbers["whole"] if number in numbers["json"]]
        return numbers["json"], whole[-1] if whole else 0

    def _path(self, number: int) -> str:
        return f"{self.root}/manifests/{number:08d}.json"

    def _manifest(self, number: int) -> _Manifest:
        path = self._path(number)
        try:
            body: dict[str, Any] = orjson.loads(self.storage.read(path))
            checksum = body.pop("checksum")
            if checksum != _checksum(body):
                raise Corrupted(f"{path} does not have the checksum it names: it is damaged")
            if body["format"] != FORMAT:
                raise Corrupted(f"{path} is of format {body['format']}: a later build wrote it, upgrade this one")
            if (body["topic"], body["epoch"], body["number"]) != (self.topic, self.epoch, number):
                raise Corrupted(
                    f"{path} belongs to another topic, epoch or place: {body['topic']} {body['epoch']} {body['number']}"
                )
            return _Manifest([Segment(*fields) for fields in body["segments"]], body.get("whole") is True)
        except FileNotFoundError as error:
            raise Conflict(f"{path} went while the archive was read; run this again") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Corrupted(f"{path} is no manifest of an archive: {error}") from error


def _checksum(body: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))


def _following(segments: list[Segment], known: Mapping[int, int]) -> dict[int, int]:
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
