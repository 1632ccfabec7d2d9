"""Views in the feed: a partition that is served here, its view, and the local snapshots under it."""

from dataclasses import dataclass
from typing import NamedTuple

from logstore.view.feed.fields import each, flag, number, read_map, text
from logstore.view.feed.key import FeedKey

LIVE, CATCHING_UP, STOPPED = "live", "catching-up", "stopped"  # states of a view


class LocalSnapshotRecord(NamedTuple):
    """A snapshot of one partition. `path`: its RocksDB directory on this node, None while it is not here."""

    path: str | None = None
    snapshot: str = ""
    cut: int = -1  # first offset that it does not cover
    log_time_ms: int = -1  # at the cut

    @classmethod
    def decode(cls, raw: object) -> "LocalSnapshotRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        found = read_map(cls, raw, path=text, snapshot=text, cut=number, log_time_ms=number)
        whole = found.snapshot and found.cut >= 0 and found.log_time_ms >= 0
        return found if whole else found._replace(path=None)  # not to be read: what it holds is not told


class ViewRecord(NamedTuple):
    """A partition that is served here. `path`: its view's directory, None while there is none."""

    path: str | None = None
    slot: int = -1
    state: str = CATCHING_UP
    reason: str = ""  # why it is stopped, or what holds it up
    base: LocalSnapshotRecord | None = None  # read it for what the view does not hold; None: the view holds everything
    older: tuple[LocalSnapshotRecord, ...] = ()  # local snapshots of earlier cuts, oldest first
    reached: bool = False  # it has been at the end of the log: before that, what it lacks is not absent

    def encode(self) -> dict[str, object]:
        """The record as a msgpack value."""
        base = None if self.base is None else self.base._asdict()
        return {**self._asdict(), "base": base, "older": [one._asdict() for one in self.older]}

    @classmethod
    def decode(cls, raw: object) -> "ViewRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        found = read_map(
            cls, raw, path=text, slot=number, state=text, reason=text, base=LocalSnapshotRecord.decode,
            older=each(LocalSnapshotRecord.decode), reached=flag,
        )  # fmt: skip
        if found.state in (LIVE, CATCHING_UP, STOPPED):
            return found
        reason = f"a later version calls this state {found.state!r}; restart the node. {found.reason}".rstrip()
        return found._replace(state=STOPPED, reason=reason)  # it may mean that nothing is to be answered


@dataclass(frozen=True, slots=True)
class ViewKey(FeedKey[ViewRecord]):
    """Key of one partition's view."""

    word, record = "view", ViewRecord
    table: str
    epoch: str
    partition: int
