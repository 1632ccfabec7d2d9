"""Nodes: announcements of workers in the topic `logstore.nodes`, by which clients, readers and commands find them.

    key    <node>/<worker>
    value  JSON: node, worker, url, group, zone, slots (assigned), live (slots it serves), tables (revision all its
           readers serve), pids

Fields that this build does not know are of a later one, and ignored; what cannot be read is skipped: all this is
information only.

A worker announces on every change and once a second. Who has not been heard of for TTL_MS (broker time against broker
time) is gone; a worker that stops cleanly says so with a null value.
"""

import logging
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

ANNOUNCE_S = 1.0
TTL_MS = 8_000
_COMPLAINTS = 100  # keys whose records cannot be read and are remembered for it

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Announcement:
    """A worker, as it describes itself."""

    node: str
    worker: int
    url: str
    group: str
    zone: str = ""
    slots: list[int] = field(default_factory=list)  # what Faust assigned
    live: list[int] = field(default_factory=list)  # what it follows and serves, caught up
    tables: int = 0  # revision of the definitions that all its readers serve
    pids: dict[str, Any] = field(default_factory=dict)
    timestamp_ms: int = 0  # broker time of the record

    @property
    def key(self) -> bytes:
        """The announcement's key in the topic."""
        return f"{self.node}/{self.worker}".encode()

    def to_json(self) -> bytes:
        """The announcement's value in the topic."""
        value = asdict(self)
        del value["timestamp_ms"]
        return orjson.dumps(value)

    @classmethod
    def from_json(cls, raw: bytes, timestamp_ms: int) -> "Announcement":
        """Read a record's value, as far as this build knows its fields.

        Raises ValueError when it is not an announcement.
        """
        value = orjson.loads(raw)
        known = {name: value[name] for name in _KINDS if name in value} if isinstance(value, dict) else {}
        wrong = [name for name, kind in _KINDS.items() if name in known and not _is_of(kind, known[name])]
        missing = sorted(_NEEDED - known.keys())
        if wrong or missing:
            raise ValueError(f"its fields {[*wrong, *missing]} are wrong or missing")
        return cls(**known, timestamp_ms=timestamp_ms)


_NEEDED = {"node", "worker", "url", "group"}
_KINDS: dict[str, type] = {
    "node": str, "worker": int, "url": str, "group": str, "zone": str, "slots": list, "live": list, "tables": int,
    "pids": dict,
}  # fmt: skip


def _is_of(kind: type, value: object) -> bool:
    """Lists are of numbers here."""
    if isinstance(value, list):
        return kind is list and all(isinstance(number, int) for number in value)
    return isinstance(value, kind)


class Nodes:
    """Live workers, folded from the records of `logstore.nodes`."""

    def __init__(self) -> None:
        self._known: dict[bytes, Announcement] = {}
        self._now_ms = 0  # the newest broker time heard
        self._unreadable: set[bytes] = set()

    def hear(self, key: bytes | None, value: bytes | None, timestamp_ms: int) -> None:
        """Take one record in; one that cannot be read is logged, once a key, and changes nothing."""
        self._now_ms = max(self._now_ms, timestamp_ms)
        if key is None:
            return
        if value is None:
            self._known.pop(key, None)
            return
        try:
            self._known[key] = Announcement.from_json(value, timestamp_ms)
        except ValueError as error:
            self._skip(key, value, error)

    def _skip(self, key: bytes, value: bytes, error: ValueError) -> None:
        if key not in self._unreadable and len(self._unreadable) < _COMPLAINTS:
            self._unreadable.add(key)
            log.warning("what %r announces cannot be read and is skipped: %s: %r", key[:80], error, value[:80])

    def live(self) -> list[Announcement]:
        """Every worker heard of lately, by node and worker."""
        there = [a for a in self._known.values() if self._now_ms - a.timestamp_ms < TTL_MS]
        return sorted(there, key=lambda a: (a.node, a.worker))
