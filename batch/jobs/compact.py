"""Compact: one more snapshot of a table, up to a cut that the log itself names.

    1 cut        append a `cut` control record to every partition; its offset is where the snapshot ends
    2 archive    copy the log below the cut to Parquet
    3 fold       the snapshot before (the newest of the line that nobody refused), and the archived log since: new
                 SSTables, each read back where it was written: checksum, order, counts, digest; partitions where
                 nothing changed keep their files
    4 verify     look whether the files that are kept are there, in the size they had
    5 publish    the manifest, then the pointer, from where it stood at the beginning

`rebuild` begins a new line: it is the same from the archive's beginning (in a restored table: from its base snapshot),
whatever snapshots there are. A job that dies leaves nothing visible but, after step 1, cut records, which change no
row; the next run does it all again.

Partitions to which nothing but cuts has come are `idle_partitions`: 2 and 3 leave them out. When nothing
but the current snapshot's own cuts came to any of them, it is the answer, and no file is written: that is looked for
before the lease is taken. Only the first snapshot of a line always gets a successor, as `trim` wants two.
"""

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import logstore
from batch import failpoints
from batch.context import Clock, Context, new_id
from batch.jobs import idle_partitions, job_size
from batch.jobs.archive import Archived, archive_leased
from batch.partition_folds import PartitionFolds
from batch.tasks import sst_files
from logstore.log.control import append_control
from logstore.log.read.leader_epochs import records_from
from logstore.log.read.ranges import committed_ends
from logstore.model.errors import Conflict, Corrupted, LogTruncated, NoSuchSnapshot
from logstore.model.record_identity import RecordIdentity
from logstore.model.table import Table
from logstore.snapshot.archive.index import ArchiveIndex
from logstore.snapshot.manifest import FileFacts, Manifest, PartFacts, has_deltas
from logstore.snapshot.repository import Pointer, Repository
from logstore.snapshot.verdicts import REFUSED
from logstore.snapshot.work import FileOrder, FoldOrder, FoldResult

LOOKED_AT = 256  # files whose sizes one task looks at

Kind = Literal["compact", "rebuild"]


@dataclass
class Compacted:
    """Result of a compaction; `manifest` is published."""

    manifest: Manifest
    archived: Archived
    records: int  # that were folded
    linked: int  # partitions whose files are those of the parent
    removed: int  # snapshots that garbage collection took
    warnings: list[str]
    seconds: dict[str, float] = field(default_factory=dict)
    unchanged: bool = False  # nothing was new: the manifest is that of the current snapshot

    def document(self) -> dict[str, Any]:
        """JSON document of the run."""
        manifest, folding = self.manifest, self.seconds.get("fold", 0.0)
        return {
            "table": manifest.table, "snapshot": manifest.name, "kind": manifest.kind, "parent": manifest.parent,
            "cut": manifest.position.token, "entries": sum(part.entries for part in manifest.parts.values()),
            "size_bytes": sum(file.size_bytes for file in manifest.files), "records": self.records,
            "linked": self.linked, "unchanged": self.unchanged,
            "removed": self.removed, "warnings": self.warnings,
            "records_per_s": round(self.records / folding) if folding else 0,
            "archived": self.archived.document(),
            "digests": {str(p): part.digest for p, part in sorted(manifest.parts.items())},
            "quarantined": sum(sum(part.quarantine_counts.values()) for part in manifest.parts.values()),
            "seconds": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
        }  # fmt: skip


def compact(ctx: Context, table: Table, *, verify_all: bool = False, full: bool = False) -> Compacted:
    """A snapshot from the current one and the log since.

    `verify_all`: the files that it keeps are read, too. `full`: levels are merged, whatever their sizes.

    Raises JobRunning while another job works on the table, Conflict when somebody else moved the pointer meanwhile,
    Unsupported for a record that a later build has to fold, LogTruncated, LogGap, EpochChanged, Corrupted,
    StorageUnreachable.
    """
    return _run(ctx, table, "compact", verify_all=verify_all, full=full)


