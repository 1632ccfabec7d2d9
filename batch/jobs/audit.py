"""Audit: proves that the snapshot and the nodes hold what the log says, or names what differs.

    1 cut       append a `cut` control record; every node computes a digest there
    2 archive   the log below the cut
    3 fold      from offset 0 (a restored table: from its base), once, to digests: at the snapshots' cuts, and at the
                new one
    4 judge     every snapshot that a view may begin from: its digest; of the current one also, read back, its files;
                every node: its digest at the new cut. The word on the snapshots is written down, and settles what nodes
                say of them
    5 explain   (when asked) which keys differ

The table's lease is held until the log is archived. Then a mark keeps what is read (`Repository.reading`): compactions
go on, nothing is trimmed. Nothing is changed but for the cut records, which change no row, and the verdicts
(`logstore.snapshot.verdicts`).
"""

import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from batch.context import Clock, Context, new_id
from batch.defaults import NODES_S
from batch.jobs import job_size, node_digests
from batch.jobs.archive import archive_leased
from batch.jobs.node_digests import Heard, Testimony
from batch.tasks import compare
from batch.tasks.sst_files import SstTarget
from logstore.log.control import append_control
from logstore.log.read.ranges import committed_ends
from logstore.model.errors import Corrupted, LogTruncated
from logstore.model.position import Position
from logstore.model.table import Table
from logstore.snapshot.manifest import Manifest
from logstore.snapshot.verdicts import AGREE as AGREES
from logstore.snapshot.verdicts import AUDIT as HOW
from logstore.snapshot.verdicts import AUDITOR, FROM_LOG, REFUSE, Verdict
from logstore.snapshot.work import Comparison, DigestOrder, FoldOrder, GuiltyKey, PartDigest, ServedOrder, SnapshotOrder

AGREE, DIFFER, UNKNOWN, NOT_COMPARED = "agree", "differ", "unknown", "not compared"
_PARTITION = re.compile(r"partition (\d+):|[^ ]+ \(partition (\d+)\)")

Folded = dict[int, PartDigest]  # by partition


@dataclass
class Suspect:
    """A snapshot's partition, or a node's view of it, compared with the fold."""

    name: str
    partition: int
    verdict: str
    reason: str = ""
    url: str | None = None  # of the node; None: a snapshot, or nobody
    counts: dict[str, int] = field(default_factory=dict)  # of differing keys: missing, extra, different
    guilty: list[GuiltyKey] = field(default_factory=list)


@dataclass
class Audit:
    """Result of an audit."""

    table: Table
    cuts: dict[int, int]
    snapshot: Manifest | None
    folded: Folded
    problems: list[str]  # of the snapshot's files
    suspects: list[Suspect]
    seconds: dict[str, float] = field(default_factory=dict)

    def verdict(self, partition: int | None = None) -> str:
        """Verdict of one partition, or (None) of all: the worst of its suspects'."""
        those = {suspect.verdict for suspect in self.suspects if partition in (None, suspect.partition)}
        return next((verdict for verdict in (DIFFER, UNKNOWN) if verdict in those), AGREE)

    @property
    def position(self) -> Position:
        """Position up to which the log was folded."""
        return Position({(self.table.epoch, partition): cut for partition, cut in self.cuts.items()})


def audit(ctx: Context, table: Table, *, explain: bool = False, timeout_s: float = NODES_S) -> Audit:
    """Compare log, current snapshot and views; `timeout_s` is how long nodes are waited for.

    Raises JobRunning, LogTruncated, LogGap, EpochChanged, Corrupted (a damaged archive), Unsupported,
    StorageUnreachable, LogUnreachable.
    """
    return _AuditRun(ctx, table, explain, timeout_s).run()


