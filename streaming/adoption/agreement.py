"""Agreement: whether a partition's snapshot is what this node folded itself, and the word that it leaves on it.

A snapshot that differs is refused. One that cannot be compared waits, or is taken on the word of others, who have
proved it. What is found is collected, and written for all nodes (`logstore.snapshot.verdicts`).
"""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from logstore.model.errors import LogStoreError
from logstore.model.table import PartitionKey, Table
from logstore.process import logs
from logstore.process.progress import Patience
from logstore.snapshot.manifest import Manifest, PartFacts
from logstore.snapshot.verdicts import (
    AGREE,
    CONSISTENT,
    PROVED,
    REFUSE,
    REFUSED,
    UNPROVED,
    Proof,
    Verdict,
)
from logstore.view.feed.adoption_records import LocalProof
from streaming.adoption import reasons
from streaming.adoption.base_mender import BaseMender
from streaming.adoption.beginning import beginnings, cut_of
from streaming.adoption.progress import AdoptionProgress
from streaming.adoption.refold import NotFolded, refold
from streaming.adoption.snapshot_fetcher import SnapshotFetcher
from streaming.digest import digest_file
from streaming.digest.digest_file import FiledDigest
from streaming.lane.partition import FollowedPartition
from streaming.lane.target import Target

log = logs.get(__name__)

LOST_S = 15.0  # a digest that is not there, and came no nearer for so long, is computed in another way
SAY_S = 2.0  # words are collected for so long: all partitions of a node lie in one file


class Chosen(NamedTuple):
    """Snapshot that is to be adopted, and the root of the view over it."""

    manifest: Manifest
    root: str


