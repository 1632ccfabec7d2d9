"""Adopter: the thread of a worker that takes over snapshots, one partition at a time.

All of its waiting is its own, never the lane's.

    1. agree    this node's digest at the snapshot's cut is the snapshot's; if not, nothing is adopted and the reason is
                shown. Where no pin was had at the cut, the log is folded again up to there (`refold`)
    2. fetch    the files of the partition, checked against the manifest (`snapshot_fetcher.SnapshotFetcher.bring`)
    3. build    the next generation beside the one in use (`logstore.view.generation`, in the helper process)
    4. flip     between two batches of the lane (`flip`)
    5. sweep    generations and local snapshots that nobody is told of any more, some time later

A view whose next record is gone from the log leaps to a snapshot that lies ahead. A pointer that was moved back changes
nothing here: the newer snapshot agreed with this node's own fold, and a position never goes back; nodes that begin anew
begin where the pointer shows.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from logstore.model.errors import Corrupted, LogStoreError, LogTruncated, NotYet, StorageUnreachable
from logstore.model.table import PartitionKey, Table
from logstore.snapshot.manifest import Manifest, PartFacts
from logstore.snapshot.repository import Pointer
from logstore.view import generation
from logstore.view.feed_records import DigestRecord, SnapshotPlace
from logstore.view.layout import Quarantine
from streaming.adoption import flip
from streaming.adoption.flip import Step
from streaming.adoption.progress import AdoptionProgress
from streaming.adoption.refold import NotFolded, refold
from streaming.adoption.snapshot_fetcher import SnapshotFetcher
from streaming.digest import digest_file
from streaming.digest.client import DigestClient, PendingDigest
from streaming.digest.digester import DigestRequest
from streaming.lane import local_snapshots
from streaming.lane.lane import Lane
from streaming.lane.partition import Bootstrap, FollowedPartition, identity_of
from streaming.lane.target import Target

log = logging.getLogger(__name__)

NEAR_S, FAR_S = 1.0, 5.0  # between two looks at a storage that is a disk here, or is not
MOST_S = 60.0
BUILD_S = 900.0
LOST_S = 15.0  # a digest that is not there after so long is computed in another way
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
        library: SnapshotFetcher,
        helper: DigestClient,
        progress: AdoptionProgress,
        damaged: Callable[[], list[SnapshotPlace]],
    ) -> None:
        """`damaged`: the snapshots that readers have found damaged."""
        super().__init__(name="adopter", daemon=True)
        self._damaged = damaged
        self._brokers = bootstrap
        self._lane, self._library, self._helper, self._progress = lane, library, helper, progress
        self._seen: dict[
            PartitionKey, float
        ] = {}  # partition -> when its generation was first seen or flipped, of a monotonic clock
        self._lost_bases: set[PartitionKey] = set()  # bases that are damaged and cannot be fetched again
        self._checked: set[PartitionKey] = set()  # bases whose files were looked at since the start
        self._brought_s: dict[PartitionKey, float] = {}  # when a base was brought again, of a monotonic clock
        self._trials: dict[PartitionKey, _Trial] = {}
        self._missed: dict[PartitionKey, tuple[int, float]] = {}  # partition -> (cut, when its digest was first missed)
        self._closing = threading.Event()
        self.beat_s = time.monotonic()

    def close(self) -> None:
        """Stop; what is half done is done again by the next worker."""
        self._closing.set()
        self.join(5)

    def run(self) -> None:
        """The thread. What fails is shown and tried again: a partition that cannot adopt goes on serving as it is."""
        patience_s = NEAR_S
        while not self._closing.wait(patience_s):
            least_s = NEAR_S if self._library.near else FAR_S
            patience_s = least_s if self._look() else min(max(patience_s, least_s) * 2, MOST_S)

    def _look(self) -> bool:
        """Look at all followed partitions once; False when the storage did not answer for one."""
        followed = self._lane.followed()
        self._seen = {f.target.key: self._seen.get(f.target.key, time.monotonic()) for f in followed}
        if self._library.url is None:
            return True
        found: dict[str, Pointer | LogStoreError | None] = {}
        for one in followed:
            table = one.target.table
            if table.epoch not in found:
                found[table.epoch] = self._current(table)
            if self._closing.is_set():
                return True
            self._try(one, found[table.epoch])
        return not any(isinstance(pointer, StorageUnreachable) for pointer in found.values())

    def _current(self, table: Table) -> Pointer | LogStoreError | None:
        try:
            return self._library.current(table)
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
            log.warning("%s/%d: %s", target.table.name, target.partition, error)
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
        self._progress.show(target, base=base and base.snapshot, cut=base and base.cut)
        self._mend(followed)
        if pointer is None or (base is not None and base.snapshot == pointer.name):
            self._progress.show(target, candidate=None, state="adopted" if base else "none", reason="")
            self._sweep(followed)
            return
        manifest = self._library.manifest(target.table, pointer.name)
        part = manifest.parts[target.partition]
        if base is not None and base.cut >= part.cut:
            reason = f"the current snapshot is the older {pointer.name} ({pointer.why}): {base.snapshot} is kept"
            self._progress.show(target, candidate=None, state="adopted", reason=reason)
            return
        self._progress.show(target, candidate=manifest.name)
        if followed.stop is not None and followed.stop.word == LogTruncated.word and followed.next_offset < part.cut:
            self._leap(followed, manifest, part)
        elif (target.key in self._lost_bases and followed.next_offset >= part.cut) or self._agree(
            followed, manifest.name, part
        ):
            self._adopt(followed, manifest)

    # 1. agree

    def _agree(self, followed: FollowedPartition, name: str, part: PartFacts) -> bool:
        target = followed.target
        where = f"{target.table.name}/{target.partition}"
        if followed.next_offset < part.cut:
            reason = f"the view of {where} stands at {followed.next_offset:,}, the snapshot's cut is {part.cut:,}"
            self._progress.show(target, state="waiting", reason=reason)
            return False
        mine = next((found for found in digest_file.load(followed.directory) if found.cut == part.cut), None)
        if mine is None and not self._is_lost(followed, part.cut):
            self._progress.show(target, state="waiting", reason=_no_digest(followed, part.cut))
            return False
        if mine is None:
            mine = self._refolded(followed, part.cut)
        if (mine.digest, mine.entries) == (part.digest, part.entries):
            return True
        reason = (
            f"{where} differs from snapshot {name} at cut {part.cut:,}: digest {mine.digest} of {mine.entries:,} "
            "entries here, the "
            f"snapshot has {part.digest} of {part.entries:,}; `logstore batch audit {target.table.name} --explain` "
            "names the keys"
        )
        if self._progress.state(target) != "refused":
            log.error("%s", reason)
        self._progress.show(target, state="refused", reason=reason)
        return False

    def _is_lost(self, followed: FollowedPartition, cut: int) -> bool:
        """True when no digest at the cut is to be expected: the topic has no cuts, or it should be there by now."""
        key, now_s = followed.target.key, time.monotonic()
        if self._missed.get(key, (-1, 0.0))[0] != cut:
            self._missed[key] = cut, now_s
        return not followed.target.table.allow_control_records or now_s - self._missed[key][1] > LOST_S

    def _refolded(self, followed: FollowedPartition, cut: int) -> DigestRecord:
        target = followed.target
        if followed.view.base is not None and followed.base_dir is None:
            raise NotFolded("the snapshot that the view stands on is not here")
        self._progress.show(
            target, state="waiting", reason=f"the log is folded again up to the cut {cut:,}: no digest was had there"
        )
        found = refold(self._brokers, followed, cut, self._closing)
        self._progress.digests(target, digest_file.add(followed.directory, found))
        return found

    # 2. fetch, 3. build, 4. flip

    def _adopt(self, followed: FollowedPartition, manifest: Manifest) -> None:
        target = followed.target
        local = self._library.bring(target, manifest)
        self._progress.show(target, state="building", reason="")
        path = followed.view.path
        number = int(path.name) + 1
        order = DigestRequest(
            str(path), str(generation.unborn(path.parent, number)), asdict(identity_of(target)),
            local.base._asdict(), followed.sync
        )  # fmt: skip
        errand = self._helper.build(order)
        try:
            _wait(errand, errand.begun)
            self._lane.asked.do(target.key, flip.keep)
            self._helper.last(errand)
            _wait(errand, errand.done)
            self._flip(target, flip.flip(self._library.snapshots(target)))
        except BaseException:
            self._lane.asked.do(target.key, flip.forget)
            raise
        self._adopted(target, local.base.snapshot, local.base.cut)

    def _leap(self, followed: FollowedPartition, manifest: Manifest, part: PartFacts) -> None:
        target = followed.target
        local = self._library.bring(target, manifest)
        seed = Bootstrap(
            local.base,
            Quarantine(dict(part.quarantine_counts), [(int(at), why) for at, why in part.quarantine_records]),
        )
        log.warning("%s/%d leaps from %d to %d", target.table.name, target.partition, followed.next_offset, part.cut)
        self._flip(target, flip.begin(seed, self._library.snapshots(target)))
        self._adopted(target, local.base.snapshot, local.base.cut)

    def _flip(self, target: Target, step: Step) -> None:
        self._lane.asked.do(target.key, step)
        self._seen[target.key] = time.monotonic()
        self._lost_bases.discard(target.key)

    def _adopted(self, target: Target, name: str, cut: int) -> None:
        log.info("%s/%d stands on snapshot %s, cut %d", target.table.name, target.partition, name, cut)
        self._progress.show(target, base=name, cut=cut, candidate=None, state="adopted", reason="")

    # 5. sweep, and what a start looks at

    def _mend(self, followed: FollowedPartition) -> None:
        """Look at the base's files once after a start, and whenever they are not here.

        Fetch them again when they are not sound.

        Also when a reader says so: what it has open may be damaged although the files look well now.
        """
        key, base = followed.target.key, followed.view.base
        if base is None or key in self._lost_bases:
            return
        told = self._is_told(followed.target, base.snapshot)
        if followed.base_dir is not None and key in self._checked and not told:
            return
        directory = self._library.snapshots(followed.target)
        local = local_snapshots.find(directory, base.snapshot)
        wrong = "a reader found it damaged" if told else local_snapshots.damaged(local) if local else "it is not here"
        if wrong is not None:
            log.warning(
                "snapshot %s of %s/%d: %s", base.snapshot, followed.target.table.name, followed.target.partition, wrong
            )
            self._fetch_again(followed, base.snapshot)
        self._checked.add(key)

    def _is_told(self, target: Target, name: str) -> bool:
        """True when readers found the base damaged, and had the time to see what was brought since."""
        if time.monotonic() - self._brought_s.get(target.key, -SWEEP_S) < SWEEP_S:
            return False
        return SnapshotPlace(target.table.name, *target.key, name) in self._damaged()

    def _fetch_again(self, followed: FollowedPartition, name: str) -> None:
        target = followed.target
        try:
            self._library.bring(target, self._library.manifest(target.table, name), again=True)
        except NotYet:
            raise
        except LogStoreError as error:
            self._lost_bases.add(target.key)
            raise Corrupted(
                f"{error}; `logstore batch rebuild {target.table.name}` makes a new snapshot, which is taken over"
            ) from error
        self._lane.asked.do(target.key, flip.rebase(self._library.snapshots(target)))
        self._brought_s[target.key] = time.monotonic()

    def _sweep(self, followed: FollowedPartition) -> None:
        key, path = followed.target.key, followed.view.path
        if time.monotonic() - self._seen[key] < SWEEP_S:
            return
        for old in generation.older(path.parent, int(path.name)):
            log.info("removing %s", old)
            generation.remove(old)
        keep = [Path(kept.path) for kept in followed.kept if kept.path is not None]
        local_snapshots.remove_others(
            self._library.snapshots(followed.target), [*keep, *([followed.base_dir] if followed.base_dir else [])]
        )


def _wait(errand: PendingDigest, event: threading.Event) -> None:
    if not event.wait(BUILD_S):
        raise StorageUnreachable(f"the next generation was not built within {BUILD_S:g} s")
    if errand.failure is not None:
        raise NotBuilt(errand.failure)


def _no_digest(followed: FollowedPartition, cut: int) -> str:
    why = followed.undigested.get(cut, "it is being computed, or was lost with a restart")
    again = "if it stays so, the log is folded again up to there"
    return f"this node's digest at the cut {cut:,} is not known: {why}; {again}"


class NotBuilt(NotYet):
    """The next generation could not be built; it is tried again."""


Recorder = Callable[[FollowedPartition, int, PendingDigest], None]


def recorder(progress: AdoptionProgress) -> Recorder:
    """Function that files a digest once it has been computed."""

    def record(followed: FollowedPartition, cut: int, errand: PendingDigest) -> None:
        if errand.outcome is None or errand.pinned_at != cut + 1:
            followed.undigested[cut] = errand.failure or f"the view was pinned at {errand.pinned_at}"
            log.warning(
                "%s/%d: no digest at %d: %s",
                followed.target.table.name,
                followed.target.partition,
                cut,
                followed.undigested[cut],
            )
            return
        try:
            kept = digest_file.add(followed.directory, DigestRecord(cut, *errand.outcome))
        except OSError as error:
            followed.undigested[cut] = str(error)
            return
        progress.digests(followed.target, kept)

    return record
