"""Local snapshots under the views, on this node's disk, each opened read-only and once per process.

A view that stands on a snapshot holds only what came after its cut, so a snapshot that cannot be read stops the answers
that need it: what the view alone would say may be wrong. What was found damaged is told to the worker, which brings it
again.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from logstore.model.errors import Corrupted, Starting
from logstore.serve.wire.problems import Problem
from logstore.snapshot.sst import SstReader
from logstore.view.feed.acknowledgement import SnapshotPlace
from logstore.view.feed.view_records import LocalSnapshotRecord

log = logging.getLogger(__name__)


class OpenSnapshot:
    """A snapshot of one partition on this disk.

    It holds every live entry of a version below `cut`, and shows no tombstones.
    """

    __slots__ = ("_on_damage", "_path", "_reader", "cut", "log_time_ms", "where")

    def __init__(
        self, where: SnapshotPlace, path: Path, record: LocalSnapshotRecord, on_damage: "Callable[[OpenSnapshot], None]"
    ) -> None:
        self.where, self._path, self._on_damage = where, path, on_damage
        self.cut, self.log_time_ms = record.cut, record.log_time_ms
        self._reader: SstReader | None = None

    def open(self) -> None:
        """Open the snapshot's files, unless they are open; raises Corrupted, OSError."""
        if self._reader is not None:
            return
        try:
            self._reader = SstReader.open(self._path)
        except (Corrupted, OSError):
            self._on_damage(self)
            raise

    def get(self, key: bytes) -> bytes | None:
        """The encoded entry of a row. Requires: it is open. Raises Problem when the bytes there are damaged."""
        reader = self._reader
        assert reader is not None, "opened before read"
        try:
            return reader.get(key)
        except Corrupted as error:
            raise self._damaged(error) from error

    def scan(self, start: bytes, end: bytes | None, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Rows of `[start, end)` as (row key, encoded entry), in byte order, or from the end downwards.

        Requires and raises as `get`.
        """
        assert self._reader is not None, "opened before read"
        try:
            yield from self._reader.scan(start, end, reverse=reverse)
        except Corrupted as error:
            raise self._damaged(error) from error

    def close(self) -> None:
        """Let go of its files."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _damaged(self, error: Corrupted) -> Problem:
        self._on_damage(self)
        table, _, partition, snapshot = self.where
        log.error("snapshot %s under partition %s of %s: %s", snapshot, partition, table, error)
        detail = f"snapshot {snapshot} under partition {partition} of {table!r} is damaged on this node: {error}"
        helps = (
            "the node brings it again by itself, `logstore status` shows that; "
            f"`logstore snapshot verify {table}` tests the storage"
        )
        return Problem(
            "partition-stopped",
            f"{detail}; {helps}",
            table=table,
            partition=partition,
            reason="corrupted",
            snapshot=snapshot,
        )


class OpenSnapshots:
    """The snapshots that the workers of this node speak of, by path."""

    def __init__(self, *, shared: bool = False) -> None:
        """`shared`: other threads may read just now, so what is let go is closed by the last of them that holds it."""
        self._shared = shared
        self._known: dict[str, OpenSnapshot] = {}
        self._damaged: dict[str, SnapshotPlace] = {}
        self.on_damage: Callable[[], None] = lambda: None  # called when `damaged` has grown

    def local(self, where: SnapshotPlace, record: LocalSnapshotRecord) -> OpenSnapshot:
        """The snapshot that a worker speaks of, opened or not yet; raises Starting while it is not on this disk."""
        path = record.path
        if path is None:
            raise Starting(f"snapshot {where.snapshot}, on which the view stands, is being brought to this node")
        known = self._known.get(path)
        if known is None:
            known = self._known[path] = OpenSnapshot(where, Path(path), record, lambda _: self._note(path, where))
        return known

    def close_others(self, paths: set[str]) -> None:
        """Close and forget every snapshot whose path is not named."""
        for path in set(self._known) - paths:
            gone = self._known.pop(path)
            if not self._shared:
                gone.close()
            self._damaged.pop(path, None)

    def damaged(self) -> tuple[SnapshotPlace, ...]:
        """Snapshots found damaged that the workers still name."""
        return tuple(sorted(self._damaged.values()))

    def _note(self, path: str, where: SnapshotPlace) -> None:
        if path not in self._damaged:
            self._damaged[path] = where
            self.on_damage()