class Agreement:
    """Comparisons of a node's own folds with snapshots; used by the adopter's thread."""

    def __init__(
        self,
        bootstrap: str,
        fetcher: SnapshotFetcher,
        progress: AdoptionProgress,
        bases: BaseMender,
        log_start: Callable[[str, int], int],
        closing: threading.Event,
        worked: Callable[[str, int], int | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`log_start`: as of `Bootstrapper`; `closing` ends a fold under way; `worked`: of the digest client."""
        self._worked, self._clock = worked, clock
        self._brokers, self._fetcher, self._progress, self._bases = bootstrap, fetcher, progress, bases
        self._log_start, self._closing = log_start, closing
        self._words: dict[tuple[str, str], tuple[Table, dict[int, Verdict]]] = {}  # (epoch, snapshot) -> to be written
        self._words_s = 0.0  # since when
        self._missed: dict[PartitionKey, tuple[int, Patience]] = {}  # partition -> (cut, with its digest)

    def choose(self, followed: FollowedPartition, manifest: Manifest) -> Chosen | None:
        """The snapshot to adopt: this one, or one on the way to it; None: none now, and the reason is shown.

        Raises NotFolded, LogStoreError, OSError.
        """
        target, name, part = followed.target, manifest.name, manifest.parts[followed.target.partition]
        proof = self._fetcher.verdicts(target.table).proof(name, target.partition)
        if self._bases.has_lost_base(followed) and followed.next_offset >= part.cut and proof.word != REFUSED:
            return Chosen(manifest, name)  # unchecked: what the view stood on is gone
        if followed.next_offset < part.cut:
            where = f"{target.table.name}/{target.partition}"
            reason = f"the view of {where} stands at {followed.next_offset:,}, the snapshot's cut is {part.cut:,}"
            self._waits(target, reason, "behind", followed.next_offset)
            return None
        mine = next((found for found in digest_file.load(followed.directory) if found.cut == part.cut), None)
        if mine is None and not self._is_lost(followed, part.cut):
            done = self._worked(str(followed.view.path), part.cut)
            self._waits(target, reasons.no_digest(followed, part.cut), "digest", done or 0)
            return None
        if mine is None and (start := self._starts_behind(followed)) is not None:
            if proof.word == PROVED:
                return Chosen(manifest, name)  # on the word of others, who could fold what is gone here
            if (between := self._proved_between(followed, start)) is not None:
                return Chosen(between, between.name)  # from there on the log can be folded
            self._waits(target, reasons.cannot_fold(followed, name, part.cut, start, proof))
            return None
        root = self._judged(followed, name, part, mine or self._refolded(followed, part.cut))
        return None if root is None else Chosen(manifest, root)

    def _judged(self, followed: FollowedPartition, name: str, part: PartFacts, mine: FiledDigest) -> str | None:
        """Compare, say so, and return the view's root over the snapshot; None: this node or another one refuses it."""
        target = followed.target
        verdicts = self._fetcher.verdicts(target.table)
        equal = (mine.digest, mine.entries) == (part.digest, part.entries)
        trusted = not mine.root or verdicts.proof(mine.root, target.partition).word == PROVED
        word = (AGREE if trusted else CONSISTENT) if equal else REFUSE
        self._word(followed, name, Verdict(word, mine.digest, mine.entries, part.cut, mine.how, mine.root))
        proof = verdicts.proof(name, target.partition)
        if equal and proof.word != REFUSED:
            return name if followed.root and proof.word == PROVED else followed.root
        reason = (
            reasons.refusal(followed, name, part, mine, proof)
            if not equal
            else reasons.others_refuse(followed, name, proof)
        )
        if self._progress.state(target) != "refused":
            log.error(
                "a snapshot is refused", table=target.table.name, partition=target.partition, snapshot=name,
                cut=part.cut, reason=reason,
            )  # fmt: skip
        self._progress.show(target, state="refused", reason=reason)
        return None

    def _waits(self, target: Target, reason: str, work: str = "", worked: int = 0) -> None:
        self._progress.show(target, state="waiting", reason=reason, work=work, worked=worked)

    def _starts_behind(self, followed: FollowedPartition) -> int | None:
        """Start of the log, when that is behind what a fold of it would begin with; None: it can be folded."""
        target, base = followed.target, followed.view.base
        start = self._log_start(target.table.topic, target.partition)
        return start if start > (base.cut if base else 0) else None

    def _proved_between(self, followed: FollowedPartition, start: int) -> Manifest | None:
        """The newest proved snapshot from which the log, which begins at `start`, leads to the view."""
        target = followed.target
        for beginning in beginnings(self._fetcher, target.table, target.partition):
            if beginning.snapshot is None or beginning.proof.word != PROVED:
                return None  # proved ones come first
            if start <= cut_of(self._fetcher, target, beginning.snapshot) <= followed.next_offset:
                return self._fetcher.manifest(target.table, beginning.snapshot)
        return None

    def _is_lost(self, followed: FollowedPartition, cut: int) -> bool:
        """True when no digest at the cut is to be expected: the topic has no cuts, or it comes no nearer."""
        if not followed.target.table.allow_control_records:
            return True
        missed, patience = self._missed.get(followed.target.key, (-1, Patience(LOST_S, self._clock)))
        if missed != cut:
            patience = Patience(LOST_S, self._clock)
            self._missed[followed.target.key] = cut, patience
        done = self._worked(str(followed.view.path), cut)
        patience.saw({} if done is None else {"digest": done})
        return patience.is_over()

    def _refolded(self, followed: FollowedPartition, cut: int) -> FiledDigest:
        target = followed.target
        if followed.view.base is not None and followed.base_dir is None:
            raise NotFolded("the snapshot that the view stands on is not here")
        reason = f"the log is folded again up to the cut {cut:,}: no digest was had there"
        self._waits(target, reason, "refold")
        found = refold(
            self._brokers, followed, cut, self._closing, lambda worked: self._progress.show(target, worked=worked)
        )
        self._progress.digests(target, digest_file.add(followed.directory, found))
        return found

    # the word that is left

    def _word(self, followed: FollowedPartition, name: str, verdict: Verdict) -> None:
        """Have it written soon, if it is not there yet."""
        table, partition = followed.target.table, followed.target.partition
        if self._fetcher.said(table, name, partition) == verdict:
            return
        if not self._words:
            self._words_s = time.monotonic()
        words = self._words.setdefault((table.epoch, name), (table, {}))[1]
        if words.get(partition) != verdict and verdict.word != REFUSE:  # a refusal is said with its reason
            log.info(
                "a snapshot agrees",
                table=table.name,
                partition=partition,
                snapshot=name,
                cut=verdict.cut,
                word=verdict.word,
                entries=verdict.entries,
                how=verdict.how,
            )
        if words.get(partition) != verdict:
            self._progress.judged(table.name, verdict.word)
        words[partition] = verdict

    def say_when_due(self) -> None:
        """Write what was found, once it has been collected for a while."""
        if self._words and time.monotonic() - self._words_s > SAY_S:
            self.say()

    def say(self) -> bool:
        """Write what was found; False when the storage did not take it: it is kept, and tried again."""
        for key, (table, parts) in list(self._words.items()):
            try:
                self._fetcher.say(table, key[1], parts)
            except (LogStoreError, OSError) as error:
                log.warning("a verdict is not written yet", table=table.name, snapshot=key[1], reason=str(error))
                return False
            del self._words[key]
        return True

    # the standing of what is here

    def proof(self, followed: FollowedPartition) -> Proof:
        """The standing of the view itself: that of what its fold began with."""
        if not followed.root:
            return Proof(PROVED, "folded from offset 0")
        return self._fetcher.verdicts(followed.target.table).proof(followed.root, followed.target.partition)

    def proofs(self, followed: FollowedPartition, *coming: str) -> tuple[LocalProof, ...]:
        """The standing of every snapshot of a partition that is here, or about to be."""
        base = followed.view.base
        names = {one.snapshot for one in followed.older} | ({base.snapshot} if base else set()) | {*coming}
        return tuple(LocalProof(name, self._standing(followed.target, name)) for name in sorted(names))

    def _standing(self, target: Target, name: str) -> str:
        """Standing of a snapshot; the own agreement counts before it is written."""
        found = self._fetcher.verdicts(target.table).proof(name, target.partition).word
        own = self._words.get((target.table.epoch, name), (None, {}))[1].get(target.partition)
        return PROVED if found == UNPROVED and own is not None and own.word == AGREE else found
