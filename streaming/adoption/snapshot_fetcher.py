"""Snapshot fetcher: the followed tables' repositories, and the way of a snapshot from there to this node."""

import contextlib
import errno
import fcntl
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from logstore.model.errors import Corrupted, DiskFull, StorageUnreachable
from logstore.model.table import Table
from logstore.snapshot.manifest import Manifest
from logstore.snapshot.repository import Pointer, Repository
from logstore.snapshot.storage import Storage
from logstore.snapshot.uses import USE_S
from logstore.snapshot.verdicts import Verdict, Verdicts
from logstore.view import paths
from streaming.adoption.progress import AdoptionProgress
from streaming.lane.disk import local_snapshots
from streaming.lane.disk.local_snapshots import LocalSnapshot
from streaming.lane.target import Target

_MANIFESTS = 64
_NEAR_S, _FAR_S = 2.0, 15.0  # for so long a verdict that was read counts, from a disk here and from afar


class SnapshotFetcher:
    """Fetcher of snapshots; thread-safe. Every call may wait for the storage, so none is made from the lane."""

    def __init__(
        self, data_dir: Path, node: str, progress: AdoptionProgress, *, fetch_mb_s: float | None, worker: int = 0,
        use_s: float = USE_S,
    ) -> None:  # fmt: skip
        """`node` and `worker`: in whose name snapshots are judged, and fetched. `use_s`: see `Repository.in_use`."""
        self._use_s = use_s
        self._data_dir, self._node, self._worker, self._progress = data_dir, node, worker, progress
        self._bytes_per_s = int(fetch_mb_s * 1e6) if fetch_mb_s else None
        self._url: str | None = None
        self._unknown = "the store's definition has not been read yet: where its storage lies is not known"
        self._storage: Storage | None = None
        self._manifests: dict[tuple[str, str, str], Manifest] = {}
        self._verdicts: dict[str, tuple[Verdicts, float]] = {}  # epoch -> what was read, and when
        self._lock, self._far = (
            threading.Lock(),
            threading.Lock(),
        )  # one fetch from afar at a time: the limit is the worker's

    def at(self, url: str | None) -> None:
        """The storage lies here; None: below the data directory."""
        url = url or paths.default_storage(self._data_dir)
        with self._lock:
            if url != self._url:
                self._url, self._storage, self._manifests, self._verdicts = url, None, {}, {}

    def lost(self, why: str) -> None:
        """The store's definition names no storage that may be asked."""
        with self._lock:
            self._url, self._storage, self._manifests, self._unknown = None, None, {}, why

    @property
    def unknown(self) -> str:
        """The reason why it is not known where the storage lies, while it is not."""
        return self._unknown

    @property
    def url(self) -> str | None:
        """URL of the storage; None while it is not known."""
        return self._url

    @property
    def near(self) -> bool:
        """True when looking costs nothing: the storage is a disk here."""
        return (self._url or "").startswith("file:")

    def repository(self, table: Table) -> Repository:
        """The table's repository. Raises StorageUnreachable."""
        with self._lock:
            if self._url is None:
                raise StorageUnreachable(self._unknown)
            if self._storage is None:
                self._storage = Storage(self._url)
            return Repository(self._storage, table.topic, table.epoch)

    def current(self, table: Table) -> Pointer | None:
        """The table's current snapshot; None: it has none. Raises StorageUnreachable, Corrupted."""
        return self.repository(table).current()

    def pointer_mark(self, table: Table) -> int:
        """Number that changes when the table's pointer moves, for a price of next to nothing; 0 where it has none.

        Requires: the storage is near.
        """
        repository = self.repository(table)
        folder = repository.storage.local(repository.file_path("_CURRENT"))
        assert folder is not None, "a near storage is a disk"
        try:
            return folder.stat().st_mtime_ns
        except OSError:  # which is the next look's to tell
            return 0

    def manifest(self, table: Table, name: str) -> Manifest:
        """A snapshot's manifest, read once. Raises NoSuchSnapshot, Corrupted, StorageUnreachable."""
        key = (table.topic, table.epoch, name)
        found = self._manifests.get(key)
        if found is None:
            found = self.repository(table).manifest(name)
            if (found.epoch, found.partitioning) != (table.epoch, table.partitioning):
                raise Corrupted(
                    f"snapshot {name} is not one of table {table.name}: it is of {found.table}, epoch {found.epoch}"
                )
            with self._lock:
                while len(self._manifests) >= _MANIFESTS:
                    del self._manifests[next(iter(self._manifests))]
                self._manifests[key] = found
        return found

    def verdicts(self, table: Table) -> Verdicts:
        """The words on the table's snapshots, some seconds old at most. Raises StorageUnreachable."""
        repository, now_s = self.repository(table), time.monotonic()
        with self._lock:
            known, read_s = self._verdicts.get(table.epoch, (None, 0.0))
            if known is None or now_s - read_s > (_NEAR_S if self.near else _FAR_S):
                known = repository.verdicts(table.base_snapshot)
                self._verdicts[table.epoch] = known, now_s
            return known

    def said(self, table: Table, name: str, partition: int) -> Verdict | None:
        """The own word of this node on a partition of a snapshot. Raises StorageUnreachable."""
        return self.verdicts(table).of(name).get(self._node, {}).get(partition)

    def say(self, table: Table, name: str, parts: Mapping[int, Verdict]) -> None:
        """Write this node's words on a snapshot; its workers take turns. Raises StorageUnreachable, OSError."""
        verdicts = self.repository(table).verdicts(table.base_snapshot)
        with (self._data_dir / "verdicts.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            verdicts.say(name, self._node, parts)
        with self._lock:
            self._verdicts[table.epoch] = verdicts, time.monotonic()

    def bring(self, target: Target, manifest: Manifest, *, again: bool = False) -> LocalSnapshot:
        """Have a snapshot's files of a partition here and readable.

        Fetched, or there already. `again`: what is there is damaged.

        Raises Corrupted, StorageUnreachable, DiskFull.
        """
        directory = self.snapshots(target)
        known = None if again else local_snapshots.find(directory, manifest.name)
        if known is not None and local_snapshots.has_sound_decisions(known):
            return known
        repository = self.repository(target.table)
        mark, fetched = f"{self._node}-{self._worker}-{target.partition}", 0

        def on_bytes(count: int) -> None:
            nonlocal fetched
            fetched += count
            self._progress.show(target, fetched_bytes=fetched, worked=fetched)

        total = sum(facts.size_bytes for facts in manifest.all_files_of(target.partition))
        self._progress.show(
            target, candidate=manifest.name, state="fetching", reason="", fetched_bytes=0, total_bytes=total,
            work="fetch", worked=0,
        )  # fmt: skip
        try:
            with (
                repository.in_use(mark, [manifest.name], self._use_s),
                contextlib.nullcontext() if self.near else self._far,
            ):
                return local_snapshots.fetch(
                    repository,
                    manifest,
                    target.partition,
                    directory,
                    bytes_per_s=self._bytes_per_s,
                    on_bytes=on_bytes,
                    again=again,
                )
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(
                    f"no room for snapshot {manifest.name} below {directory}: {error.strerror}; free some space"
                ) from error
            raise StorageUnreachable(f"snapshot {manifest.name} cannot be fetched: {error}") from error

    def snapshots(self, target: Target) -> Path:
        """The folder of a partition's local snapshots."""
        return paths.snapshot_dir(self._data_dir, target.table.name, target.table.epoch, target.partition)
