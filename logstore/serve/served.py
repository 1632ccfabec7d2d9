"""Served: one partition of one table as this reader serves it, and the opened views behind them.

A view is opened once per process (LMDB's rule) and closed when no worker of the node speaks of it any more. Everything here runs on the
event loop and nothing is awaited while a reading is open, so a view is never closed under a reader's feet.
"""

import logging
from pathlib import Path
from typing import Any

from logstore.model.entry import HEAD_BYTES, TOMBSTONE, VALUE
from logstore.model.errors import Corrupted
from logstore.serve.problems import Problem
from logstore.view.layout import STATE_BYTES, State, Stop
from logstore.view.reader import Reading, ViewReader

LIVE, CATCHING_UP, STOPPED, ELSEWHERE = "live", "catching-up", "stopped", "elsewhere"

_log = logging.getLogger(__name__)


class Served:
    """One partition. `end` is the end of the log as last heard, None when never heard."""

    __slots__ = ("end", "epoch", "head", "partition", "path", "reader", "reason", "slot", "state", "stood", "table", "tail")

    def __init__(self, table: str, epoch: str, partition: int, record: dict[str, Any]) -> None:
        self.table, self.epoch, self.partition = table, epoch, partition
        self.head = f"{epoch}-{partition}-"  # what ETags and tokens begin with
        self.reader: ViewReader | None = None
        self.end: int | None = None
        self.stood, self.tail = b"", ""  # the fast path's: the state it saw last, and the headers that follow from it
        self.update(record)

    def update(self, record: dict[str, Any]) -> None:
        """Take over what a worker says."""
        self.path: str | None = record.get("path")
        self.slot: int = record["slot"]
        self.state: str = record["state"]
        self.reason: str = record.get("reason") or ""

    def open(self) -> ViewReader:
        """The view; raises Problem while it is not open, or when the worker says that the partition has stopped."""
        if self.state == STOPPED and self.reader is None:
            raise self.stopped(None)
        if self.reader is None:
            detail = f"partition {self.partition} of {self.table!r} is being opened here" + (f": {self.reason}" if self.reason else "")
            raise Problem("starting", f"{detail}; try again", partition=self.partition)
        return self.reader

    def next_offset(self, raw_state: bytes) -> int:
        """Where the view stands; raises Problem when the partition has stopped, by the view's own word or the worker's."""
        if len(raw_state) != STATE_BYTES:
            raise self.stopped(State.decode(raw_state).stop)
        if self.state == STOPPED:
            raise self.stopped(None)
        return int.from_bytes(raw_state[:8], "big")

    def lag(self, next_offset: int) -> int | None:
        """Records behind the end of the log as last heard; None when it was never heard."""
        return None if self.end is None else max(self.end - next_offset, 0)

    def stopped(self, stop: Stop | None) -> Problem:
        """The answer of a stopped partition."""
        reason = stop.detail if stop else self.reason or "no reason given"
        fields: dict[str, Any] = {"table": self.table, "partition": self.partition, "reason": reason}
        if stop:
            fields.update(cause=stop.word, offset=stop.offset)
        return Problem("partition-stopped", f"partition {self.partition} of {self.table!r} has stopped: {reason}", **fields)


class Cell:
    """One row's entry as a reader sees it: `version` None = never written; `payload` None = not there."""

    __slots__ = ("payload", "version")

    def __init__(self, raw: bytes | None) -> None:
        """Raises Corrupted for an entry that this build does not write."""
        self.version: int | None = None
        self.payload: bytes | None = None
        if raw is None:
            return
        if len(raw) < HEAD_BYTES or raw[0] not in (VALUE, TOMBSTONE):
            raise Corrupted(
                "an entry is damaged or was written by a later build; upgrade, or remove the view: it is built again from the log"
            )
        self.version = int.from_bytes(raw[1:9], "big")
        if raw[0] == VALUE:
            self.payload = raw[HEAD_BYTES:]


def read_cell(served: Served, key: bytes) -> tuple[int, Cell]:
    """(next offset, cell) of one committed state; raises Problem when the partition does not answer."""
    raw_state, raw_entry = served.open().point(key)
    return served.next_offset(raw_state), Cell(raw_entry)


def next_offset_of(served: Served) -> int:
    """Where the view stands now; raises Problem when the partition does not answer."""
    with served.open().reading() as reading:
        return served.next_offset(reading.raw_state)


def check_running(served: Served, reading: Reading) -> int:
    """The next offset of a reading; raises Problem when the partition has stopped."""
    return served.next_offset(reading.raw_state)


class Views:
    """The opened views, by path."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[int, ViewReader]] = {}

    def attach(self, served: Served) -> None:
        """Give `served` its view, opening it when it is new; a view that cannot be opened is noted and tried again with the next change."""
        served.reader = None
        if served.path is None:
            return
        try:
            served.reader = self._reader(served.path)
        except (Corrupted, OSError) as error:
            served.reason = str(error)
            _log.warning("partition %s of %s: %s", served.partition, served.table, error)

    def keep(self, paths: set[str]) -> None:
        """Close every view whose path is not named."""
        for path in set(self._open) - paths:
            self._open.pop(path)[1].close()

    def close(self) -> None:
        """Close all."""
        self.keep(set())

    def _reader(self, path: str) -> ViewReader:
        inode = (Path(path) / "data.mdb").stat().st_ino  # another file under the same path is another view
        known = self._open.get(path)
        if known is not None and known[0] == inode:
            return known[1]
        if known is not None:
            self._open.pop(path)[1].close()
        reader = ViewReader.open(Path(path))
        self._open[path] = inode, reader
        return reader
