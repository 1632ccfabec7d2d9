"""Archive: copy the log to Parquet, exactly once, in rounds that survive a kill.

Each round: 1 take the next stretches of every partition, 2 executors write them, 3 check that they cover what was
wanted, 4 commit them with one manifest. A run that is killed leaves whole rounds; the next one goes on behind them and
removes what no manifest names.
"""

from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from batch import failpoints, task_groups
from batch.context import Clock, Context, new_id
from batch.jobs import job_size
from batch.tasks import segments
from logstore.log.kafka import clients, offsets
from logstore.log.read.leader_epochs import records_from
from logstore.log.read.ranges import committed_ends
from logstore.model.errors import Conflict, Corrupted, LogTruncated
from logstore.model.record_identity import RecordIdentity
from logstore.model.skips import first_missing
from logstore.model.table import Table
from logstore.snapshot.archive.index import ArchiveIndex
from logstore.snapshot.archive.segment import Segment
from logstore.snapshot.archive.segment_file import verify_segment
from logstore.snapshot.storage import Storage
from logstore.snapshot.work import OffsetRange

ROUND_RECORDS = 4_000_000
CHUNK_RECORDS = 500_000
GROUP_RECORDS = 4_096  # of short stretches that one task archives together


@dataclass
class Archived:
    """Segments and positions that a run archived."""

    records: int = 0
    size_bytes: int = 0
    rounds: int = 0
    upto: dict[int, int] = field(default_factory=dict)  # partition -> next offset that is not archived
    removed: int = 0  # leftovers of killed attempts
    seconds: dict[str, float] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """JSON document of the run."""
        taken = self.seconds.get("archive", 0.0)
        return {
            "records": self.records, "size_bytes": self.size_bytes, "rounds": self.rounds, "removed": self.removed,
            "records_per_s": round(self.records / taken) if taken and self.records else 0,
            "upto": {str(partition): offset for partition, offset in sorted(self.upto.items())},
            "seconds": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
        }  # fmt: skip


def archive(ctx: Context, table: Table, upto: dict[int, int] | None = None) -> Archived:
    """Archive a table's log up to `upto` (None: all that is committed now), under a lease of its own.

    Raises JobRunning, LogTruncated, LogGap, EpochChanged, StorageUnreachable, Conflict.
    """
    if (done := _unleased(ctx, table, upto)) is not None:
        return done
    job = new_id()
    with ctx.repository(table).lease(job, "archive", ctx.lease_s):
        return archive_leased(ctx, table, job, upto)


def _unleased(ctx: Context, table: Table, upto: dict[int, int] | None) -> Archived | None:
    """The outcome where nothing is new: to say so takes no lease, which would be a file."""
    clock, index = Clock(), ctx.archive(table)
    with clock.step("plan"):
        now = committed_ends(ctx.bootstrap, table)
        try:
            archived = index.next_offsets()
        except Conflict:  # another job removed what was looked at: the lease says which
            return None
        if _round(_checked(table, archived, now), now if upto is None else upto, {}) or index.has_killed():
            return None
    return Archived(upto=archived, seconds=clock.seconds)


def archive_leased(
    ctx: Context, table: Table, job: str, upto: dict[int, int] | None = None, index: ArchiveIndex | None = None
) -> Archived:
    """Archive, as `archive` does, for a job that holds the lease, and may have read the index."""
    clock, done = Clock(), Archived()
    index = index or ctx.archive(table)
    with clock.step("plan"):
        index.hold()
        now = committed_ends(ctx.bootstrap, table)
        ends = now if upto is None else upto
        reached = _checked(table, index.next_offsets(), now)
        lasts = _to_look_at(ctx, table, index.lasts())
        done.removed = len(index.collect_killed())
    while chunks := _round(reached, ends, lasts):
        with clock.step("start"):
            ctx.start(job_size.of_ranges(reached, ends))
            index.begin(job)
        with clock.step("archive"):
            copied = _extract(ctx, table, job, chunks)
            index.append(copied, job, lambda: ctx.repository(table).holds(job))
        failpoints.crash("archive:round")
        done.rounds += 1
        done.records += sum(segment.records for segment in copied)
        done.size_bytes += sum(segment.size_bytes for segment in copied)
        reached |= {chunk.partition: chunk.end for chunk in chunks}
        lasts = {}  # this very job wrote what comes before
    if done.rounds:
        index.end(job)
        done.removed += len(index.tidy(job))
    done.upto, done.seconds = index.next_offsets(), clock.seconds
    return done


