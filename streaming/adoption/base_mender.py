"""Base mender: a base whose files are damaged or gone on this node is fetched again."""

import logging
import time
from collections.abc import Callable

from logstore.model.errors import Corrupted, LogStoreError, NotYet
from logstore.model.table import PartitionKey
from logstore.view.feed.acknowledgement import SnapshotPlace
from streaming.adoption import flip
from streaming.adoption.snapshot_fetcher import SnapshotFetcher
from streaming.lane.disk import local_snapshots
from streaming.lane.mailbox import Mailbox
from streaming.lane.partition import FollowedPartition
from streaming.lane.target import Target

log = logging.getLogger(__name__)

SEEN_S = 10.0  # readers that found a base damaged have opened what was brought since


class BaseMender:
    """Bases of the views that a lane follows; used by the adopter's thread."""

    def __init__(self, mailbox: Mailbox, fetcher: SnapshotFetcher, damaged: Callable[[], list[SnapshotPlace]]) -> None:
        """`damaged`: the snapshots that readers have found damaged."""
        self._mailbox, self._fetcher, self._damaged = mailbox, fetcher, damaged
        self._lost: dict[PartitionKey, str] = {}  # snapshots that are damaged here and cannot be fetched again
        self._checked: set[PartitionKey] = set()  # bases whose files were looked at since the start
        self._brought_s: dict[PartitionKey, float] = {}  # when a base was brought again, of a monotonic clock

    def mend(self, followed: FollowedPartition) -> None:
        """Look at the base's files once after a start, and whenever they are not here; fetch what is not sound again.

        Also when a reader says so: what it has open may be damaged although the files look well now.

        Raises Corrupted when there is nothing sound to fetch: the base is lost. NotYet, LogStoreError, OSError.
        """
        key, base = followed.target.key, followed.view.base
        if base is None or self.has_lost_base(followed):
            return
        reported = followed.is_base_damaged or self._is_reported(followed.target, base.snapshot)
        if followed.base_dir is not None and key in self._checked and not reported:
            return
        directory = self._fetcher.snapshots(followed.target)
        local = local_snapshots.find(directory, base.snapshot)
        wrong = (
            "it was found damaged as it was read"
            if reported
            else local_snapshots.damaged(local)
            if local
            else "it is not here"
        )
        if wrong is not None:
            log.warning(
                "snapshot %s of %s/%d: %s", base.snapshot, followed.target.table.name, followed.target.partition, wrong
            )
            self._fetch_again(followed, base.snapshot)
        self._checked.add(key)

    def has_lost_base(self, followed: FollowedPartition) -> bool:
        """True when the snapshot that the view stands on is damaged here and cannot be fetched again."""
        base = followed.view.base
        return base is not None and self._lost.get(followed.target.key) == base.snapshot

    def forget(self, target: Target) -> None:
        """Forget a lost base: the view stands on another one by now."""
        self._lost.pop(target.key, None)

    def _is_reported(self, target: Target, name: str) -> bool:
        """True when readers found the base damaged, and had the time to see what was brought since."""
        if time.monotonic() - self._brought_s.get(target.key, -SEEN_S) < SEEN_S:
            return False
        return SnapshotPlace(target.table.name, *target.key, name) in self._damaged()

    def _fetch_again(self, followed: FollowedPartition, name: str) -> None:
        target = followed.target
        try:
            self._fetcher.bring(target, self._fetcher.manifest(target.table, name), again=True)
        except NotYet:
            raise
        except LogStoreError as error:
            self._lost[target.key] = name
            raise Corrupted(
                f"{error}; `logstore batch rebuild {target.table.name}` makes a new snapshot, which is taken over"
            ) from error
        self._mailbox.do(target.key, flip.rebase(self._fetcher.snapshots(target)))
        self._brought_s[target.key] = time.monotonic()