class _AuditRun:
    """An audit from cut to verdict."""

    def __init__(self, ctx: Context, table: Table, explain: bool, timeout_s: float) -> None:
        self.ctx, self.table, self.explain, self.timeout_s = ctx, table, explain, timeout_s
        self.repository, self.index = ctx.repository(table), ctx.archive(table)
        self.where = compare.CompareSource(
            table, SstTarget(ctx.storage, f"{table.topic}/{table.epoch}/snapshots", ""), ctx.bootstrap
        )
        self.base = self.repository.manifest(table.base["snapshot"]) if table.base else None
        self.clock, self.job = Clock(), new_id()
        self.line = list[str]()  # snapshots that counted when it began
        self._digests: dict[tuple[int, int], PartDigest] = {}  # (partition, cut) -> of the fold

    def run(self) -> Audit:
        """The steps; other jobs have the table from the fold on, and what is read stays."""
        with ExitStack() as reading:
            with self.repository.lease(self.job, "audit", self.ctx.lease_s):
                mark = self.repository.reading("audit", self.job, self.table.base_snapshot, self.ctx.lease_s)
                reading.enter_context(mark)
                cuts, snapshot = self._begin()
                self.line = self.repository.line()
                older, damaged = self._older(snapshot, cuts) if snapshot else ([], [])
            with self.clock.step("fold"):
                self._fold_all(cuts, [*older, *([snapshot] if snapshot else [])])
                folded = self._folded_at(cuts)
            with self.clock.step("snapshot"):
                problems, suspects = self._snapshot(snapshot, cuts) if snapshot else ([], [])
                suspects += [*damaged, *self._others(older)]
            with self.clock.step("nodes"):
                suspects += self._nodes(cuts, folded)
        return Audit(self.table, cuts, snapshot, folded, problems, suspects, self.clock.seconds)

    def _begin(self) -> tuple[dict[int, int], Manifest | None]:
        """Cut, and archive up to there."""
        with self.clock.step("cut"):
            current = self.repository.current()
            snapshot = self.repository.manifest(current.name) if current else None
            cuts = self._cut()
            self._check_end(cuts, snapshot)
        with self.clock.step("start"):
            self.ctx.start(job_size.of_tail(self.index, self.base, cuts))
        with self.clock.step("archive"):
            archive_leased(self.ctx, self.table, self.job, cuts)
        return cuts, snapshot

    def _cut(self) -> dict[int, int]:
        if self.table.allow_control_records:
            return append_control(self.ctx.bootstrap, self.table, "cut", {"job": self.job, "table": self.table.name})
        return committed_ends(self.ctx.bootstrap, self.table)

    def _check_end(self, cuts: dict[int, int], snapshot: Manifest | None) -> None:
        for partition, part in snapshot.parts.items() if snapshot else ():
            if cuts[partition] < part.cut:
                raise LogTruncated(
                    f"the log of {self.table.name}/{partition} ends at {cuts[partition]:,}, before the snapshot at "
                    f"{part.cut:,}: the log "
                    "lost its end; `logstore batch restore` makes a table of what the snapshot holds"
                )

    def _part(self, partition: int, cut: int) -> FoldOrder:
        since = self.base.parts[partition].cut if self.base else 0
        files = self.base.files_of(partition) if self.base else []
        return FoldOrder(
            partition, since, cut, self.index.covering(partition, since, cut), files,
            base=self.base.parts[partition] if self.base else None,
            decisions=self.base.decisions_of(partition) if self.base else None,
        )  # fmt: skip

    def _fold_all(self, cuts: dict[int, int], snapshots: list[Manifest]) -> None:
        """Fold every partition once, up to its new cut, past the cuts of all snapshots."""
        work = []
        for partition, new in sorted(cuts.items()):
            at = sorted({new, *(one.parts[partition].cut for one in snapshots)})
            work.append(DigestOrder(self._part(partition, at[-1]), at))
        found = self.ctx.run("fold", partial(compare.fold_digests, where=self.where), work)
        for order, digests in zip(work, found, strict=True):
            for cut, one in zip(order.cuts, digests, strict=True):
                self._digests[order.fold.partition, cut] = one

    def _folded_at(self, cuts: dict[int, int]) -> Folded:
        return {partition: self._digests[partition, cut] for partition, cut in sorted(cuts.items())}

    def _older(self, snapshot: Manifest, cuts: dict[int, int]) -> tuple[list[Manifest], list[Suspect]]:
        """The rest of the line, and what a rebuild replaced; and those of the line whose manifest is damaged."""
        found: list[Manifest] = []
        damaged: list[Suspect] = []
        for name in self.repository.candidates():
            if name in (snapshot.name, self.table.base_snapshot):
                continue
            try:
                found.append(self.repository.manifest(name))
            except Corrupted as error:
                damaged += [
                    Suspect(f"snapshot {name}", p, DIFFER, str(error)) for p in sorted(cuts) if name in self.line
                ]
        return found, damaged

    def _others(self, older: list[Manifest]) -> list[Suspect]:
        """Judge older snapshots; what a rebuild replaced counts for nobody who is served now."""
        judged = [(one.name, self._judged_snapshot(one, {})) for one in older]
        return [suspect for name, suspects in judged if name in self.line for suspect in suspects]

    def _snapshot(self, snapshot: Manifest, cuts: dict[int, int]) -> tuple[list[str], list[Suspect]]:
        problems = self.repository.verify(snapshot.name)
        damaged = {partition: problem for problem in reversed(problems) for partition in _partitions(problem, cuts)}
        return problems, self._judged_snapshot(snapshot, damaged)

    def _judged_snapshot(self, snapshot: Manifest, damaged: dict[int, str]) -> list[Suspect]:
        """Compare a snapshot with the fold, write the verdict, and explain. Damage is no verdict: it may be mended."""
        folded = self._folded_at({partition: part.cut for partition, part in snapshot.parts.items()})
        self._say(snapshot, folded)
        name = f"snapshot {snapshot.name}"
        suspects: list[Suspect] = []
        for partition, mine in sorted(folded.items()):
            part = snapshot.parts[partition]
            suspects.append(
                _judged(Suspect(name, partition, AGREE), mine, PartDigest(part.digest, part.entries), f"{part.cut:,}")
            )
            if partition in damaged:
                suspects[-1].verdict, suspects[-1].reason = DIFFER, damaged[partition]
        self._explain_snapshot(snapshot, [suspect for suspect in suspects if suspect.verdict == DIFFER])
        return suspects

    def _say(self, snapshot: Manifest, folded: Folded) -> None:
        root = self.table.base_snapshot or FROM_LOG
        words = {
            partition: Verdict(AGREES if found == (part.digest, part.entries) else REFUSE, *found, part.cut, HOW, root)
            for partition, found in folded.items()
            for part in [snapshot.parts[partition]]
        }
        self.repository.verdicts().say(snapshot.name, AUDITOR, words)

    def _explain_snapshot(self, snapshot: Manifest, suspects: list[Suspect]) -> None:
        if not self.explain:
            return
        work = [
            SnapshotOrder(self._part(s.partition, snapshot.parts[s.partition].cut), snapshot.files_of(s.partition))
            for s in suspects
        ]
        _name(suspects, self.ctx.run("explain snapshot", partial(compare.compare_snapshot, where=self.where), work))

    def _nodes(self, cuts: dict[int, int], folded: Folded) -> list[Suspect]:
        heard = self._heard(cuts)
        suspects = [
            self._judge(partition, one, cuts, folded) for partition, those in sorted(heard.items()) for one in those
        ]
        suspects += [
            Suspect("nodes", p, UNKNOWN, "no node runs that serves it")
            for p, those in sorted(heard.items())
            if not those
        ]
        if self.explain:
            unclear = [suspect for suspect in suspects if suspect.verdict != AGREE and suspect.url is not None]
            work = [
                ServedOrder(self._part(s.partition, cuts[s.partition]), str(s.url), self.timeout_s) for s in unclear
            ]
            _name(unclear, self.ctx.run("explain views", partial(compare.compare_view, where=self.where), work))
        return suspects

    def _heard(self, cuts: dict[int, int]) -> Testimony:
        if self.table.allow_control_records:
            return node_digests.hear(self.ctx, self.table, cuts, self.timeout_s)
        return node_digests.hear(self.ctx, self.table, cuts, 0.0)

    def _judge(self, partition: int, heard: Heard, cuts: dict[int, int], folded: Folded) -> Suspect:
        suspect = Suspect(f"view of {heard.url or f'group {heard.group}'}", partition, AGREE, url=heard.url)
        if heard.digest is not None:
            return _judged(suspect, folded[partition], PartDigest(heard.digest, heard.entries), f"{cuts[partition]:,}")
        suspect.verdict, suspect.reason = UNKNOWN, heard.reason
        if not self.table.allow_control_records:
            suspect.verdict = NOT_COMPARED
            suspect.reason = (
                "the topic takes no control records, so no node knows the cut; --explain compares row by row"
            )
        return suspect


def _judged(suspect: Suspect, expected: PartDigest, found: PartDigest, cut: str) -> Suspect:
    if expected != found:
        suspect.verdict = DIFFER
        suspect.reason = (
            f"at {cut}: {found.entries:,} entries, digest {found.digest}; "
            f"the log has {expected.entries:,}, {expected.digest}"
        )
    return suspect


def _name(suspects: list[Suspect], compared: list[Comparison]) -> None:
    """Note the keys; a view whose rows differ does so whatever its digest was."""
    for suspect, found in zip(suspects, compared, strict=True):
        suspect.counts, suspect.guilty = found.counts, found.guilty
        if found.counts:
            suspect.verdict = DIFFER
        elif suspect.verdict == NOT_COMPARED and not found.why:
            suspect.verdict, suspect.reason = AGREE, "compared row by row"
        if found.why:
            suspect.reason = f"{suspect.reason}; not all of it could be read: {found.why}"


def _partitions(problem: str, cuts: dict[int, int]) -> list[int]:
    """Partitions that a problem found by `verify` concerns; all, when it does not say."""
    match = _PARTITION.match(problem)
    return [int(match[1] or match[2])] if match else sorted(cuts)