def verify_archive(ctx: Context, table: Table) -> dict[str, int]:
    """Read the whole archive back.

    Returns {"segments", "records", "size_bytes"}. Raises Corrupted that names the file.
    """
    index = ctx.archive(table)
    archived = index.segments()
    ctx.start(job_size.of_segments(archived))
    ctx.run("verify", partial(verify_segment, storage=ctx.storage, skips=table.skips), archived)
    return {
        "segments": len(archived), "records": sum(s.records for s in archived),
        "size_bytes": sum(s.size_bytes for s in archived),
    }  # fmt: skip


@dataclass
class Repaired:
    """Outcome of a repair; `replaced` false: the archive was whole."""

    segments: int
    given_up: int
    upto: dict[int, int]
    replaced: bool


def repair_archive(ctx: Context, table: Table) -> Repaired:
    """Cut the archive back to what is whole, where the log still holds the rest: the next run archives that again.

    Records that the log lost are not whole, once the loss was accepted.

    Raises LogTruncated, and changes nothing, when it does not; JobRunning (also while an audit or a restore
    reads), StorageUnreachable, LogUnreachable.
    """
    job = new_id()
    with ctx.repository(table).lease(job, "archive --repair", ctx.lease_s):
        ctx.repository(table).check_unread(ctx.lease_s)
        index = ctx.archive(table)
        known = index.readable()
        ctx.start(job_size.of_segments(known))
        sound = ctx.run("verify", partial(_is_sound, storage=ctx.storage, skips=table.skips), known)
        lost = _lost(ctx, table, known)
        reach: dict[int, int] = {}
        left: list[Segment] = []
        for segment, fine in zip(known, sound, strict=True):
            if fine and segment not in lost and segment.start == reach.get(segment.partition, 0):
                reach[segment.partition] = segment.end
                left.append(segment)
        upto = {partition: reach.get(partition, 0) for partition in range(table.partitions)}
        try:
            whole = index.segments() == left
        except Corrupted:
            whole = False
        if whole:
            return Repaired(len(left), 0, upto, replaced=False)
        bounds = offsets.bounds(clients.admin(ctx.bootstrap), table.topic, list(upto))
        for partition, offset in upto.items():
            if bounds[partition].start > offset:
                raise LogTruncated(
                    f"the archive of {table.name}/{partition} is whole up to {offset:,}, and the log begins at "
                    f"{bounds[partition].start:,}: offsets {offset:,} to {bounds[partition].start - 1:,} are nowhere; "
                    "nothing "
                    f"was changed; `logstore batch archive {table.name} --verify` names what is damaged, bring it back "
                    "from "
                    "a copy of the storage"
                )
        index.replace(left, job)
    return Repaired(len(left), len(known) - len(left), upto, replaced=True)


def _lost(ctx: Context, table: Table, known: list[Segment]) -> set[Segment]:
    """The segments whose last record the log has lost, of partitions that have accepted a loss below it.

    What was trimmed since cannot be compared, and stays.
    """
    found = set[Segment]()
    for partition, starts in table.losses.items():
        log = offsets.bounds(clients.admin(ctx.bootstrap), table.topic, [partition])[partition]
        for segment in known:
            last = RecordIdentity.parse(segment.last)
            behind = segment.partition == partition and segment.end > min(at for at, _ in starts)
            if behind and last is not None and last.offset >= log.start:
                there = records_from(ctx.bootstrap, table.topic, {partition: last.offset}).get(partition)
                if there is None or there.identity != last:
                    found.add(segment)
    return found


