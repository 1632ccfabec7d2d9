"""Cuts: the lane commits exactly up to a snapshot's cut, then has the view pinned as it stands.

The digester begins a reading, says where it stands, and computes the digest while the lane goes on. If it does not
answer at once, this partition alone waits for it (the others go on), at most HOLD_S: then the cut has no digest, and
its snapshot is not adopted here.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from logstore.model.fold import Records
from logstore.model.table import PartitionKey
from streaming.digest.client import DigestClient, PendingDigest
from streaming.lane.partition import FollowedPartition

log = logging.getLogger(__name__)

WAIT_S = 0.015
HOLD_S = 5.0

OnDigest = Callable[[FollowedPartition, int, PendingDigest], None]  # (partition, cut, the errand, ended)


class _Held(NamedTuple):
    errand: PendingDigest
    until_s: float


class Cuts:
    """Cuts of one lane. `on_digest` is called on another thread."""

    def __init__(self, helper: DigestClient, on_digest: OnDigest) -> None:
        self._helper, self._on_digest = helper, on_digest
        self._held: dict[PartitionKey, _Held] = {}

    def watch(self, followed: Iterable[FollowedPartition]) -> None:
        """Watch these partitions for cuts."""
        self._helper.views(str(one.view.path) for one in followed)

    def take(self, followed: FollowedPartition, records: Records, leader_epoch: int) -> bool:
        """Take records as `FollowedPartition.take`, but commit up to each cut on the way and pin the view there.

        What follows a pin that `holds` is left.
        """
        while (at := followed.cut_in(records)) is not None:
            if not followed.take(records.slice(0, at + 1), leader_epoch):
                return False
            if not self.reached(followed):
                return True
            records = records.slice(at + 1)
        return followed.take(records, leader_epoch) if records.offsets else True

    def reached(self, followed: FollowedPartition) -> bool:
        """The cut is the last record applied.

        Pin it. False: nothing more may be applied to this partition until `over` names it.
        """
        if followed.stop is not None:
            return True
        cut, path = followed.next_offset - 1, str(followed.view.path)
        base_dir = str(followed.base_dir) if followed.base_dir else None
        begun_s = time.monotonic()
        errand = self._helper.pin(path, base_dir, lambda errand: self._on_digest(followed, cut, errand))
        prompt = errand.begun.wait(WAIT_S)
        waited_ms = (time.monotonic() - begun_s) * 1000
        log.info(
            "%s/%d: a snapshot ends at %d; its pin took %.1f ms",
            followed.target.table.name,
            followed.target.partition,
            cut,
            waited_ms,
        )
        if prompt:
            return True
        self._held[followed.target.key] = _Held(errand, time.monotonic() + HOLD_S)
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
        ended = [key for key, held in self._held.items() if held.errand.begun.is_set() or now_s > held.until_s]
        for key in ended:
            del self._held[key]
        return ended