def rebuild(ctx: Context, table: Table) -> Compacted:
    """A snapshot from the beginning of the archive; raises as `compact`."""
    return _run(ctx, table, "rebuild", full=True)


def _run(ctx: Context, table: Table, kind: Kind, *, verify_all: bool = False, full: bool = False) -> Compacted:
    job, repository = new_id(), ctx.repository(table)
    begin = partial(_CompactRun, ctx, table, repository, kind, job, verify_all=verify_all, full=full)
    looked = None
    if kind == "compact":
        try:  # to say that nothing is new takes no lease, which would be a file
            looked = begin()
            if (current := looked.current()) is not None:
                return current
        except (NoSuchSnapshot, Conflict):  # another job removed what was looked at: the lease says which
            looked = None
    with repository.lease(job, kind, ctx.lease_s):
        return begin(looked=looked).run()


class _CompactRun:
    """A compaction under the lease."""

    def __init__(
        self,
        ctx: Context,
        table: Table,
        repository: Repository,
        kind: Kind,
        job: str,
        *,
        verify_all: bool,
        full: bool,
        looked: "_CompactRun | None" = None,
    ) -> None:
        """`looked`: one that has looked at the table before the lease was taken."""
        self.full = full
        self.ctx, self.table, self.repository, self.kind, self.job = ctx, table, repository, kind, job
        self.verify_all, self.idle = verify_all, dict[int, PartFacts]()
        self.clock, self.warnings = Clock(), list[str]()
        self.created_ms = time.time_ns() // 1_000_000
        self.name = f"{self.created_ms:014d}-{job}"
        self.expected: Pointer | None = repository.current(looked.expected if looked else None)
        self.verdicts = repository.verdicts(table.base_snapshot)
        self.parent: Manifest | None = self._parent(looked.parent if looked else None)
        self.index: ArchiveIndex = looked.index if looked else ctx.archive(table)
        self.target = sst_files.SstTarget(ctx.storage, f"{table.topic}/{table.epoch}/snapshots", self.name)

    def current(self) -> Compacted | None:
        """The current snapshot, if there is nothing new; nothing is written."""
        with self.clock.step("start"):
            ends = committed_ends(self.ctx.bootstrap, self.table)
            may = self.parent is not None and idle_partitions.may_be_unchanged(self.parent, ends)
            return self._look_for_idle(ends) if may else None

    def run(self) -> Compacted:
        """Compact in five steps."""
        with self.clock.step("start"):
            ends = committed_ends(self.ctx.bootstrap, self.table)
            self.index.hold()
            if (current := self._look_for_idle(ends)) is not None:
                return current
            self.ctx.start(job_size.of_tail(self.index, self.parent, ends))
        with self.clock.step("cut"):
            cuts = self._cut()  # 1
        failpoints.crash("compact:1")
        with self.clock.step("archive"):
            archived = archive_leased(
                self.ctx, self.table, self.job, dict.fromkeys(self.idle, 0) | self._busy(cuts), self.index
            )  # 2
        failpoints.crash("compact:2")
        with self.clock.step("fold"):
            done = self._fold(cuts)  # 3
        failpoints.crash("compact:3")
        with self.clock.step("verify"):
            manifest = self._verify(done)  # 4
        failpoints.crash("compact:4")
        with self.clock.step("publish"):
            removed = self._publish(manifest)  # 5
        records, linked = sum(part.records for part in done), sum(part.linked for part in done)
        return Compacted(manifest, archived, records, linked, removed, self.warnings, self.clock.seconds)

    def _look_for_idle(self, ends: dict[int, int]) -> Compacted | None:
        """Find the idle partitions; returns the current snapshot where there are no others."""
        if self.kind != "compact" or self.parent is None:
            return None
        found = idle_partitions.idle(self.ctx, self.table, self.parent, ends, self.index)
        found = {p: facts for p, facts in found.items() if not (self.full and has_deltas(self.parent.files_of(p)))}
        before = self.parent.parts
        may_end = {p for p, facts in found.items() if idle_partitions.may_end(self.table, before[p], facts)}
        self.idle = {p: facts for p, facts in found.items() if p not in may_end}
        if len(found) < self.table.partitions or self.verify_all:
            return None
        line = self.repository.line()
        if len(line) < 2 or line[-1] != self.parent.name:
            return None
        if any(facts.cut - self.parent.parts[partition].cut > 1 for partition, facts in found.items()):
            return None  # cuts of others: a schedule takes them for mutations until a snapshot has them
        return Compacted(
            self.parent, Archived(), 0, self.table.partitions, 0, self.warnings, self.clock.seconds, unchanged=True
        )

    def _busy(self, cuts: dict[int, int]) -> dict[int, int]:
        return {partition: cut for partition, cut in sorted(cuts.items()) if partition not in self.idle}

    def _parent(self, known: Manifest | None) -> Manifest | None:
        """The snapshot that is continued; None begins at offset 0. `known`: need not be read again, if it is current.

        No other snapshot is sure to be there still.
        """
        if self.kind == "compact" and self.expected is not None:
            for name in reversed(self.expected.line):
                try:
                    same = known if known is not None and known.name == name == self.expected.name else None
                    manifest = same or self.repository.manifest(name)
                except NoSuchSnapshot:  # it was dropped, or collected
                    continue
                proof = self.verdicts.whole(name, manifest.parts)
                if proof.word != REFUSED:
                    return manifest
                self.warnings.append(
                    f"snapshot {name} is refused, and is not continued: {proof.why}; `logstore batch audit "
                    f"{self.table.name} --explain` settles who is wrong"
                )
        return self.repository.manifest(self.table.base["snapshot"]) if self.table.base else None

    def _cut(self) -> dict[int, int]:
        """Cuts at which the snapshot ends.

        In a topic that takes no control records that is the end of the log at this moment.
        """
        self.ctx.progress("cut", 0, 1)
        if self.table.allow_control_records:
            cuts = append_control(self.ctx.bootstrap, self.table, "cut", {"job": self.job, "table": self.table.name})
        else:
            cuts = committed_ends(self.ctx.bootstrap, self.table)
        for partition, cut in cuts.items():
            if cut < self._since(partition):
                raise LogTruncated(
                    f"the log of {self.table.name}/{partition} ends at {cut:,}, before the snapshot "
                    f"{self.parent and self.parent.name} at "
                    f"{self._since(partition):,}: the log lost its end; `logstore batch restore` makes a table of what "
                    "the snapshot holds"
                )
        self.idle = {p: facts for p, facts in self.idle.items() if facts.cut == cuts[p]}  # a write came before the cut
        return cuts

    def _since(self, partition: int) -> int:
        return self.parent.parts[partition].cut if self.parent else 0

    def _fold(self, cuts: dict[int, int]) -> list[FoldResult]:
        work: list[FoldOrder] = []
        for partition, cut in self._busy(cuts).items():
            since = self._since(partition)
            segments = self.index.covering(partition, since, cut)
            below = self._below(partition)
            decided = self.parent.decisions_of(partition) if self.parent else None
            work.append(FoldOrder(partition, since, cut, segments, *below, self.full, decisions=decided))
        folds = PartitionFolds(self.ctx, self.table, self.target)
        done = dict(zip(self._busy(cuts), folds.run(work), strict=True))
        if self.parent is not None:
            done |= {p: idle_partitions.linked(self.parent, p, facts) for p, facts in self.idle.items()}
        return [done[partition] for partition in sorted(done)]

    def _below(self, partition: int) -> tuple[list[FileFacts], PartFacts | None]:
        """Files and facts of the partition in the snapshot that is continued."""
        return (self.parent.files_of(partition), self.parent.parts[partition]) if self.parent else ([], None)

    def _verify(self, done: list[FoldResult]) -> Manifest:
        check = sst_files.check_files if self.verify_all else sst_files.check_sizes
        left = [file for part in done if part.linked or self.verify_all for file in part.files]  # by the folds' tasks
        work = [FileOrder(left[at].partition, left[at : at + LOOKED_AT]) for at in range(0, len(left), LOOKED_AT)]
        self.ctx.run("verify", partial(check, where=self.target), work)
        table = self.table
        return Manifest(
            name=self.name, table=table.name, topic=table.topic, epoch=table.epoch, partitions=table.partitions,
            max_value_bytes=table.max_value_bytes, kind=self.kind, parent=self.parent.name if self.parent else None,
            created_ms=self.created_ms, verified_ms=time.time_ns() // 1_000_000, job=self.job,
            build=logstore.__version__,
            parts=self._with_epochs({partition: part.facts for partition, part in enumerate(done)}),
            files=[file for part in done for file in part.files], splits=table.splits,
        )  # fmt: skip

    def _with_epochs(self, parts: dict[int, PartFacts]) -> dict[int, PartFacts]:
        """The parts with the leader epochs of their last records.

        Raises LogTruncated when the log does not have one of those records any more: it lost its end meanwhile.
        """
        lasts = {partition: RecordIdentity.parse(part.last) for partition, part in parts.items()}
        found = records_from(
            self.ctx.bootstrap, self.table.topic, {p: last.offset for p, last in lasts.items() if last is not None}
        )
        for partition, last in lasts.items():
            there = found.get(partition)
            if last is None or there is None or there.identity.offset > last.offset:  # trimmed, or nothing there
                continue
            if there.identity != last:
                raise LogTruncated(
                    f"the record at offset {last.offset:,} of {self.table.name}/{partition} is not the one that was "
                    "folded: the log lost its end meanwhile and was written to again; "
                    f"`logstore table repair {self.table.name} --partition {partition}` shows the way on"
                )
            parts[partition] = parts[partition]._replace(leader_epoch=there.leader_epoch)
        return parts

    def _publish(self, manifest: Manifest) -> int:
        """Make it count, then clean up behind it; returns how many snapshots went."""
        self.ctx.progress("publish", 0, 1)
        self._drop_leftovers(manifest)
        failpoints.crash("compact:5")
        self.repository.publish(manifest, looked_at=True)
        failpoints.crash("publisher:5")
        if not self.repository.holds(self.job):
            raise Conflict(
                f"another job took table {self.table.name} while this one worked; snapshot {manifest.name} does not "
                "count, run "
                "this one again"
            )
        why, upon = f"{self.kind} {self.job}", manifest.parent if self.kind == "compact" else None
        pointer: Pointer = self.repository.move(self.expected, manifest.name, why, upon=upon, anew=upon is None)
        if pointer.name != manifest.name:
            raise Corrupted(f"the pointer names {pointer.name} after it was moved to {manifest.name}")
        removed = self._collect(pointer, manifest)
        self.ctx.progress("publish", 1, 1)
        return removed

    def _collect(self, pointer: Pointer, manifest: Manifest) -> int:
        """The snapshot is there, whatever is wrong with the old ones."""
        base = [self.table.base["snapshot"]] if self.table.base else []
        try:
            known = [manifest, *([self.parent] if self.parent else [])]
            done = self.repository.gc(self.table.keep_snapshots, extra_keep=base, pointer=pointer, known=known)
            return len(done.snapshots)
        except Corrupted as error:
            self.warnings.append(f"old snapshots stay: {error}")
            return 0

    def _drop_leftovers(self, manifest: Manifest) -> None:
        """Files of attempts that died while Spark tried their task again, or that were merged; all others are there."""
        named, there = {file.path for file in manifest.files}, self.ctx.storage.list(f"{self.target.root}/{self.name}")
        gone = {path for path in named if path.startswith(f"{self.name}/")} - {
            f"{self.name}/{child}" for child in there
        }
        if gone:
            raise Corrupted(f"{min(gone)} is missing; run the job again")
        for child in there:
            if child.endswith(".sst") and f"{self.name}/{child}" not in named:
                self.ctx.storage.remove(f"{self.target.root}/{self.name}/{child}")
