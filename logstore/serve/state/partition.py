"""Served partition of one table, and the opened views and snapshots behind it.

A view is opened once per process (LMDB's rule) and closed when no worker of the node speaks of it any more. Everything
here runs on the event loop and nothing is awaited while a reading is open, so a view is never closed under a reader's
feet. View and snapshot are attached together or not at all, and those of the next generation before those of the last
are let go.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from logstore.model.errors import Corrupted, LogStoreError, Starting
from logstore.model.folding.entry import CELLS, HEAD_BYTES, SIBLINGS, TOMBSTONE, VALUE, Entry
from logstore.model.folding.sibling import Ends, Value, first_end
from logstore.model.hard_rows.packed import side_by_side
from logstore.model.wide.cell import PackedCells
from logstore.serve.state.local_snapshots import OpenSnapshot, OpenSnapshots
from logstore.serve.wire.problems import Problem
from logstore.snapshot.verdicts import PROVED
from logstore.view.feed.acknowledgement import SnapshotPlace
from logstore.view.feed.view_records import CATCHING_UP, STOPPED, LocalSnapshotRecord, ViewKey, ViewRecord
from logstore.view.layout import STATE_BYTES, State, Stop
from logstore.view.reader import ViewReader

ELSEWHERE, UNSERVED = "elsewhere", "unserved"  # states of a partition that another node serves, or none
VIEW, SNAPSHOT = "view", "snapshot"  # where an entry came from

log = logging.getLogger(__name__)


class ServedPartition:
    """A partition that this reader serves. `end` is the end of the log as last heard, None when never heard."""

    __slots__ = (
        "base", "base_record", "end", "epoch", "head", "older", "older_records", "partition", "path", "proofs",
        "reached", "reader", "reason",
        "slot", "state",
        "stood", "table", "tail", "times",
    )  # fmt: skip

    def __init__(self, key: ViewKey, record: ViewRecord) -> None:
        self.table, self.epoch, self.partition = key.table, key.epoch, key.partition
        self.head = f"{key.epoch}-{key.partition}-"  # what ETags and tokens begin with
        self.reader: ViewReader | None = None
        self.base: OpenSnapshot | None = None  # the snapshot that the view stands on
        self.older: list[OpenSnapshot] = []  # older ones, still on this disk
        self.end: int | None = None
        self.times: Sequence[tuple[int, int]] = ()  # (log time, next offset) that it has stood at
        self.proofs: Mapping[str, str] = {}  # local snapshot -> its standing, as workers say; absent: not known yet
        self.stood = b""  # the fast path's: the state it saw last
        self.tail = ("", "")  # and the headers that follow from it, of an entry of the view and of the snapshot
        self.update(record)

    def update(self, record: ViewRecord) -> None:
        """Take over what a worker says."""
        self.path, self.slot, self.state, self.reason = record.path, record.slot, record.state, record.reason
        self.reached = record.reached
        self.base_record, self.older_records = record.base, record.older

    def record_fields(self) -> tuple[object, ...]:
        """Fields whose change makes the reader look at views and snapshots again."""
        return self.path, self.state, self.reached, self.reason, self.base_record, self.older_records

    def local_snapshots(self) -> list[OpenSnapshot]:
        """Every snapshot of this partition that is here; the one the view stands on first."""
        return [self.base, *self.older] if self.base is not None else self.older

    def paths(self) -> set[str]:
        """Folders of the local snapshots that a worker names."""
        records = [self.base_record, *self.older_records]
        return {record.path for record in records if record is not None and record.path is not None}

    def open(self, *, past: bool = False) -> ViewReader:
        """The view; `past`: to read as of a point that it has applied, which it need not have been at the end for.

        Raises Problem while it is not open, or when the worker says that the partition has stopped.
        """
        if self.state == STOPPED and self.reader is None:
            raise self.stopped(None)
        if self.reader is None:
            detail = f"partition {self.partition} of {self.table!r} is being opened here" + (
                f": {self.reason}" if self.reason else ""
            )
            raise Problem("starting", f"{detail}; try again", partition=self.partition)
        if not self.answers and not past:
            raise Problem(
                "starting", f"partition {self.partition} of {self.table!r} {self.first_catch_up()}; rows may "
                f"be missing until then, so it does not answer{self._past()}; try again", partition=self.partition,
            )  # fmt: skip
        return self.reader

    def _past(self) -> str:
        """Way to read a view that has never been at the end of the log: as of the cut of its snapshot."""
        base = self.base
        if base is None or self.proofs.get(base.where.snapshot) != PROVED:
            return ""
        return f" (as_of={self.head}{base.cut} reads what it held when snapshot {base.where.snapshot} was made)"

    @property
    def answers(self) -> bool:
        """False for a view on its first way to the end of the log: what it lacks is not absent."""
        return self.reached or self.state != CATCHING_UP

    def first_catch_up(self) -> str:
        """Progress of the view on its first way to the end of the log."""
        applied = 0 if self.reader is None else self.reader.state().next_offset
        share = f", {applied / self.end:.0%}" if self.end else ""
        return f"catches up for the first time: at offset {applied:,} of {self.end or 0:,}{share}"

    def next_offset(self, raw_state: bytes) -> int:
        """Next offset of the view.

        Raises Problem when the partition has stopped, by the view's own word or the worker's.
        """
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
        return Problem(
            "partition-stopped", f"partition {self.partition} of {self.table!r} has stopped: {reason}", **fields
        )


class Cell:
    """A row's entry as a reader sees it.

    `version` None = never written; `payload` None = not there, a tuple = values side by side, PackedCells = a wide row;
    `source` says where it was; `expires_ms`: when it ends; `seen_ms`: the instant at which it was looked at, where that
    decides what is there: of an entry with an end, or of several values; `ends`: of its value, or of each sibling.
    """

    __slots__ = ("ends", "expires_ms", "payload", "seen_ms", "source", "version")

    def __init__(self, raw: bytes | None, source: str = VIEW, now_ms: int = 0) -> None:
        """Take the entry apart, as seen at `now_ms`; raises Corrupted for one that this build does not write."""
        self.version: int | None = None
        self.payload: Value | PackedCells | None = None
        self.expires_ms: int | None = None
        self.ends: Ends = ()
        self.seen_ms = 0
        self.source = source if raw is not None else VIEW
        if raw is None:
            return
        if len(raw) >= HEAD_BYTES and raw[0] in (VALUE, TOMBSTONE):  # nearly all of them
            self.version = int.from_bytes(raw[1:9], "big")
            if raw[0] == VALUE:
                self.payload = raw[HEAD_BYTES:]
        else:
            self._decode(raw, now_ms)

    def _decode(self, raw: bytes, now_ms: int) -> None:
        """Take an entry with an expiry, or of several values, apart."""
        try:
            entry = Entry.decode(raw)
            if entry.kind == SIBLINGS:
                self.version = entry.version
                self.payload, self.ends = side_by_side(entry, now_ms)
                self.expires_ms = first_end(self.ends)
                self.seen_ms = now_ms  # whatever is left: what has ended is not in it
                return
        except Corrupted as error:
            raise Corrupted(
                "an entry is damaged or was written by a later build; upgrade, or remove the view: it is built again "
                "from the log"
            ) from error
        self.version, self.expires_ms, self.seen_ms = entry.version, entry.expires_ms, now_ms
        self.ends = () if entry.expires_ms is None else (entry.expires_ms,)
        if entry.kind in (VALUE, CELLS) and not entry.expired(now_ms):
            self.payload = entry.payload if entry.kind == VALUE else PackedCells(entry.payload)


def next_offset_of(served: ServedPartition, *, past: bool = False) -> int:
    """Next offset of the view; raises Problem when the partition does not answer. `past` as of `open`."""
    with served.open(past=past).reading() as reading:
        return served.next_offset(reading.raw_state)


def state_of(served: ServedPartition) -> State:
    """State of the view, to read as of a point; raises Problem when the partition does not answer."""
    with served.open(past=True).reading() as reading:
        raw = reading.raw_state
    served.next_offset(raw)
    return State.decode(raw)


def detach(served: ServedPartition) -> None:
    """Take view and snapshots away: the partition does not answer until it has them again."""
    served.reader, served.base, served.older = None, None, []


class Views:
    """The opened views, by path, and the snapshots under them."""

    def __init__(self, open_view: Callable[[Path], ViewReader] = ViewReader.open, *, shared: bool = False) -> None:
        """`shared`: other threads may read just now, so what is let go is closed by the last of them that holds it."""
        self._open: dict[str, tuple[int, ViewReader]] = {}
        self._open_view, self._shared = open_view, shared
        self.snapshots = OpenSnapshots(shared=shared)

    def attach(self, served: ServedPartition) -> None:
        """Give `served` its view and snapshot, opening what is new.

        What cannot be opened is noted and tried again with the next change.
        """
        detach(served)
        if served.path is None:
            return
        try:
            reader = self._reader(served.path)
            served.base = self._base(served, reader)
            served.older = [
                self._snapshot(served, record) for record in served.older_records if record.path is not None
            ]
            served.reader = reader
        except (LogStoreError, OSError) as error:  # this partition alone does not answer
            detach(served)
            served.reason = str(error)
            log.warning("partition %s of %s: %s", served.partition, served.table, error)

    def close_others(self, served: Iterable[ServedPartition]) -> None:
        """Close every view and snapshot that belongs to none of these."""
        using = list(served)
        for path in set(self._open) - {one.path for one in using}:
            self._let_go(path)
        self.snapshots.close_others({path for one in using for path in one.paths()})

    def opened(self) -> list[ViewReader]:
        """The views that are open now."""
        return [reader for _, reader in self._open.values()]

    def close(self) -> None:
        """Close views and snapshots."""
        self.close_others(())

    def _base(self, served: ServedPartition, reader: ViewReader) -> OpenSnapshot | None:
        """The snapshot that the view stands on by its own word, opened. Raises Corrupted, Starting, NotYet, OSError."""
        base, record = reader.base(), served.base_record
        if base is None:
            return None
        if record is None or (record.snapshot, record.cut) != (base.snapshot, base.cut):
            named = "none" if record is None else record.snapshot
            raise Starting(
                f"the view stands on snapshot {base.snapshot} and the worker names {named}; it cannot be read without "
                "the right one"
            )
        local = self._snapshot(served, record)
        local.open()
        return local

    def _snapshot(self, served: ServedPartition, record: LocalSnapshotRecord) -> OpenSnapshot:
        return self.snapshots.local(
            SnapshotPlace(served.table, served.epoch, served.partition, record.snapshot), record
        )

    def _reader(self, path: str) -> ViewReader:
        inode = (Path(path) / "data.mdb").stat().st_ino  # another file under the same path is another view
        known = self._open.get(path)
        if known is not None and known[0] == inode:
            return known[1]
        if known is not None:
            self._let_go(path)
        reader = self._open_view(Path(path))
        self._open[path] = inode, reader
        return reader

    def _let_go(self, path: str) -> None:
        _, reader = self._open.pop(path)
        if not self._shared:
            reader.close()
