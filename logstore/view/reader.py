"""ViewReader: reads one view while another process writes it. Every reading sees one committed state, never a half."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import lmdb
import orjson

from logstore.model.errors import Corrupted, LogStoreError
from logstore.model.hard_rows.rules import DedupWindow
from logstore.view import damage, layout
from logstore.view.conditional import expiries
from logstore.view.conditional.decisions import DecisionDatabases, DecisionReading
from logstore.view.layout import Base, Quarantine, State

_CHUNK_BYTES = 1 << 19  # of long keys selected at a time; twice as much is held while they are


class ViewReader:
    """A view opened for reading.

    Requires: no transaction is left open between calls (one thread, nothing awaited inside).
    """

    def __init__(self, env: Any, path: Path) -> None:
        """Read the environment at `path` that is open in this process (LMDB allows one opening a process).

        See `open` for others.
        """
        self._env, self._path = env, path
        self._entries, self._meta, self._quarantine = (
            env.open_db(name, create=False) for name in (layout.ENTRIES, layout.META, layout.QUARANTINE)
        )
        window, self.expiring = self._identity()  # expiring: entries may carry an expiry
        self._expiries = env.open_db(expiries.EXPIRIES, create=False) if self.expiring else None
        self._decisions = window and DecisionDatabases.opened(env, self._meta, window, create=False)

    @classmethod
    def open(cls, path: Path) -> "ViewReader":
        """Open the view that another process writes.

        Raises Corrupted when there is no sound view at `path`, NotYet and OSError when it cannot be opened now.
        """
        with damage.translating(path):
            env = open_to_read(path)
            try:
                return cls(env, path)
            except BaseException:
                env.close()
                raise

    def point(self, row_key: bytes) -> tuple[bytes, bytes | None]:
        """State and entry (or None) of one commit, both encoded.

        Requires: the row key is not empty. Raises as `reading`.
        """
        if len(row_key) > layout.SHORT_BYTES:
            with self.reading() as reading:
                return reading.raw_state, reading.get(row_key)
        try:
            with self._env.begin() as txn:  # positional arguments: a quarter of the time
                return txn.get(layout.STATE, b"", self._meta), txn.get(row_key, None, self._entries)
        except lmdb.MapResizedError:
            self._env.set_mapsize(0)
            return self.point(row_key)
        except lmdb.Error as error:
            raise damage.translated(self._path, error) from error

    @contextmanager
    def reading(self) -> "Iterator[Reading]":
        """Several reads of one committed state. Keep it short: it stops the writer from reusing pages.

        All that is read raises Corrupted when the view is damaged, NotYet when it cannot be read now.
        """
        txn = self._begin()
        try:
            yield self._reading_of(txn)
        finally:
            txn.abort()

    def _reading_of(self, txn: Any) -> "Reading":
        return Reading(txn, self._entries, self._meta, self._quarantine, self._path, self._decisions, self._expiries)

    def state(self) -> State:
        """State of the view: position and stop."""
        with self.reading() as reading:
            return reading.state

    def base(self) -> Base | None:
        """The snapshot that holds what this view leaves out.

        None: the view holds everything. It never changes in one environment.
        """
        with self.reading() as reading:
            return reading.base

    def size_bytes(self) -> int:
        """Bytes of the environment in use."""
        return int(self._env.info()["last_pgno"] + 1) * 4096

    def map_bytes(self) -> int:
        """Address space of the map, as this process opened it."""
        return int(self._env.info()["map_size"])

    def free_pages(self) -> int | None:
        """Pages that hold nothing and are used again; None of a view that cannot be read.

        All that are in use but those of the databases and the two that name them; LMDB's list of free ones counts.
        """
        try:
            with self.reading() as reading:
                used = reading.used_pages()
            return max(int(self._env.info()["last_pgno"]) + 1 - 2 - used, 0)
        except LogStoreError:
            return None

    def slots(self) -> int:
        """The most reader slots, of `layout.MAX_READERS`, that were in use at once.

        A dead reader's counts until it is freed.
        """
        return int(self._env.info()["num_readers"])

    def pids(self) -> set[int]:
        """Processes that have a reader slot, or had one when they died."""
        return {int(line.split()[0]) for line in self._env.readers().splitlines()[1:]}

    def quarantine_counts(self) -> dict[str, int]:
        """Counts of records that the fold skipped, by reason."""
        with self.reading() as reading:
            return reading.quarantine_counts()

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _identity(self) -> tuple[DedupWindow | None, bool]:
        """The window of a conditional table's view, and whether its rows expire."""
        with self._env.begin() as txn:
            raw = txn.get(layout.IDENTITY, b"{}", self._meta)
        try:
            found = orjson.loads(raw)
            expiring = found.get("expiring") is True
            if "dedup_records" not in found:
                return None, expiring
            return DedupWindow(found["dedup_records"], found["dedup_window_ms"]), expiring
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupted(f"the view {self._path} does not say what it is of: {error}") from error

    def _begin(self) -> Any:
        try:
            return self._env.begin()
        except lmdb.MapResizedError:  # the writer has grown the map: take its size over
            self._env.set_mapsize(0)
            return self._begin()
        except lmdb.Error as error:
            raise damage.translated(self._path, error) from error


