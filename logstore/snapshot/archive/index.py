"""Archive index: the stretches of a table's log in Parquet files. The manifests say which there are, not the folders.

    <topic>/<epoch>/archive/p00000/<from>-<to>-<attempt>.parquet      the records of one stretch [from, to)
    <topic>/<epoch>/archive/manifests/<number>.json                   created exclusively: the commit of one run
    <topic>/<epoch>/archive/manifests/<number>.whole                  empty: that manifest is a checkpoint
    <topic>/<epoch>/archive/pages/<number>-<attempt>.parquet          segments of many runs, which a checkpoint names
    <topic>/<epoch>/archive/attempts/<job>                            empty: a job that has not ended yet, or was killed

Segments of a partition follow each other without a hole and without an overlap, from offset 0 on; that is checked of
all that is read. Every CHECKPOINT_RUNS manifests a checkpoint says how far each partition reaches, and in which pages
its segments are. So a reader opens one checkpoint and the runs since; a page only where it is asked what came before.
"""

import secrets
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

import xxhash

from logstore.model.errors import Conflict, Corrupted
from logstore.snapshot.archive import leftovers, manifest, page
from logstore.snapshot.archive.manifest import NOTHING, ArchivedPart, ArchiveManifest, Checkpoint
from logstore.snapshot.archive.page import PageFacts, SegmentPage
from logstore.snapshot.archive.segment import Segment, following, path_of
from logstore.snapshot.storage import Storage

CHECKPOINT_RUNS = 16
PAGE_SEGMENTS = 65_536  # the last page takes in what follows up to so many; then a new one begins
SEARCH_RUNS = 1_024  # manifests between two looks for what nobody names, in all folders
_KINDS = ("json", "whole")


