"""Cuts: the lane commits what is before a snapshot's cut, has the view pinned as it stands, then applies the cut.

A cut at c is the records below c and their log time, here as in every other engine.

The digester begins a reading, says where it stands, and computes the digest while the lane goes on. If it does not
answer at once, this partition alone waits for it (the others go on), at most HOLD_S: then the cut has no digest, and
its snapshot is not adopted here.

Anybody who may write to a table can write cuts. Of those in one batch the newest alone is pinned, and of one partition
BURST at once and then one in PIN_EVERY_S: a flood of them holds no other partition up. A cut that is passed over has no
digest; a node that needs it folds the log again up to there.
"""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from logstore.model.folding.fold import Records
from logstore.model.table import PartitionKey
from logstore.process import logs
from streaming.digest.client import DigestClient, PendingDigest
from streaming.lane.partition import FollowedPartition

log = logs.get(__name__)

WAIT_S = 0.015
HOLD_S = 5.0
BURST, PIN_EVERY_S = 8, 1.0


class Pin(NamedTuple):
    """Place of a pin: the cut, the view's next offset (below it where a repair steps over the rest), and its root."""

    cut: int
    position: int
    root: str


OnDigest = Callable[
    [FollowedPartition, Pin, PendingDigest], None
]  # (partition, where it was pinned, the pending, ended)


class _Held(NamedTuple):
    pending: PendingDigest
    until_s: float


class Cuts:
    """Cuts of one lane. `on_digest` is called on another thread."""

    def __init__(self, digest_client: DigestClient, on_digest: OnDigest) -> None:
        self._digest_client, self._on_digest = digest_client, on_digest
        self._held: dict[PartitionKey, _Held] = {}
        self._pinned: dict[PartitionKey, int] = {}  # cuts that come again, after their pins were waited for
        self._allowed: dict[PartitionKey, tuple[float, float]] = {}  # (pins left, as of when), of what is followed

    def watch(self, followed: Iterable[FollowedPartition]) -> None:
        """Watch these partitions for cuts."""
        known = list(followed)
        self._digest_client.views(str(one.view.path) for one in known)
        keys = {one.target.key for one in known}
        self._allowed = {key: allowed for key, allowed in self._allowed.items() if key in keys}

    def take(self, followed: FollowedPartition, records: Records, leader_epoch: int) -> bool:
        """Take records as `FollowedPartition.take`, but commit up to the newest cut on the way and pin the view there.

        The cut behind a pin that `holds`, and what follows it, is left.
        """
        at = followed.cut_in(records)
        if at is not None and self._may_pin(followed.target.key, records.offsets[at]):
            cut, key = records.offsets[at], followed.target.key
            if at and not followed.take(records.slice(0, at), leader_epoch):
                return False
            if followed.reaches(cut) and self._pinned.get(key) != cut and not self.reached(followed, cut):
                return True
            if not followed.take(records.slice(at, at + 1), leader_epoch):
                return False
            self._pinned.pop(key, None)
            records = records.slice(at + 1)
        return followed.take(records, leader_epoch) if records.offsets else True

    def _may_pin(self, key: PartitionKey, cut: int) -> bool:
        """Take one from the partition's allowance (a token bucket); a cut that comes again has taken its own."""
        if self._pinned.get(key) == cut:
            return True
        now_s = time.monotonic()
        left, at_s = self._allowed.get(key, (float(BURST), now_s))
        left = min(float(BURST), left + (now_s - at_s) / PIN_EVERY_S)
        may = left >= 1
        self._allowed[key] = left - 1 if may else left, now_s
        return may

    def reached(self, followed: FollowedPartition, cut: int) -> bool:
        """Pin a view in which everything below the cut is applied.

        False: nothing more may be applied to this partition until `over` names it.
        """
        if followed.stop is not None:
            return True
        self._pinned[followed.target.key] = cut
        where, path = Pin(cut, followed.next_offset, followed.root), str(followed.view.path)
        base_dir = str(followed.base_dir) if followed.base_dir else None
        begun_s = time.monotonic()
        pending = self._digest_client.pin(
            path, base_dir, lambda pending: self._on_digest(followed, where, pending), cut
        )
        prompt = pending.begun.wait(WAIT_S)
        waited_ms = (time.monotonic() - begun_s) * 1000
        log.info(
            "a cut was reached: the view is pinned for its digest", table=followed.target.table.name,
            partition=followed.target.partition, cut=cut, pinned=prompt, ms=round(waited_ms, 1),
        )  # fmt: skip
        if prompt:
            return True
        self._held[followed.target.key] = _Held(pending, time.monotonic() + HOLD_S)
        return False

    def holds(self, key: PartitionKey) -> bool:
        """True while the partition waits for its pin."""
        return key in self._held

    @property
    def waiting(self) -> bool:
        """True while any partition does."""
        return bool(self._held)

    def over(self) -> list[PartitionKey]:
        """Partitions whose waiting has ended since the last call."""
        now_s = time.monotonic()
        ended = [key for key, held in self._held.items() if held.pending.begun.is_set() or now_s > held.until_s]
        for key in ended:
            del self._held[key]
        return ended
