"""Trim: delete the part of a log that snapshot and archive hold; both are read back first.

The log is shortened to the cut of the newest snapshot that counts, or of the one before it where the topic takes no
control records. The first snapshot after a rebuild has the newest proved one of the line before for its predecessor.
Nodes are asked what they stand on: one that has not come as far folds from there to prove the next
snapshot, so nothing above its base goes; one that does not answer is not waited for, it goes on from a proved snapshot
when it is back. Both are verified, neither may be refused, and every partition of the newest one must be proved: by a
node whose own fold agrees, or by an audit. Every archived file of what is deleted is verified. Views are made from the
snapshot then, `rebuild` and `audit` from the archive.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from batch.context import Context, new_id
from batch.jobs import idle_partitions, job_size
from batch.jobs.node_adoptions import asked_at
from logstore.log import topics
from logstore.log.kafka import clients, offsets
from logstore.log.membership.live_workers import LiveWorkers
from logstore.model.errors import Corrupted, LogUnreachable, NotTrimmable
from logstore.model.position import Position
from logstore.model.table import Table
from logstore.snapshot.archive.segment_file import verify_segment
from logstore.snapshot.manifest import Manifest
from logstore.snapshot.repository import Repository
from logstore.snapshot.verdicts import REFUSED
from logstore.view.feed.adoption_records import AdoptionRecord


@dataclass
class Trimmed:
    """Offsets that a run deleted, or (`done` false) would delete."""

    table: Table
    snapshot: str
    predecessor: str
    starts: dict[int, int]  # partition -> where its log began before
    below: dict[int, int]  # partition -> everything below goes
    done: bool
    notes: list[str]  # which nodes hold it up, or said nothing

    @property
    def records(self) -> int:
        """Count of offsets that go."""
        return sum(max(0, end - self.starts[partition]) for partition, end in self.below.items())

    def document(self) -> dict[str, Any]:
        """JSON document of the run."""
        return {
            "table": self.table.name, "snapshot": self.snapshot, "predecessor": self.predecessor, "trimmed": self.done,
            "records": self.records, "notes": self.notes,
            "below": {str(partition): offset for partition, offset in sorted(self.below.items())},
            "position": Position({(self.table.epoch, p): offset for p, offset in self.below.items()}).token,
        }  # fmt: skip


def trim(ctx: Context, table: Table, *, yes: bool = False, adopted_too: bool = False) -> Trimmed:
    """Verify, and with `yes` delete.

    Raises NotTrimmable with the reason why not, JobRunning, StorageUnreachable, LogUnreachable.
    """
    if table.adopted and not adopted_too:
        raise NotTrimmable(
            f"the topic {table.topic} of table {table.name} was adopted: others may read it; say --adopted-too if its "
            "records may go"
        )
    repository = ctx.repository(table)
    with repository.lease(new_id(), "trim", ctx.lease_s):
        repository.check_unread(ctx.lease_s)
        predecessor, newest = _two(table, repository)
        reach = (
            newest if table.allow_control_records else predecessor
        )  # without cuts in the log nodes fold it again to prove the newest
        below = {partition: part.cut for partition, part in reach.parts.items()}
        below = idle_partitions.archived_below(ctx, table, below)
        starts = _starts(ctx, table)
        _check_archive(ctx, table, starts, below)
        _check_verdicts(table, repository, predecessor, newest, reach)
        for snapshot in (predecessor, newest):
            _check_snapshot(repository, snapshot)
        below, notes = _reached_by_nodes(ctx, table, below)
        if yes:
            _delete(ctx, table, {partition: end for partition, end in below.items() if end > starts[partition]})
    return Trimmed(table, newest.name, predecessor.name, starts, below, yes, notes)


def _two(table: Table, repository: Repository) -> tuple[Manifest, Manifest]:
    """The current snapshot's predecessor, and the current snapshot."""
    names = [*_former(table, repository), *repository.line()]
    if len(names) < 2:
        raise NotTrimmable(
            f"table {table.name} has {'one snapshot only' if names else 'no snapshot'}: the log is what it could be "
            "made from again; "
            f"`logstore batch compact {table.name}` makes one more"
        )
    try:
        return repository.manifest(names[-2]), repository.manifest(names[-1])
    except Corrupted as error:
        raise NotTrimmable(f"a snapshot of table {table.name} is damaged: {error}") from error


