"""Adopter: the thread of a worker that takes over snapshots, one partition at a time.

All of its waiting is its own, never the lane's.

    1. agree    this node's digest at the snapshot's cut is the snapshot's; if not, nothing is adopted and the reason is
                shown (`agreement`). Where no pin was had at the cut, the log is folded again up to there (`refold`).
                The word outlives this process (`logstore.snapshot.verdicts`), and what anybody refused is not adopted
                until an audit settles it
    2. fetch    the files of the partition, checked against the manifest (`snapshot_fetcher.SnapshotFetcher.bring`)
    3. build    the next generation beside the one in use (`logstore.view.generation`, in the digester)
    4. flip     between two batches of the lane (`flip`)
    5. sweep    generations and local snapshots that nobody is told of any more, some time later

A view whose next record is gone from the log leaps to a snapshot that lies ahead. One that is further, but stands on
nothing that the log still goes on from, takes over a proved snapshot in between on the word of others. A view that
began with a snapshot which was refused since begins again, where it can. A pointer that was moved back changes
nothing here: the newer snapshot agreed with this node's own fold, and a position never goes back; nodes that begin anew
begin where the pointer shows.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from logstore.model.errors import (
    LogStoreError,
    LogTruncated,
    NotYet,
    StorageUnreachable,
)
from logstore.model.table import PartitionKey, Table
from logstore.process import logs
from logstore.process.progress import Patience, Progress
from logstore.snapshot.manifest import Manifest
from logstore.snapshot.repository import Pointer
from logstore.snapshot.verdicts import (
    PROVED,
    REFUSED,
    Proof,
)
from logstore.view import generation
from logstore.view.feed.acknowledgement import SnapshotPlace
from logstore.view.layout import Quarantine
from streaming.adoption import flip, reasons
from streaming.adoption.agreement import Agreement
from streaming.adoption.base_mender import BaseMender
from streaming.adoption.beginning import beginnings, cut_of
from streaming.adoption.discards import Discards
from streaming.adoption.flip import Step
from streaming.adoption.progress import AdoptionProgress
from streaming.adoption.snapshot_fetcher import SnapshotFetcher
from streaming.digest import digest_file
from streaming.digest.client import DigestClient, PendingDigest
from streaming.digest.digester import DigestRequest
from streaming.lane.disk import local_snapshots
from streaming.lane.disk.opened_view import Bootstrap, identity_of
from streaming.lane.lane import Lane
from streaming.lane.partition import FollowedPartition
from streaming.lane.target import Target

log = logs.get(__name__)

NEAR_S, FAR_S = 1.0, 5.0  # between two looks at a storage that is a disk here, or is not
WATCH_S = 0.1  # between two glances at whether a pointer on a disk here has moved, which calls for a look at once
MOST_S = 60.0
BUILD_S = 120.0  # without a sign of work of the digester: a large generation takes its time
SWEEP_S = 10.0  # readers follow the feed within milliseconds; a reader that is busy for so long is stuck


class _Trial(NamedTuple):
    """Attempts at one partition that came to nothing."""

    failures: int
    again_s: float


class Adopter(threading.Thread):
    """The adopter's thread; runs until `close`."""

    def __init__(
        self,
        bootstrap: str,
        lane: Lane,
        fetcher: SnapshotFetcher,
        digest_client: DigestClient,
        progress: AdoptionProgress,
        damaged: Callable[[], list[SnapshotPlace]],
        log_start: Callable[[str, int], int],
        discards: Discards,
    ) -> None:
        """`damaged`: the snapshots that readers have found damaged. `log_start`: as of `Bootstrapper`."""
        super().__init__(name="adopter", daemon=True)
        self._log_start, self._discards = log_start, discards
        self._bases = BaseMender(lane.mailbox, fetcher, damaged)
        self._closing = threading.Event()
        self._agreement = Agreement(
            bootstrap, fetcher, progress, self._bases, log_start, self._closing, digest_client.worked
        )
        self._lane, self._fetcher, self._digest_client, self._progress = lane, fetcher, digest_client, progress
        self._seen: dict[PartitionKey, float] = {}  # when a generation was first seen or flipped, of a monotonic clock
        self._trials: dict[PartitionKey, _Trial] = {}
        self._marks: dict[str, int] = {}  # epoch -> `SnapshotFetcher.pointer_mark` as it was seen last
        self.beat_s = time.monotonic()

    def close(self) -> None:
        """Stop; what is half done is done again by the next worker."""
        self._closing.set()
        self.join(5)

    def run(self) -> None:
        """The thread. What fails is shown and tried again: a partition that cannot adopt goes on serving as it is."""
        patience_s, due_s = NEAR_S, time.monotonic() + NEAR_S
        while not self._closing.wait(min(self._pause_s(), max(due_s - time.monotonic(), 0.0))):
            self.beat_s = time.monotonic()
            self._discards.take(self._lane)
            if not self._has_moved() and time.monotonic() < due_s:
                continue
            least_s = NEAR_S if self._fetcher.near else FAR_S
            patience_s = least_s if self._look() else min(max(patience_s, least_s) * 2, MOST_S)
            due_s = time.monotonic() + patience_s

    def _pause_s(self) -> float:
        return WATCH_S if self._fetcher.near else NEAR_S

    def _has_moved(self) -> bool:
        """True when a table's pointer has moved since the last time that this was asked; not known of a far storage."""
        if not self._fetcher.near:
            return False
        tables = {one.target.table.epoch: one.target.table for one in self._lane.followed()}
        before, self._marks = self._marks, {epoch: self._fetcher.pointer_mark(t) for epoch, t in tables.items()}
        return any(before.get(epoch) != mark for epoch, mark in self._marks.items())

    def _look(self) -> bool:
        """Look at all followed partitions once; False when the storage did not answer for one."""
        followed = self._lane.followed()
        self._seen = {f.target.key: self._seen.get(f.target.key, time.monotonic()) for f in followed}
        if self._fetcher.url is None:
            return True
        found: dict[str, Pointer | LogStoreError | None] = {}
        for one in followed:
            table = one.target.table
            if table.epoch not in found:
                found[table.epoch] = self._current(table)
            if self._closing.is_set():
                return True
            self._try(one, found[table.epoch])
            self._agreement.say_when_due()
        return self._agreement.say() and not any(isinstance(pointer, StorageUnreachable) for pointer in found.values())

    def _current(self, table: Table) -> Pointer | LogStoreError | None:
        try:
            return self._fetcher.current(table)
        except LogStoreError as error:
            return error

    def _try(self, followed: FollowedPartition, pointer: Pointer | LogStoreError | None) -> None:
        target = followed.target
        trial = self._trials.get(target.key, _Trial(0, 0.0))
        if time.monotonic() < trial.again_s:
            return
        try:
            if isinstance(pointer, LogStoreError):
                raise pointer
            self._step(followed, pointer)
        except NotYet as error:
            self._again(target, trial, "waiting", str(error))
        except (LogStoreError, OSError) as error:
            log.warning(
                "a snapshot is not adopted", table=target.table.name, partition=target.partition, reason=str(error)
            )
            self._again(target, trial, "refused", str(error))
        else:
            self._trials.pop(target.key, None)

    def _again(self, target: Target, trial: _Trial, state: str, reason: str) -> None:
        self._progress.show(target, state=state, reason=reason)
        wait_s = min(NEAR_S * 2**trial.failures, MOST_S)
        self._trials[target.key] = _Trial(min(trial.failures + 1, 10), time.monotonic() + wait_s)

    def _step(self, followed: FollowedPartition, pointer: Pointer | None) -> None:
        """Take the next step of adoption for one partition."""
        target, base = followed.target, followed.view.base
        self._progress.digests(target, digest_file.load(followed.directory))
        proof = self._agreement.proof(followed)
        self._progress.show(
            target,
            base=base and base.snapshot,
            cut=base and base.cut,
            proof=proof.word,
            local=self._agreement.proofs(followed),
        )
        if proof.word == REFUSED and self._begin_again(followed, proof):
            return
        self._bases.mend(followed)
        if pointer is None or (base is not None and base.snapshot == pointer.name):
            state, reason = ("adopted" if base else "none"), reasons.doubt(followed, proof)
            self._progress.show(target, candidate=None, state=state, reason=reason)
            self._sweep(followed)
            return
        manifest = self._fetcher.manifest(target.table, pointer.name)
        part = manifest.parts[target.partition]
        if base is not None and base.cut >= part.cut:
            reason = f"the current snapshot is the older {pointer.name} ({pointer.why}): {base.snapshot} is kept"
            reason += reasons.doubt(followed, proof, "; ")
            self._progress.show(target, candidate=None, state="adopted", reason=reason)
            return
        self._progress.show(target, candidate=manifest.name)
        if followed.stop is not None and followed.stop.word == LogTruncated.word and followed.next_offset < part.cut:
            self._leap(followed)
        elif (chosen := self._agreement.choose(followed, manifest)) is not None:
            with self._lane.mailbox.hurry():
                self._adopt(followed, *chosen)

    def _begin_again(self, followed: FollowedPartition, proof: Proof) -> bool:
        """Throw away a view whose root was refused since; False when there is nothing better to begin with."""
        target = followed.target
        start = self._log_start(target.table.topic, target.partition)
        for beginning in beginnings(self._fetcher, target.table, target.partition):
            if beginning.proof.word == PROVED and cut_of(self._fetcher, target, beginning.snapshot) >= start:
                why = f"the view began with snapshot {followed.root}, which is refused: {proof.why}; it begins again"
                self._lane.mailbox.do(target.key, flip.discard(why))
                return True
        return False

    # 2. fetch, 3. build, 4. flip

    def _adopt(self, followed: FollowedPartition, manifest: Manifest, root: str) -> None:
        target = followed.target
        local = self._fetcher.bring(target, manifest)
        base = local.base._replace(root=root)
        self._progress.show(
            target, state="building", reason="", work="build", worked=0,
            local=self._agreement.proofs(followed, manifest.name),
        )  # fmt: skip
        path = followed.view.path
        number = int(path.name) + 1
        order = DigestRequest(
            str(path), str(generation.unborn(path.parent, number)), asdict(identity_of(target)),
            base._asdict(), followed.sync
        )  # fmt: skip
        pending = self._digest_client.build(order)
        try:
            self._wait(target, pending, pending.begun)
            self._lane.mailbox.do(target.key, flip.start_buffer)
            self._digest_client.last(pending)
            self._wait(target, pending, pending.done)
            self._flip(target, flip.flip(self._fetcher.snapshots(target)))
        except BaseException:
            self._lane.mailbox.do(target.key, flip.drop_buffer)
            raise
        self._adopted(target, local.base.snapshot, local.base.cut)

    def _wait(self, target: Target, pending: PendingDigest, event: threading.Event) -> None:
        """Wait for the digester, which says how far it is; what it does in silence, as to flush, is seen, too."""
        pid, patience = self._digest_client.pid, Patience(BUILD_S)
        process = None if pid is None else Progress(pid, BUILD_S)
        while not event.wait(NEAR_S):
            self._progress.show(target, worked=pending.worked)
            patience.saw({"build": pending.worked})
            if patience.is_over() and (process is None or process.hangs()):
                raise StorageUnreachable(
                    f"the next generation is not built, and nothing was done for it for {BUILD_S:g} s"
                )
        if pending.failure is not None:
            raise NotBuilt(pending.failure)

    def _leap(self, followed: FollowedPartition) -> None:
        """Begin anew over the best snapshot that lies ahead; it is the view's root from then on."""
        target = followed.target
        start = max(self._log_start(target.table.topic, target.partition), followed.next_offset + 1)
        for beginning in beginnings(self._fetcher, target.table, target.partition):
            if beginning.snapshot is not None and cut_of(self._fetcher, target, beginning.snapshot) >= start:
                self._leap_to(followed, self._fetcher.manifest(target.table, beginning.snapshot), beginning.proof)
                return
        reason = (
            f"no snapshot that reaches offset {start:,} may be leapt to: each is older, or refused; `logstore batch "
            "audit "
            f"{target.table.name}` settles who is wrong, `logstore batch rebuild {target.table.name}` makes one"
        )
        self._progress.show(target, state="waiting", reason=reason)

    def _leap_to(self, followed: FollowedPartition, manifest: Manifest, proof: Proof) -> None:
        target, part = followed.target, manifest.parts[followed.target.partition]
        local = self._fetcher.bring(target, manifest)
        bootstrap = Bootstrap(
            local.base,
            Quarantine(dict(part.quarantine_counts), [(int(at), why) for at, why in part.quarantine_records]),
            local.decisions,
        )
        self._progress.show(target, local=self._agreement.proofs(followed, manifest.name))
        log.warning(
            "the view leaps to a snapshot ahead: the log between is gone", table=target.table.name,
            partition=target.partition, applied=followed.next_offset, snapshot=manifest.name, cut=part.cut,
        )  # fmt: skip
        self._flip(target, flip.begin(bootstrap, self._fetcher.snapshots(target)))
        digest_file.path_in(followed.directory).unlink(missing_ok=True)  # those of the view that was left
        self._progress.show(target, proof=proof.word)
        self._adopted(target, local.base.snapshot, local.base.cut)

    def _flip(self, target: Target, step: Step) -> None:
        self._lane.mailbox.do(target.key, step)
        self._seen[target.key] = time.monotonic()
        self._bases.forget(target)

    def _adopted(self, target: Target, name: str, cut: int) -> None:
        log.info("a snapshot was adopted", table=target.table.name, partition=target.partition, snapshot=name, cut=cut)
        self._progress.show(target, base=name, cut=cut, candidate=None, state="adopted", reason="", work="")

    # 5. sweep

    def _sweep(self, followed: FollowedPartition) -> None:
        key, path = followed.target.key, followed.view.path
        if time.monotonic() - self._seen[key] < SWEEP_S:
            return
        for old in generation.older(path.parent, int(path.name)):
            log.info("an old generation is removed", path=str(old))
            generation.remove(old)
        keep = [Path(one.path) for one in followed.older if one.path is not None]
        local_snapshots.remove_others(
            self._fetcher.snapshots(followed.target), [*keep, *([followed.base_dir] if followed.base_dir else [])]
        )


class NotBuilt(NotYet):
    """The next generation could not be built; it is tried again."""
