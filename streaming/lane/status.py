"""Status: feed records of a lane's partitions."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from logstore.model.errors import Corrupted, NotYet
from logstore.model.table import PartitionKey
from logstore.process import logs
from logstore.view.feed.key import FeedKey
from logstore.view.feed.log_records import BarrierKey, EndKey, LogPointRecord
from logstore.view.feed.position_records import AppliedKey, AppliedRecord
from logstore.view.feed.server import FeedServer
from logstore.view.feed.view_records import CATCHING_UP, LIVE, STOPPED, ViewKey, ViewRecord
from logstore.view.paths import has_reached, snapshot_dir
from logstore.view.reader import ViewReader
from streaming.lane.disk import local_snapshots
from streaming.lane.disk.opened_view import view_path
from streaming.lane.partition import FollowedPartition
from streaming.lane.target import Target

log = logs.get(__name__)


class LaneStatus:
    """Status of one lane's partitions; the lane's thread only."""

    def __init__(self, feed: FeedServer) -> None:
        self._feed = feed
        self._published: dict[PartitionKey, ViewRecord] = {}

    def show(self, followed: FollowedPartition) -> None:
        """Publish a partition's position, and its record if that has changed."""
        self._feed.publish(AppliedKey(*followed.target.key), AppliedRecord(followed.next_offset, followed.end))
        self._publish(followed.target, followed.record(), followed.next_offset, followed.end)

    def unopened(self, target: Target, data_dir: Path, reason: str) -> None:
        """The view cannot be opened now; what an earlier run has left is readable all the same."""
        try:
            left = _left(target, data_dir)
        except (NotYet, OSError):  # not even to be looked at now: what is known stays, perhaps by an earlier run
            left = self._feed.get(_view_key(target)) or ViewRecord()
        if self._publish(target, left._replace(slot=target.slot, state=CATCHING_UP, reason=reason)):
            log.warning("a view cannot be opened yet", **_place(target), reason=reason)

    def stopped(self, target: Target, reason: str) -> None:
        """The partition cannot begin."""
        self._publish(target, ViewRecord(slot=target.slot, state=STOPPED, reason=reason))

    def removed(self, target: Target, reason: str) -> None:
        """The view was damaged and is removed: it begins again."""
        self._publish(target, ViewRecord(slot=target.slot, state=CATCHING_UP, reason=reason))

    def gone(self, target: Target) -> None:
        """The partition is not served here any more."""
        if self._published.pop(target.key, None) is not None:
            log.info("the partition is let go", **_place(target))
        self._feed.publish(_view_key(target), None)
        self._feed.publish(AppliedKey(*target.key), None)
        points: tuple[FeedKey[LogPointRecord], ...] = (EndKey(*target.key), BarrierKey(*target.key))
        for key in points:
            if self._feed.get(key) is not None:
                self._feed.publish(key, None)

    def only(self, targets: Iterable[Target]) -> None:
        """Take back what is shown of others, by an earlier run of this worker too."""
        keys = {_view_key(target): target.key for target in targets}
        self._published = {key: record for key, record in self._published.items() if key in keys.values()}
        for key in self._feed.snapshot():
            if isinstance(key, ViewKey) and key not in keys:
                self._feed.publish(key, None)

    def _publish(
        self, target: Target, record: ViewRecord, next_offset: int | None = None, end: int | None = None
    ) -> bool:
        """True when it is news."""
        before = self._published.get(target.key)
        if before == record:
            return False
        if before is None or (before.state, before.reason) != (record.state, record.reason):
            _say(target, before, record, {"applied": next_offset, "end": end})
        self._published[target.key] = record
        self._feed.publish(_view_key(target), record)
        return True


def _say(target: Target, before: ViewRecord | None, record: ViewRecord, offsets: dict[str, int | None]) -> None:
    """A line about a partition whose state is another now, or which is stopped for another reason."""
    if record.state == STOPPED:
        log.error("the partition stopped", **_place(target), **offsets, reason=record.reason)
    elif before is None or before.state != record.state:
        event = "the partition is live" if record.state == LIVE else "the partition catches up"
        log.info(event, **_place(target), **offsets, reason=record.reason)


def _place(target: Target) -> dict[str, str | int]:
    return {"table": target.table.name, "partition": target.partition, "slot": target.slot}


def _left(target: Target, data_dir: Path) -> ViewRecord:
    """The view that lies here, with the base that it must not be read without; nothing when either is not sound.

    Raises NotYet, OSError.
    """
    path = view_path(target, data_dir)
    if not (path / "data.mdb").exists():
        return ViewRecord()
    try:
        reader = ViewReader.open(path)
        with contextlib.closing(reader):
            base = reader.base()
    except Corrupted:
        return ViewRecord()
    reached = has_reached(path.parent)
    if base is None:
        return ViewRecord(str(path), reached=reached)
    local = local_snapshots.find(snapshot_dir(data_dir, target.table.name, *target.key), base.snapshot)
    return ViewRecord(str(path), base=local_snapshots.record_of(base, local and local.path), reached=reached)


def _view_key(target: Target) -> ViewKey:
    return ViewKey(target.table.name, *target.key)
