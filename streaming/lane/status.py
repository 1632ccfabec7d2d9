"""Status: feed records of a lane's partitions."""

import contextlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from logstore.model.errors import Corrupted, NotYet
from logstore.model.table import PartitionKey
from logstore.view.feed import FeedServer
from logstore.view.paths import snapshot_dir
from logstore.view.reader import ViewReader
from streaming.lane import local_snapshots
from streaming.lane.partition import FollowedPartition, view_path
from streaming.lane.target import Target

log = logging.getLogger(__name__)

_UNOPENED: dict[str, Any] = {"path": None, "base": None, "kept": []}


class LaneStatus:
    """Status of one lane's partitions; the lane's thread only."""

    def __init__(self, feed: FeedServer) -> None:
        self._feed = feed
        self._published: dict[PartitionKey, object] = {}

    def show(self, followed: FollowedPartition) -> None:
        """Publish a partition's position, and its record if that has changed."""
        self._feed.publish(("applied", *followed.target.key), (followed.next_offset, followed.end))
        self._publish(followed.target, followed.shown())

    def unopened(self, target: Target, data_dir: Path, reason: str) -> None:
        """The view cannot be opened now; what an earlier run has left is readable all the same."""
        try:
            left = {**_UNOPENED, **_left(target, data_dir)}
        except (NotYet, OSError):  # not even to be looked at now: what is known stays
            left = {**_UNOPENED, **self._known(target)}
        if self._publish(target, {**left, "slot": target.slot, "state": "catching-up", "reason": reason}):
            log.warning("%s", reason)

    def stopped(self, target: Target, reason: str) -> None:
        """The partition cannot begin."""
        self._publish(target, {**_UNOPENED, "slot": target.slot, "state": "stopped", "reason": reason})

    def removed(self, target: Target, reason: str) -> None:
        """The view was damaged and is removed: it begins again."""
        self._publish(target, {**_UNOPENED, "slot": target.slot, "state": "catching-up", "reason": reason})

    def gone(self, target: Target) -> None:
        """The partition is not served here any more."""
        self._published.pop(target.key, None)
        self._feed.publish(_view_key(target), None)
        self._feed.publish(("applied", *target.key), None)

    def only(self, targets: Iterable[Target]) -> None:
        """Take back what is shown of others, by an earlier run of this worker too."""
        keys = {_view_key(target): target.key for target in targets}
        self._published = {key: shown for key, shown in self._published.items() if key in keys.values()}
        for key in self._feed.snapshot():
            if isinstance(key, tuple) and key[0] == "view" and key not in keys:
                self._feed.publish(key, None)

    def _known(self, target: Target) -> dict[str, Any]:
        """Feed record of the view that lies here, perhaps by an earlier run of this worker."""
        shown = self._feed.snapshot().get(_view_key(target)) or {}
        return {name: shown[name] for name in _UNOPENED if name in shown}

    def _publish(self, target: Target, shown: dict[str, Any]) -> bool:
        """True when it is news."""
        if self._published.get(target.key) == shown:
            return False
        self._published[target.key] = shown
        self._feed.publish(_view_key(target), shown)
        return True


def _left(target: Target, data_dir: Path) -> dict[str, Any]:
    """The view that lies here, with the base that it must not be read without; nothing when either is not sound.

    Raises NotYet, OSError.
    """
    path = view_path(target, data_dir)
    if not (path / "data.mdb").exists():
        return {}
    try:
        reader = ViewReader.open(path)
        with contextlib.closing(reader):
            base = reader.base()
    except Corrupted:
        return {}
    if base is None:
        return {"path": str(path)}
    local = local_snapshots.find(snapshot_dir(data_dir, target.table.name, *target.key), base.snapshot)
    return {"path": str(path), "base": local_snapshots.shown(base, local and local.path)}


def _view_key(target: Target) -> tuple[str, str, str, int]:
    return ("view", target.table.name, *target.key)
