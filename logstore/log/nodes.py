"""Nodes: what every worker announces of itself in the topic `logstore.nodes`, so that clients, readers and commands find each other.

    key    <node>/<worker>
    value  JSON: node, worker, url, group, zone, slots (assigned), live (slots it serves), tables (revision all its readers serve), pids

A worker announces on every change and once a second. Who has not been heard of for TTL_MS (broker time against broker time) is gone;
a worker that stops cleanly says so with a null value.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

ANNOUNCE_S = 1.0
TTL_MS = 8_000


@dataclass(frozen=True, slots=True)
class Announcement:
    """One worker, as it describes itself."""

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
        """The record's key."""
        return f"{self.node}/{self.worker}".encode()

    def to_json(self) -> bytes:
        """The record's value."""
        fields = asdict(self)
        del fields["timestamp_ms"]
        return orjson.dumps(fields)

    @classmethod
    def from_json(cls, raw: bytes, timestamp_ms: int) -> "Announcement":
        """Read a record's value."""
        return cls(**orjson.loads(raw), timestamp_ms=timestamp_ms)


class Nodes:
    """Who is there, folded from the records of `logstore.nodes`."""

    def __init__(self) -> None:
        self._known: dict[bytes, Announcement] = {}
        self._now_ms = 0  # the newest broker time heard

    def hear(self, key: bytes | None, value: bytes | None, timestamp_ms: int) -> None:
        """Take one record in."""
        self._now_ms = max(self._now_ms, timestamp_ms)
        if key is None:
            return
        if value is None:
            self._known.pop(key, None)
        else:
            self._known[key] = Announcement.from_json(value, timestamp_ms)

    def live(self) -> list[Announcement]:
        """Every worker heard of lately, by node and worker."""
        there = [a for a in self._known.values() if self._now_ms - a.timestamp_ms < TTL_MS]
        return sorted(there, key=lambda a: (a.node, a.worker))
