"""Idle partitions: those to which nothing but cuts has come since a snapshot, so nothing has to be folded for them.

Their cuts are not archived either, a file for every partition and run, before there are MOST of them: the archive of an
idle partition ends a little before the snapshot's cut.
"""

from collections.abc import Mapping

from batch.context import Context
from logstore.log.read.cut_tails import CutTail, only_cuts
from logstore.model.record_identity import RecordIdentity
from logstore.model.table import Table
from logstore.snapshot.archive.index import ArchiveIndex
from logstore.snapshot.manifest import Manifest, PartFacts
from logstore.snapshot.work import FoldResult

MOST = 64  # records that an archive lags behind, and that one look reads of a partition


def may_be_unchanged(base: Manifest, ends: Mapping[int, int]) -> bool:
    """False where something came to a partition that is more than the base's own cut: what that is need not be read."""
    return all(part.cut <= ends[partition] <= part.cut + 1 for partition, part in base.parts.items())


def idle(
    ctx: Context, table: Table, base: Manifest, ends: Mapping[int, int], index: ArchiveIndex
) -> dict[int, PartFacts]:
    """Facts of the idle partitions, as of `ends`; none of a log that lost its end. Raises LogUnreachable, Corrupted."""
    archived = index.next_offsets()
    short = {
        partition: part
        for partition, part in base.parts.items()
        if ends[partition] >= part.cut and ends[partition] - min(part.cut, archived.get(partition, 0)) <= MOST
    }
    lasts = {partition: RecordIdentity.parse(part.last) for partition, part in short.items()}
    before = {p: last for p, last in lasts.items() if last is not None and last.offset == short[p].cut - 1}
    ranges = {p: (part.cut, ends[p]) for p, part in short.items() if p in before or part.cut == 0 < ends[p]}
    cuts = only_cuts(ctx.bootstrap, table.topic, ranges, before)
    never = {p: part for p, part in short.items() if part.cut == ends[p] == 0}
    return never | {p: _moved(short[p], ends[p], tail) for p, tail in cuts.items()}


def archived_below(ctx: Context, table: Table, below: Mapping[int, int]) -> dict[int, int]:
    """Offsets of `below`, but those where the archive ends where only cuts follow: there, the archive's end."""
    archived = ctx.archive(table).next_offsets()
    ranges = {p: (archived.get(p, 0), end) for p, end in below.items() if 0 < end - archived.get(p, 0) <= MOST}
    cuts = only_cuts(ctx.bootstrap, table.topic, ranges)
    return {p: archived.get(p, 0) if p in cuts else end for p, end in below.items()}


def linked(base: Manifest, partition: int, facts: PartFacts) -> FoldResult:
    """Outcome of a fold that an idle partition does not need."""
    return FoldResult(facts, base.all_files_of(partition), True, facts.cut - base.parts[partition].cut)


def may_end(table: Table, before: PartFacts, now: PartFacts) -> bool:
    """True where rows, outcomes or ids may have left the state meanwhile, for log time went on."""
    may = before.decisions > 0 or (table.expiring and before.entries > 0)
    return may and now.log_time_ms > before.log_time_ms


def _moved(part: PartFacts, cut: int, tail: CutTail) -> PartFacts:
    if cut == part.cut:
        return part
    return part._replace(
        cut=cut, log_time_ms=max(part.log_time_ms, tail.log_time_ms), last=tail.last.text, leader_epoch=-1
    )
