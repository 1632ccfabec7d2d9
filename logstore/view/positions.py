"""Positions: how far each partition's log was followed, in a small file that outlives the views.

    <data>/positions/<worker>.json      {"<table>/<epoch>/<partition>": [next offset, leader epoch, last record]}

A view that was written without sync is thrown away after a power cut, and with it what is known of the log. This file
is synced several times a second while positions move, so a log that lost its end in the same power cut is found out. Of
several workers' words on a partition, the one of the latest leader epoch counts, and of those the furthest.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import orjson

from logstore.model.errors import Corrupted
from logstore.model.record_identity import AppliedPosition, RecordIdentity
from logstore.model.safe_path import below, one_step
from logstore.process.durable import write_whole
from logstore.view.paths import positions_dir

log = logging.getLogger(__name__)

EVERY_S = 0.1
SHARE = 10  # writing takes at most one part in so many of the time

Positions = dict[str, AppliedPosition]
Now = Callable[[], Iterable[tuple[str, AppliedPosition | None]]]  # `position_name`, and how far


class AppliedPositions:
    """Positions that all workers of this node have written. Any thread."""

    def __init__(self, data_dir: Path) -> None:
        self._directory = positions_dir(data_dir)
        self._read: dict[Path, tuple[int, Positions]] = {}  # file -> (when it was written, what it says)
        self._lock = threading.Lock()

    def of(self, name: str) -> AppliedPosition | None:
        """Position to which this node has followed a partition; `name` as `position_name` has it."""
        with self._lock:
            found = [said[name] for said in self._files() if name in said]
        return max(found, key=_reach, default=None)

    def _files(self) -> list[Positions]:
        for path in self._directory.glob("*.json"):
            written = path.stat().st_mtime_ns
            if path not in self._read or self._read[path][0] != written:
                self._read[path] = written, load(path)
        return [said for _, said in self._read.values()]


class PositionKeeper(threading.Thread):
    """Keeper of one worker's file, until `close`. `now` tells where its partitions stand."""

    def __init__(self, data_dir: Path, worker: int, now: Now) -> None:
        super().__init__(name="positions", daemon=True)
        self._views, self._now = data_dir / "views", now
        self._path = below(positions_dir(data_dir), f"{worker}.json")
        self._written: Positions | None = None
        self._closing = threading.Event()

    def close(self) -> None:
        """Write what is new, and end."""
        self._closing.set()
        self.join(10)

    def run(self) -> None:
        """The thread. A disk that takes nothing now is tried again."""
        patience_s = EVERY_S
        while not self._closing.wait(patience_s):
            patience_s = max(EVERY_S, SHARE * self.save())
        self.save()

    def save(self) -> float:
        """Write the file if anything has moved; returns how long that took, in seconds."""
        begun_s = time.monotonic()
        try:
            self._save()
        except OSError as error:
            log.warning("%s is not written: %s; it is tried again", self._path, error)
            return max(1.0, time.monotonic() - begun_s)
        return time.monotonic() - begun_s

    def _save(self) -> None:
        """Write what has moved. Raises OSError."""
        before = self._written
        if before is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            before = load(self._path)
        now = dict(self._now())
        following = before | {
            name: applied
            for name, applied in now.items()
            if applied is not None and (name not in before or _reach(applied) > _reach(before[name]))
        }
        if following != self._written:
            following = {
                name: at
                for name, at in following.items()
                if name in now or below(self._views, *name.split("/")).is_dir()
            }
            said = {name: [at.next_offset, at.leader_epoch, at.last.text] for name, at in following.items()}
            write_whole(self._path, orjson.dumps(said, option=orjson.OPT_SORT_KEYS))
            self._written = following


def load(path: Path) -> Positions:
    """Positions of a file; none when there is no file, or it is damaged."""
    try:
        found = orjson.loads(path.read_bytes())
        return {"/".join(map(one_step, name.split("/"))): _position(*said) for name, said in found.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError, Corrupted) as error:
        log.warning("%s cannot be read: %s; a log that lost its end may not be found out", path, error)
        return {}


def _position(next_offset: int, leader_epoch: int, last: str) -> AppliedPosition:
    identity = RecordIdentity.parse(last)
    if identity is None:
        raise Corrupted("a position without its last record")
    return AppliedPosition(int(next_offset), int(leader_epoch), identity)


def position_name(table: str, epoch: str, partition: int) -> str:
    """Name of a partition in these files: its folder below `views`."""
    return f"{table}/{epoch}/{partition}"


def _reach(applied: AppliedPosition) -> tuple[int, int]:
    return applied.leader_epoch, applied.next_offset
