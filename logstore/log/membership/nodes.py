"""Nodes: announcements of workers in the topic `logstore.nodes`, by which clients, readers and commands find them.

    key    <node>/<worker>
    value  JSON: node, worker, url, group, zone, slots (assigned), live (slots it serves), tables (revision all its
           readers serve), pids

Fields that this build does not know are of a later one, and ignored; what cannot be read is skipped: all this is
information only.

A worker announces on every change and once a second. Who has not been heard of for TTL_S is gone; a worker that stops
cleanly says so with a null value. How long ago that was is told by the clock of the process that hears: brokers' clocks
differ, and step. Only what was in the topic before it was read is judged by its timestamp, against the newest record's.

Anybody who reaches Kafka can write here, so every field is checked, and what is remembered is bounded.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

ANNOUNCE_S = 1.0
TTL_S = 8.0
MAX_WORKERS = 1_000  # that are remembered: more is a flood
MAX_BYTES = 65_536  # of an announcement
_MAX_TEXT, _MAX_URL, _MAX_SLOTS, _MAX_PIDS = 255, 2_048, 1_024, 256
_MAX_NUMBER = (1 << 63) - 1
MAX_SILENT = 32  # that are remembered after they were forgotten among the live ones, the newest
SILENT_S = 86_400.0  # so long: its readers may be there although its worker hangs
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
        if len(raw) > MAX_BYTES:
            raise ValueError(f"it has {len(raw):,} bytes, more than {MAX_BYTES:,}")
        value = orjson.loads(raw)
        known = {name: value[name] for name in _FIELDS if name in value} if isinstance(value, dict) else {}
        wrong = [name for name, is_sound in _FIELDS.items() if name in known and not is_sound(known[name])]
        missing = sorted(_NEEDED - known.keys())
        if wrong or missing:
            raise ValueError(f"its fields {[*wrong, *missing]} are wrong or missing")
        return cls(**known, timestamp_ms=timestamp_ms)


def _is_number(value: object, most: int = _MAX_NUMBER) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -1 <= value <= most


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_TEXT and value.isprintable()


def is_node_url(value: object) -> bool:
    """True for the address of a node: http(s), a host, and neither credentials, query nor fragment."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > _MAX_URL:
        return False
    try:
        parts = urlsplit(value)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    return known and parts.username is None and not parts.query and not parts.fragment


def _are_slots(value: object) -> bool:
    if not isinstance(value, list) or len(value) > _MAX_SLOTS:
        return False
    return all(_is_number(slot, _MAX_SLOTS) and slot >= 0 for slot in value)


def _are_pids(value: object) -> bool:
    """{"node", "kafka": a number or null, "workers", "readers": numbers}: shown to people and never acted upon."""
    if not isinstance(value, dict) or not value.keys() <= {"node", "kafka", "workers", "readers"}:
        return False
    return all(_are_pids_of(name, part) for name, part in value.items())


def _are_pids_of(name: str, part: object) -> bool:
    if name in ("node", "kafka") or part is None:
        return part is None or _is_number(part)
    return isinstance(part, list) and len(part) <= _MAX_PIDS and all(map(_is_number, part))


_NEEDED = {"node", "worker", "url", "group"}
_FIELDS: dict[str, Callable[[object], bool]] = {
    "node": _is_text, "worker": _is_number, "url": is_node_url, "group": _is_text, "zone": _is_text,
    "slots": _are_slots, "live": _are_slots, "tables": _is_number, "pids": _are_pids,
}  # fmt: skip


class _Heard(NamedTuple):
    """An announcement, when this process heard it (its own clock), and how often of that worker: 2 is often."""

    said: Announcement
    at_s: float
    times: int


class Nodes:
    """Live workers, folded from the records of `logstore.nodes`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds, never going back."""
        self._clock = clock
        self._known: dict[bytes, _Heard] = {}  # in the order they were heard
        self._silent: dict[bytes, Announcement] = {}  # that said nothing for TTL_S, and no good-bye
        self._begun, self._newest_ms = False, 0
        self._unreadable: set[bytes] = set()

    def hear(self, key: bytes | None, value: bytes | None, timestamp_ms: int) -> None:
        """Take one record in; one that cannot be read is logged, once a key, and changes nothing."""
        self._newest_ms = timestamp_ms
        if key is None:
            return
        if value is None:
            self._known.pop(key, None)
            self._silent.pop(key, None)
            return
        try:
            announced = Announcement.from_json(value, timestamp_ms)
            if announced.key != key:
                raise ValueError(f"it is that of {announced.key!r}")  # noqa: TRY301 - is skipped as the others are
        except ValueError as error:
            self._skip(key, value, error)
            return
        self._remember(key, announced)

    def begin(self) -> None:
        """Count from now on when a worker is heard: everything that was in the topic is read.

        What is older than TTL_S, or of a time yet to come, by the timestamp of the newest record, counts no more: who
        is there announces itself again within ANNOUNCE_S.
        """
        if self._begun:
            return
        self._begun, now_s = True, self._clock()
        ages_s = {key: (self._newest_ms - heard.said.timestamp_ms) / 1_000 for key, heard in self._known.items()}
        fresh = [
            (key, heard._replace(at_s=now_s - max(ages_s[key], 0.0)))
            for key, heard in self._known.items()
            if abs(ages_s[key]) < TTL_S
        ]
        for key in sorted(ages_s, key=lambda key: ages_s[key], reverse=True):
            if TTL_S <= ages_s[key] < SILENT_S:
                self._fall_silent(key, self._known[key].said)
        self._known = dict(sorted(fresh, key=lambda item: item[1].at_s))

    def live(self, least: int = 1) -> list[Announcement]:
        """Every worker heard of lately, by node and worker; `least`: how often it must have announced itself."""
        self._forget()
        there = [heard.said for heard in self._known.values() if heard.times >= least]
        return sorted(there, key=lambda a: (a.node, a.worker))

    def silent(self) -> list[Announcement]:
        """Workers that ended without a good-bye, or hang: nothing was heard of any worker of their readers since."""
        self._forget()
        urls = {heard.said.url for heard in self._known.values()}
        return [said for said in self._silent.values() if said.url not in urls]

    def _fall_silent(self, key: bytes, said: Announcement) -> None:
        self._silent.pop(key, None)
        self._silent[key] = said
        while len(self._silent) > MAX_SILENT:
            del self._silent[next(iter(self._silent))]

    def _remember(self, key: bytes, announced: Announcement) -> None:
        before = self._known.pop(key, None)
        self._silent.pop(key, None)
        if before is None and len(self._known) >= MAX_WORKERS:
            self._forget()
            if len(self._known) >= MAX_WORKERS:
                if self._begun:  # those that are known announce themselves again; a flood does not drive them out
                    return
                del self._known[next(iter(self._known))]
        self._known[key] = _Heard(announced, self._clock(), 1 if before is None else min(before.times + 1, 2))

    def _forget(self) -> None:
        """Drop announcements that were heard too long ago, from the oldest on."""
        now_s = self._clock()
        while self._begun and self._known:
            oldest = next(iter(self._known))
            if now_s - self._known[oldest].at_s < TTL_S:
                break
            self._fall_silent(oldest, self._known.pop(oldest).said)

    def _skip(self, key: bytes, value: bytes, error: ValueError) -> None:
        if key not in self._unreadable and len(self._unreadable) < _COMPLAINTS:
            self._unreadable.add(key)
            log.warning("what %r announces cannot be read and is skipped: %s: %r", key[:80], error, value[:80])