def _is_sound(segment: Segment, storage: Storage, skips: dict[int, list[tuple[int, int]]]) -> bool:
    try:
        verify_segment(segment, storage, skips)
    except Corrupted:
        return False
    return True


def _checked(table: Table, archived: dict[int, int], ends: dict[int, int]) -> dict[int, int]:
    """Offsets at which archiving goes on; raises LogTruncated when the log ends before the archive does."""
    reached = {partition: archived.get(partition, 0) for partition in range(table.partitions)}
    for partition, end in ends.items():
        if end < reached[partition]:
            raise LogTruncated(
                f"the log of {table.name}/{partition} ends at {end:,}, the archive holds everything before "
                f"{reached[partition]:,}: the log lost its end (an unclean leader election?); "
                f"{segments.way_out(table, partition)}"
            )
    return reached


def _to_look_at(ctx: Context, table: Table, lasts: dict[int, str]) -> dict[int, str]:
    """The last archived records that the log must still have.

    Those that were neither trimmed nor given up in a repair.
    """
    bounds = offsets.bounds(clients.admin(ctx.bootstrap), table.topic, list(range(table.partitions)))
    found = {}
    for partition, last in lasts.items():
        offset = int(last.partition("-")[0])
        if (
            offset >= bounds[partition].start
            and first_missing(range(offset, offset + 1), table.skips.get(partition, [])) is not None
        ):
            found[partition] = last
    return found


def _round(reached: dict[int, int], ends: dict[int, int], lasts: dict[int, str]) -> list[OffsetRange]:
    """The stretches of one round: of every partition alike, of each at most its share."""
    open_ends = {p: end for p, end in ends.items() if end > reached[p]}
    if not open_ends:
        return []
    share = max(1, ROUND_RECORDS // len(open_ends))
    chunks: list[OffsetRange] = []
    for partition, end in sorted(open_ends.items()):
        start, stop = reached[partition], min(end, reached[partition] + share)
        pieces = -(-(stop - start) // CHUNK_RECORDS)
        bounds = [start + (stop - start) * piece // pieces for piece in range(pieces + 1)]
        chunks += [
            OffsetRange(partition, a, b, lasts.get(partition, "") if a == start else "") for a, b in pairwise(bounds)
        ]
    return chunks


def _extract(ctx: Context, table: Table, job: str, chunks: list[OffsetRange]) -> list[Segment]:
    work = partial(segments.extract_group, bootstrap=ctx.bootstrap, table=table, storage=ctx.storage, job=job)
    most = min(GROUP_RECORDS, segments.FILE_BYTES // table.max_value_bytes)  # what comes may be of any size allowed
    groups = task_groups.grouped(chunks, lambda chunk: chunk.end - chunk.start, most, ctx.at_once())
    copied = task_groups.flattened(ctx.run("archive", work, groups))
    _covered(chunks, copied)
    return copied


def _covered(chunks: list[OffsetRange], copied: list[Segment]) -> None:
    """Requires: the copied segments lie end to end over the chunks."""
    wanted = sorted((chunk.partition, chunk.start, chunk.end) for chunk in chunks)
    given = sorted((segment.partition, segment.start, segment.end) for segment in copied)
    starts = {(partition, start) for partition, start, _ in wanted}
    for before, after in pairwise(given):
        assert before[::2] == after[:2] or after[:2] in starts, "segments of a stretch follow each other"
    assert sum(end - start for _, start, end in wanted) == sum(end - start for _, start, end in given), (
        "every offset is in a segment"
    )


__all__ = ["ArchiveIndex", "Archived", "archive", "archive_leased", "verify_archive"]