def _former(table: Table, repository: Repository) -> list[str]:
    """The newest proved snapshot that a rebuild replaced: a way back until the new line has one of its own."""
    verdicts, now = repository.verdicts(table.base_snapshot), repository.current()
    published = set(repository.names())
    for name in reversed(now.former if now else ()):
        if name in published and verdicts.of(name):
            try:
                if not verdicts.lacking(repository.manifest(name)):
                    return [name]
            except Corrupted:
                continue
    return []


def _check_verdicts(
    table: Table, repository: Repository, predecessor: Manifest, newest: Manifest, reach: Manifest
) -> None:
    """Check that nobody refuses either, and that the newest and the reached one are proved. Raises NotTrimmable."""
    verdicts = repository.verdicts(table.base_snapshot)
    for snapshot in (predecessor, newest):
        proof = verdicts.whole(snapshot.name, snapshot.parts)
        if proof.word == REFUSED:
            raise NotTrimmable(
                f"snapshot {snapshot.name} of table {table.name} is refused, and must not stand for the log: "
                f"{proof.why}; "
                f"`logstore batch audit {table.name} --explain` settles who is wrong"
            )
    for snapshot in (newest, reach):
        if lacking := verdicts.lacking(snapshot):
            why = verdicts.proof(snapshot.name, lacking[0]).why
            raise NotTrimmable(
                f"snapshot {snapshot.name} of table {table.name} is unproved in {len(lacking):,} partitions: {why}; "
                f"nodes prove it when they take it over, `logstore batch audit {table.name}` does without them"
            )


def _reached_by_nodes(ctx: Context, table: Table, below: dict[int, int]) -> tuple[dict[int, int], list[str]]:
    """Offsets of `below`, but for what nodes still fold from; and what is said of nodes. Raises LogUnreachable."""
    found = dict(below)
    notes: list[str] = []
    with LiveWorkers(ctx.bootstrap) as live_workers:
        urls = sorted({worker.url for worker in live_workers.look()})
    for url in urls:
        reported = asked_at(url, table)
        if reported is None:
            notes.append(f"{url} does not answer; when it is back it goes on from a proved snapshot")
            continue
        held = {p: one for p, one in sorted(reported.items()) if p in below and (one.cut or 0) < below[p]}
        found.update({p: min(found[p], one.cut or 0) for p, one in held.items()})
        notes += [_held_up(url, table, held)] if held else []
    return found, notes


def _held_up(url: str, table: Table, held: dict[int, AdoptionRecord]) -> str:
    (partition, one), more = next(iter(held.items())), len(held) - 1
    stands = "on no snapshot" if one.base is None or one.cut is None else f"on {one.base}, cut {one.cut:,}"
    where = f"partition {partition}{f' and so in {more:,} more' if more else ''}"
    return (
        f"{url} stands {stands} in {where}, so the log above stays{f': {one.reason}' if one.reason else ''}; `logstore "
        f"status` shows when it has adopted the current snapshot of {table.name}"
    )


def _starts(ctx: Context, table: Table) -> dict[int, int]:
    found = offsets.bounds(clients.admin(ctx.bootstrap), table.topic, list(range(table.partitions)))
    return {partition: bounds.start for partition, bounds in found.items()}


def _check_snapshot(repository: Repository, snapshot: Manifest) -> None:
    problems = repository.verify(snapshot.name)
    if problems:
        raise NotTrimmable(
            f"snapshot {snapshot.name} is damaged: {problems[0]}"
            + (f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else "")
            + f"; `logstore batch rebuild {snapshot.table}` makes a sound one while the log is there"
        )  # fmt: skip


def _check_archive(ctx: Context, table: Table, starts: dict[int, int], below: dict[int, int]) -> None:
    """Check that the part to delete is archived, and that its files read back as they were written."""
    try:
        index = ctx.archive(table)
        archived = [segment for p, end in sorted(below.items()) for segment in index.covering(p, starts[p], end)]
        ctx.start(job_size.of_segments(archived))
        ctx.run("verify", partial(verify_segment, storage=ctx.storage, skips=table.skips), archived)
    except Corrupted as error:
        raise NotTrimmable(f"the archive of table {table.name} does not hold what would go: {error}") from error


def _delete(ctx: Context, table: Table, below: dict[int, int]) -> None:
    if not below:
        return
    topics.truncate(clients.admin(ctx.bootstrap), table.topic, below)
    starts = _starts(ctx, table)
    short = [partition for partition, offset in below.items() if starts[partition] < offset]
    if short:
        raise LogUnreachable(f"Kafka did not delete the records of {table.topic} in the partitions {short}; try again")
