"""Archive: stretches of a table's log in Parquet files. The manifests say which there are, not the folders.

    <topic>/<epoch>/archive/p00000/<from>-<to>-<attempt>.parquet      the records of one stretch [from, to)
    <topic>/<epoch>/archive/manifests/<number>.json                   created exclusively: the commit of one run
    <topic>/<epoch>/archive/manifests/<number>.whole                  empty: that manifest names all there is

    {"format": 1, "number", "topic", "epoch", "job", "created_ms",
     "whole": true (of a repair), "segments": [[partition, start, end, path, records, size_bytes, checksum, last]...],
     "checksum": xxh3-128 of the document without this field}

Segments of a partition follow each other without a hole and without an overlap, from offset 0 on; both is checked at
every reading.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import orjson
import xxhash

from logstore.model.errors import Conflict, Corrupted
from logstore.snapshot.storage import Storage

FORMAT = 1
_KINDS = ("json", "whole")
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


class ArchiveIndex:
    """Index of the archive of one epoch of a topic."""

    def __init__(self, storage: Storage, topic: str, epoch: str) -> None:
        self.storage, self.topic, self.epoch = storage, topic, epoch
        self.root = f"{topic}/{epoch}/archive"
        self._known: list[Segment] = []  # of the manifests below `_read`
        self._read = 0

    def segments(self) -> list[Segment]:
        """Segments of the archive, by partition and offset.

        Raises Corrupted when a manifest is damaged, or the segments have a hole or overlap.
        """
        return list(self._current())

    def _current(self) -> list[Segment]:
        """All segments in their order, with what has come since it was asked for last; not to be changed."""
        numbers, first = self._numbers()
        if self._read < first:
            self._known, self._read = [], first
        counting = [number for number in numbers if number >= first]
        if counting != list(range(first, first + len(counting))):
            absent = next(number for number in range(first, first + len(counting)) if number not in counting)
            raise Corrupted(
                f"{self.root}/manifests lacks the manifest {absent}: part of the archive is gone; `logstore batch "
                "archive "
                "--repair` goes on from what is whole"
            )
        unread = [number for number in counting if number >= self._read]
        if unread:
            fresh = (segment for number in unread for segment in self._manifest(number))
            known = sorted([*self._known, *fresh], key=lambda segment: (segment.partition, segment.start))
            _following(known, {})
            self._known, self._read = known, unread[-1] + 1
        return self._known

    def next_offsets(self) -> dict[int, int]:
        """Partition -> the first offset that is not archived.

        Partitions without a segment are absent. Raises Corrupted.
        """
        return _following(self.segments(), {})

    def lasts(self) -> dict[int, str]:
        """Partition -> what is known of the last record that is archived. Raises Corrupted."""
        return {segment.partition: segment.last for segment in self.segments() if segment.last}

    def covering(self, partition: int, start: int, end: int) -> list[Segment]:
        """The segments that hold `[start, end)` of a partition.

        Raises Corrupted when the archive does not hold all of it.
        """
        if start >= end:
            return []
        known = self._current()  # one partition's lie together: looked through for each of them, all would be too many
        its_own = known[bisect_left(known, (partition,)) : bisect_left(known, (partition + 1,))]
        found = [s for s in its_own if s.end > start and s.start < end]
        if not found or found[0].start > start or found[-1].end < end:
            reach = self.next_offsets().get(partition, 0)
            raise Corrupted(
                f"the archive {self.root} ends at offset {reach:,} of partition {partition}, wanted {start:,} to "
                f"{end - 1:,}"
            )
        return found

    def append(self, segments: Iterable[Segment], job: str, holds: Callable[[], bool] = lambda: True) -> int:
        """Commit segments; returns the manifest's number. `holds`: whether the job still has the table to itself.

        Both that and the files are proved once the manifest is there; otherwise it is taken back, where nothing
        follows it.

        Raises Corrupted when they do not follow what is there, Conflict when another job came first, or took the table.
        """
        fresh = sorted(segments, key=lambda segment: (segment.partition, segment.start))
        _following(fresh, self.next_offsets())
        number = self._read
        self._commit(number, fresh, job)
        gone = [segment.path for segment in fresh if not self._is_there(segment)]
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
        numbers, first = self._numbers()
        found: set[Segment] = set()
        for number in [number for number in numbers if number >= first] or numbers:
            with suppress(Corrupted):
                found.update(self._manifest(number))
        reach: dict[int, int] = {}
        fitting = []
        for segment in sorted(found, key=lambda segment: (segment.partition, segment.start)):
            if segment.start == reach.get(segment.partition, 0) < segment.end:
                reach[segment.partition] = segment.end
                fitting.append(segment)
        return fitting

    def replace(self, segments: Iterable[Segment], job: str) -> int:
        """Commit that these are all there is; what older manifests say does not count any more. Raises Conflict."""
        fresh = sorted(segments, key=lambda segment: (segment.partition, segment.start))
        _following(fresh, {})
        number = max(self._numbers()[0], default=-1) + 1
        self._commit(number, fresh, job, whole=True)
        self.storage.replace(f"{self.root}/manifests/{number:08d}.whole", b"")
        return number

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

    def _is_there(self, segment: Segment) -> bool:
        try:
            return self.storage.size(segment.path) == segment.size_bytes
        except FileNotFoundError:
            return False

    def collect(self) -> list[str]:
        """Remove files that no manifest names, an hour after they were written.

        Leftovers of killed attempts; younger ones may be those of a job that does not know that it lost the table.
        """
        named = {segment.path for segment in self.segments()}
        lying = [
            f"{self.root}/{folder}/{name}"
            for folder in self.storage.list(self.root)
            if folder != "manifests"
            for name in self.storage.list(f"{self.root}/{folder}")
        ]
        garbage = [path for path in lying if path not in named and self._is_old(path)]
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

    def _manifest(self, number: int) -> list[Segment]:
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
            return [Segment(*fields) for fields in body["segments"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Corrupted(f"{path} is no manifest of an archive: {error}") from error


def _checksum(body: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))


def _following(segments: list[Segment], known: dict[int, int]) -> dict[int, int]:
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