class ArchiveIndex:
    """Index of the archive of one epoch of a topic: its segments by partition, read once and then kept up."""

    def __init__(self, storage: Storage, topic: str, epoch: str) -> None:
        self.storage, self.topic, self.epoch = storage, topic, epoch
        self.root = f"{topic}/{epoch}/archive"
        self._held = False
        self._first = self._read = 0  # manifests: the first one that counts, the next one to read
        self._checkpoint = Checkpoint()
        self._tail: dict[int, list[Segment]] = {}  # behind the checkpoint
        self._parts: dict[int, ArchivedPart] = {}
        self._pages: dict[str, SegmentPage] = {}  # those that were read, by name

    def hold(self) -> None:
        """Look for manifests now, and then not again until a checkpoint. Requires: the job has the table to itself.

        Should another one have taken it, a commit is a Conflict as ever: each is created exclusively. Raises Corrupted.
        """
        self._refresh()
        self._held = True

    def segments(self) -> list[Segment]:
        """Segments of the archive, by partition and offset: all of them.

        Raises Corrupted when a manifest or a page is damaged, or the segments have a hole or overlap.
        """
        self._refresh()
        found = [segment for partition in sorted(self._parts) for segment in self._back_to(partition, 0)]
        following(found, {})
        return found

    def next_offsets(self) -> dict[int, int]:
        """Partition -> the first offset that is not archived.

        Partitions without a segment are absent. Raises Corrupted.
        """
        self._refresh()
        return {partition: part.reach for partition, part in self._parts.items()}

    def lasts(self) -> dict[int, str]:
        """Partition -> what is known of the last record that is archived. Raises Corrupted."""
        self._refresh()
        return {partition: part.last for partition, part in self._parts.items() if part.last}

    def size_bytes(self, since: Mapping[int, int]) -> int:
        """Bytes of the files that hold records from these offsets on; of other partitions all. Raises Corrupted."""
        self._refresh()
        total = 0
        for partition, part in self._parts.items():
            start = since.get(partition, 0)
            if start == 0:
                total += part.size_bytes
            elif start < part.reach:
                total += sum(one.size_bytes for one in self.covering(partition, start, part.reach))
        return total

    def covering(self, partition: int, start: int, end: int) -> list[Segment]:
        """The segments that hold `[start, end)` of a partition.

        What is known already is not asked for again. Raises Corrupted when the archive does not hold all of it.
        """
        if start >= end:
            return []
        if self._reach(partition) < end:
            self._refresh()
        reach = self._reach(partition)
        if reach < end:
            raise Corrupted(
                f"the archive {self.root} ends at offset {reach:,} of partition {partition}, wanted {start:,} to "
                f"{end - 1:,}"
            )
        own = self._back_to(partition, start)
        first = bisect_right(own, start, key=lambda segment: segment.start) - 1
        last = bisect_right(own, end - 1, key=lambda segment: segment.start)
        following(own[first:last], {partition: own[first].start})
        return own[first:last]

    def _reach(self, partition: int) -> int:
        return self._parts.get(partition, NOTHING).reach

    def _back_to(self, partition: int, start: int) -> list[Segment]:
        """The newest segments of a partition, back to the one that holds `start`, and perhaps further."""
        own = self._tail.get(partition, [])
        for facts in reversed(self._checkpoint.pages):
            if (own[0].start if own else self._reach(partition)) <= start:
                return own
            if facts.first <= partition <= facts.last:
                own = self._page(facts).of(partition) + own
        if (own[0].start if own else self._reach(partition)) > start:
            raise Corrupted(f"no page of the archive {self.root} names what holds offset {start:,} of {partition}")
        return own

    def _refresh(self) -> None:
        """Read the manifests that have come since. Nothing is taken from them unless all can be."""
        if self._held:
            return
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
            self._first = self._read = first
            self._take(first, Checkpoint(), {}, {})
        fresh: list[Segment] = []
        begin, base = self._first, None
        for number, found in enumerate(self.storage.looks(self._manifest, range(self._read, end)), self._read):
            if found.whole:
                begin, base, fresh = number, found.checkpoint, []
            fresh += found.segments
        if fresh or base is not None:
            self._follow(begin, base, sorted(fresh))
        self._read = end

    def _follow(self, begin: int, base: Checkpoint | None, fresh: list[Segment]) -> None:
        """Take what has come, sorted: upon what is known, or upon a checkpoint that has come too."""
        parts = dict(self._parts if base is None else base.parts)
        tail = self._tail if base is None else {}
        following(fresh, {partition: part.reach for partition, part in parts.items()})
        for partition, own in groupby(fresh, key=lambda segment: segment.partition):
            those = list(own)
            tail.setdefault(partition, []).extend(those)
            for segment in those:
                parts[partition] = parts.get(partition, NOTHING).and_then(segment)
        self._take(begin, self._checkpoint if base is None else base, tail, parts)

    def _take(
        self, first: int, checkpoint: Checkpoint, tail: dict[int, list[Segment]], parts: dict[int, ArchivedPart]
    ) -> None:
        named = {facts.name for facts in checkpoint.pages}
        self._pages = {name: known for name, known in self._pages.items() if name in named}
        self._first, self._checkpoint, self._tail, self._parts = first, checkpoint, tail, parts

    def append(self, segments: Iterable[Segment], job: str, holds: Callable[[], bool] = lambda: True) -> int:
        """Commit segments, whose tasks saw that their files are there; returns the manifest's number.

        `holds`: whether the job still has the table to itself, asked once the manifest is there: then no other job
        can have collected the files. Otherwise the manifest is taken back, where nothing follows it.

        Raises Corrupted when they do not follow what is there, Conflict when another job came first, or took the table.
        """
        fresh = sorted(segments)
        following(fresh, self.next_offsets())
        number = self._read
        self._create(number, manifest.of_run(self._head(number, job), fresh))
        if holds():
            if self._held:
                self._follow(self._first, None, fresh)
                self._read = number + 1
            return number
        gone = [
            one.path for one, there in zip(fresh, self.storage.looks(self._is_there, fresh), strict=True) if not there
        ]
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
        """The segments that lie end to end from offset 0, in what can be read; holes end a partition."""
        found: set[Segment] = set()
        for number in self._numbers()[0]:
            with suppress(Corrupted):
                one = self._manifest(number)
                pages = [self._readable_page(facts) for facts in one.checkpoint.pages]
                if one.whole and None not in pages:
                    found = set()
                found.update(one.segments, *(those for those in pages if those))
        reach: dict[int, int] = {}
        fitting = []
        for segment in sorted(found):
            if segment.start == reach.get(segment.partition, 0) < segment.end:
                reach[segment.partition] = segment.end
                fitting.append(segment)
        return fitting

    def _readable_page(self, facts: PageFacts) -> list[Segment] | None:
        try:
            return self._page(facts).all()
        except (Corrupted, Conflict):
            return None

    def replace(self, segments: Iterable[Segment], job: str) -> int:
        """Commit that these are all there is; what older manifests say does not count any more. Raises Conflict."""
        fresh = sorted(segments)
        following(fresh, {})
        number = max(self._numbers()[0], default=-1) + 1
        parts: dict[int, ArchivedPart] = {}
        for segment in fresh:
            parts[segment.partition] = parts.get(segment.partition, NOTHING).and_then(segment)
        self._commit(number, Checkpoint(parts, tuple(self._write(number, page.empty(self.root), fresh))), job)
        return number

    def checkpoint(self, job: str) -> bool:
        """Commit a checkpoint, CHECKPOINT_RUNS after the last; True when it was due.

        What it stands for and the checkpoint before stay, and go with the next one. Raises Conflict, Corrupted.
        """
        self._refresh()
        if self._read - self._first <= CHECKPOINT_RUNS:
            return False
        number, before, fresh = self._read, self._checkpoint, [one for own in self._tail.values() for one in own]
        open_ones = before.pages[-1:] if sum(p.segments for p in before.pages[-1:]) < PAGE_SEGMENTS else ()
        upon = self._page(*open_ones) if open_ones else page.empty(self.root)
        pages = (*before.pages[: len(before.pages) - len(open_ones)], *self._write(number, upon, fresh))
        self._commit(number, Checkpoint(self._parts, pages, tuple(facts.name for facts in open_ones)), job)
        self._forget_before(self._first, before.former)
        self._held = False
        return True

    def tidy(self, job: str) -> list[str]:
        """Commit a checkpoint where it is due, and now and then `collect`; returns what that removed.

        Raises as they do.
        """
        if not self.checkpoint(job) or self._first // SEARCH_RUNS == self._read // SEARCH_RUNS:
            return []
        return self.collect()

    def _write(self, number: int, upon: SegmentPage, fresh: Sequence[Segment]) -> Iterator[PageFacts]:
        """Write a page and what follows it, each file under a name of its own: none counts before a checkpoint."""
        for raw, first, last, segments in upon.and_then(self.root, fresh).write(PAGE_SEGMENTS):
            name = f"{number:08d}-{secrets.token_hex(8)}.parquet"
            self.storage.create(f"{self.root}/{leftovers.PAGES}/{name}", raw)
            yield PageFacts(name, first, last, segments, len(raw), xxhash.xxh3_128_hexdigest(raw))

    def _forget_before(self, number: int, pages: Iterable[str]) -> None:
        """Remove the manifests before the checkpoint before, and those of its pages that went into another."""
        folder = f"{self.root}/manifests"
        found = [(name.partition(".")[0], name) for name in self.storage.list(folder)]
        old = [f"{folder}/{name}" for text, name in found if text.isdigit() and int(text) < number]
        self.storage.remove_all([*old, *(f"{self.root}/{leftovers.PAGES}/{name}" for name in pages)])

    def _commit(self, number: int, checkpoint: Checkpoint, job: str) -> None:
        self._create(number, manifest.of_checkpoint(self._head(number, job), checkpoint))
        self.storage.replace(f"{self.root}/manifests/{number:08d}.whole", b"")

    def _create(self, number: int, raw: bytes) -> None:
        try:
            self.storage.create(self._path(number), raw)
        except FileExistsError as error:
            raise Conflict(f"another job archived {self.topic} at the same time; run this one again") from error

    def _head(self, number: int, job: str) -> dict[str, Any]:
        created_ms = time.time_ns() // 1_000_000
        return {"number": number, "topic": self.topic, "epoch": self.epoch, "job": job, "created_ms": created_ms}

    def _is_there(self, segment: Segment) -> bool:
        try:
            return self.storage.size(segment.path) == segment.size_bytes
        except FileNotFoundError:
            return False

    def begin(self, job: str) -> None:
        """Leave the mark of a job that is about to write files."""
        leftovers.begin(self.storage, self.root, job)

    def end(self, job: str) -> None:
        """Remove the mark of a job whose files a manifest names."""
        leftovers.end(self.storage, self.root, job)

    def has_killed(self) -> bool:
        """True when `collect_killed` would look for something."""
        return bool(leftovers.killed(self.storage, self.root))

    def collect_killed(self) -> list[str]:
        """Collect where a killed job has left its mark, once that is an hour old. Raises Corrupted."""
        old = leftovers.killed(self.storage, self.root)
        removed = self.collect() if old else []
        self.storage.remove_all(old)
        return removed

    def collect(self) -> list[str]:
        """Remove segments' files that no manifest names, an hour after they were written. Raises Corrupted.

        Leftovers of killed attempts; younger ones may be those of a job that does not know that it lost the table.
        Every folder of the archive is looked through.
        """
        self._refresh()
        pages = {*(facts.name for facts in self._checkpoint.pages), *self._checkpoint.former}
        return [
            *leftovers.collect(self.storage, self.root, lambda p: {s.path for s in self._back_to(p, 0)}),
            *leftovers.collect_folder(self.storage, f"{self.root}/{leftovers.PAGES}", pages),
        ]

    def segment_path(self, partition: int, start: int, end: int, attempt: str) -> str:
        """Path of a segment's file; `attempt` is unique to the try at writing it."""
        return path_of(self.root, partition, start, end, attempt)

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

    def _manifest(self, number: int) -> ArchiveManifest:
        path = self._path(number)
        try:
            return manifest.read(self.storage.read(path), (self.topic, self.epoch, number))
        except FileNotFoundError as error:
            raise Conflict(f"{path} went while the archive was read; run this again") from error
        except Corrupted as error:
            raise Corrupted(f"{path}: {error}") from error

    def _page(self, facts: PageFacts) -> SegmentPage:
        if facts.name not in self._pages:
            path = f"{self.root}/{leftovers.PAGES}/{facts.name}"
            try:
                self._pages[facts.name] = page.read(self.root, facts, self.storage.read(path))
            except FileNotFoundError as error:
                if self._numbers()[1] > self._first:
                    raise Conflict(f"{path} went while the archive was read; run this again") from error
                raise Corrupted(f"{path} is gone: {_WAY_OUT}") from error
            except Corrupted as error:
                raise Corrupted(f"{path}: {error}; {_WAY_OUT}") from error
        return self._pages[facts.name]


_WAY_OUT = "bring it back from a copy of the storage, or let `logstore batch archive --repair` go on from what is whole"