def open_to_read(path: Path, room: int = 1) -> Any:
    """The environment of a view that another process writes; `room`: how many times its file the map reaches.

    Raises Corrupted when there is no sound view, lmdb.Error, OSError.
    """
    try:
        damage.check_whole(path)
    except FileNotFoundError as error:
        raise Corrupted(f"the view {path} cannot be read: {error.strerror}") from error
    return lmdb.open(
        str(path), readonly=True, create=False, max_dbs=layout.DATABASES, max_readers=layout.MAX_READERS,
        readahead=False, map_size=_map_bytes(path) * room, max_spare_txns=4,
    )  # fmt: skip


class Reading:
    """A committed state of a view."""

    def __init__(
        self,
        txn: Any,
        entries: Any,
        meta: Any,
        quarantine: Any,
        path: Path,
        databases: DecisionDatabases | None,
        ends: Any = None,
    ) -> None:
        self._txn, self._entries, self._meta, self._quarantine, self._path = txn, entries, meta, quarantine, path
        self._databases, self._expiries = databases, ends

    @property
    def raw_state(self) -> bytes:
        """The state, encoded; raises Corrupted when there is none."""
        try:
            raw: bytes | None = self._txn.get(layout.STATE, db=self._meta)
        except lmdb.Error as error:
            raise damage.translated(self._path, error) from error
        if raw is None:
            raise Corrupted(f"the view {self._path} has no state")
        return raw

    @property
    def state(self) -> State:
        """State of the view: position and stop."""
        return State.decode(self.raw_state)

    @cached_property
    def decisions(self) -> DecisionReading | None:
        """Outcomes and ids; None: the table is plain. Raises Corrupted, NotYet."""
        found = self._databases
        return found and DecisionReading(found, self._txn, self.state.log_time_ms, self._path)

    @property
    def expiring(self) -> bool:
        """True where entries may carry an expiry."""
        return self._expiries is not None

    @property
    def base(self) -> Base | None:
        """The snapshot the view stands on; raises Corrupted when that cannot be read."""
        raw = self._get(layout.BASE, self._meta)
        return None if raw is None else Base.decode(raw)

    def get(self, row_key: bytes) -> bytes | None:
        """The encoded entry of a row; None when the view has none (its base may have one)."""
        try:
            raw: bytes | None = self._txn.get(layout.cell_key(row_key), db=self._entries)
        except lmdb.Error as error:
            raise damage.translated(self._path, error) from error
        if raw is None or len(row_key) <= layout.SHORT_BYTES:
            return raw
        return next((entry for key, entry in layout.unpack_bucket(raw) if key == row_key), None)

    def scan(
        self, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows of `[start, end)` as (row key, encoded entry), in byte order, or from the end downwards.

        Tombstones are entries too.

        Long keys (over 495 bytes) with one prefix are put in order a group at a time: time grows with the group, memory
        with its keys.
        """
        trimmed = len(start) > layout.SHORT_BYTES or (end is not None and len(end) > layout.SHORT_BYTES)
        done = None
        try:
            for item in _walk(self._txn.cursor(db=self._entries), start, end, reverse=reverse):
                if layout.is_bucket(item[0]):
                    prefix = item[0][: layout.SHORT_BYTES]
                    if prefix != done:
                        done = prefix
                        yield from self._long_rows(prefix, start, end, reverse=reverse)
                elif not trimmed or (item[0] >= start and (end is None or item[0] < end)):
                    yield item
        except lmdb.Error as error:
            raise damage.translated(self._path, error) from error

    def _long_rows(
        self, prefix: bytes, start: bytes, end: bytes | None, *, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        """The rows of all buckets of one prefix, in byte order.

        The next few are selected, again and again, so memory stays small.
        """
        while chunk := _first(
            (key for key in self._bucket_keys(prefix) if key >= start and (end is None or key < end)), reverse=reverse
        ):
            for key in chunk:
                entry = self.get(key)
                if entry is None:  # one transaction, one state
                    raise Corrupted(f"the view {self._path} is damaged: it lists a key that it does not find")
                yield key, entry
            start, end = (start, chunk[-1]) if reverse else (chunk[-1] + b"\0", end)

    def _bucket_keys(self, prefix: bytes) -> Iterator[bytes]:
        for lmdb_key, raw in _walk(self._txn.cursor(db=self._entries), prefix, prefix + b"\xff" * 9, reverse=False):
            if layout.is_bucket(lmdb_key):  # not the short key that equals the prefix
                yield from (key for key, _ in layout.unpack_bucket(raw))

    def used_pages(self) -> int:
        """Pages of all databases of the view. Raises Corrupted."""
        with damage.translating(self._path):
            databases = [self._entries, self._meta, self._quarantine]
            if self._databases is not None:
                databases += [self._databases.outcomes, self._databases.ids, self._databases.id_ends]
            if self._expiries is not None:
                databases.append(self._expiries)
            stats = [self._txn.stat(db) for db in databases]
        return sum(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats)

    def quarantine_counts(self) -> dict[str, int]:
        """Counts of records that the fold skipped, by reason."""
        return layout.unpack_counts(self._get(layout.COUNTS, self._meta) or b"{}")

    def quarantine(self) -> Quarantine:
        """Records that the fold skipped, newest last."""
        counts = self.quarantine_counts()
        with damage.translating(self._path):
            found = list(self._txn.cursor(db=self._quarantine))
        return Quarantine(
            counts, [(layout.unpack_offset(key), reason.decode(errors="replace")) for key, reason in found]
        )

    def count(self) -> int:
        """Count of entries in the view, tombstones included (a bucket counts once)."""
        with damage.translating(self._path):
            return int(self._txn.stat(self._entries)["entries"])

    def _get(self, key: bytes, database: Any) -> bytes | None:
        with damage.translating(self._path):
            raw: bytes | None = self._txn.get(key, db=database)
        return raw


def _walk(cursor: Any, start: bytes, end: bytes | None, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
    """LMDB items that can hold rows of `[start, end)`: a superset at the edges, where long keys stand out of order."""
    low = start[: layout.SHORT_BYTES]
    high = None if end is None else end if len(end) <= layout.SHORT_BYTES else end[: layout.SHORT_BYTES] + b"\xff" * 9
    if reverse:
        items = cursor.iterprev() if _seek_below(cursor, high) else ()
        return takewhile(lambda item: item[0] >= low, items) if low else iter(items)
    items = cursor.iternext() if (cursor.set_range(low) if low else cursor.first()) else ()
    return iter(items) if high is None else takewhile(lambda item: item[0] < high, items)


def _first(keys: Iterable[bytes], *, reverse: bool) -> list[bytes]:
    """The first keys in order, or from the end downwards: about _CHUNK_BYTES of them, at least one if there is any."""
    fitting: list[bytes] = []
    size_bytes = 0
    for key in keys:
        fitting.append(key)
        size_bytes += len(key)
        if size_bytes > 2 * _CHUNK_BYTES:
            fitting, size_bytes = _trim(fitting, reverse=reverse)
    return _trim(fitting, reverse=reverse)[0]


def _trim(keys: list[bytes], *, reverse: bool) -> tuple[list[bytes], int]:
    """The first of these keys up to _CHUNK_BYTES, in order, and their size in bytes."""
    keys.sort(reverse=reverse)
    size_bytes = 0
    for count, key in enumerate(keys):
        if count and size_bytes + len(key) > _CHUNK_BYTES:
            return keys[:count], size_bytes
        size_bytes += len(key)
    return keys, size_bytes


def _seek_below(cursor: Any, high: bytes | None) -> bool:
    if high is None or not cursor.set_range(high):
        return bool(cursor.last())
    return bool(cursor.prev())


def _map_bytes(path: Path) -> int:
    return (
        max(layout.DEFAULT_MAP_BYTES, (path / "data.mdb").stat().st_size)
        if (path / "data.mdb").exists()
        else layout.DEFAULT_MAP_BYTES
    )
