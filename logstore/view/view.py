"""View: the fast path's materialisation of one partition in LMDB. Entries and position commit in one transaction.

A commit, step by step (`docs/corridor.md` tells the same):

    1. make room: the file's blocks are allocated before they are mapped to, so that a full disk is an error, no SIGBUS
    2. write the entries, in key order, and of a conditional table what was decided
    3. list what was quarantined
    4. write the state: next offset, log time, and the stop if there is one
    5. commit; readers see all of it or nothing

What it lies in, and what survives a power cut, is told by `environment`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb
import orjson

from logstore.model.errors import Corrupted, DiskFull
from logstore.model.folding.decided import Decided
from logstore.model.folding.fold import Folded
from logstore.model.hard_rows.decisions import DecisionItem
from logstore.model.hard_rows.rules import DedupWindow
from logstore.model.record_identity import RecordIdentity
from logstore.model.table import Table
from logstore.process import durable
from logstore.view import damage, environment, layout, preallocate
from logstore.view.conditional import decisions, expiries
from logstore.view.conditional.decisions import DecisionDatabases
from logstore.view.environment import PAGE, Sync
from logstore.view.layout import Base, Quarantine, State, Stop
from logstore.view.reader import ViewReader

_PAGES_PER_ENTRY = 3  # a leaf, its branch and a split, each copied on write
_ENTRY_OVERHEAD = 32
_SPARE_PAGES = 64
_STEP = 1 << 20
_LOADED = 5_000  # decision items of one transaction
_NO_QUARANTINE = Quarantine({}, [])
_NOTHING = Folded(0, 0, {}, [], None)


@dataclass(frozen=True, slots=True)
class ViewIdentity:
    """Table, epoch, partition and rules that a view is made for; checked whenever it is opened."""

    table: str
    epoch: str
    partition: int
    partitions: int
    max_value_bytes: int
    dedup_records: int = 0  # of a conditional table, else 0: no outcomes and ids are remembered
    dedup_window_ms: int = 0
    expiring: bool = False  # entries may carry an expiry
    format: int = 1

    @classmethod
    def of(cls, table: Table, partition: int) -> "ViewIdentity":
        """The identity of the view of a table's partition."""
        window = (table.dedup_records, table.dedup_window_ms) if table.conditional else (0, 0)
        return cls(table.name, table.epoch, partition, table.partitions, table.max_value_bytes, *window, table.expiring)

    @property
    def window(self) -> DedupWindow | None:
        """The window of a conditional table; None: the table is plain."""
        return DedupWindow(self.dedup_records, self.dedup_window_ms) if self.dedup_records else None


class View:
    """The one writer of one partition's view.

    Not thread-safe; requires: the caller holds the partition's `paths.Owner`.
    """

    def __init__(
        self,
        path: Path,
        identity: ViewIdentity,
        base: Base | None = None,
        *,
        quarantine: Quarantine = _NO_QUARANTINE,
        sync: Sync = "none",
        map_bytes: int = layout.DEFAULT_MAP_BYTES,
    ) -> None:
        """Open or create the environment.

        Raises Corrupted when the environment holds another view or is damaged, DiskFull, NotYet (retriable), OSError.

        A new environment stands on `base` and begins at its cut with what was skipped below it (`quarantine`), else at
        offset 0; one that is there keeps its own.
        """
        self.path, self._sync = path, sync
        self._allocated = 0
        self._expiries: Any = None  # the database of ends, where rows expire
        self._env = environment.prepare(path, sync, map_bytes)
        try:
            self._make_room(_NOTHING)
            with damage.translating(path):
                self._entries, self._meta, self._quarantine = map(
                    self._env.open_db, (layout.ENTRIES, layout.META, layout.QUARANTINE)
                )
                self._decisions = identity.window and DecisionDatabases.opened(
                    self._env, self._meta, identity.window, create=True
                )
                if identity.expiring:
                    self._expiries = self._env.open_db(expiries.EXPIRIES)
                self.state, self.base = self._recover(identity, base, quarantine)
                self.counter, self.revision = self._number(decisions.COUNTER), self._number(decisions.REVISION)
            if sync == "commit":  # it may have been written without sync before
                environment.clear_unsynced(self.path, self._env)
        except BaseException:
            self._env.close()
            raise

    @property
    def next_offset(self) -> int:
        """The offset of the record that is applied next."""
        return self.state.next_offset

    def apply(
        self,
        folded: Folded,
        leader_epoch: int | None = None,
        stop: Stop | None = None,
        last: RecordIdentity | None = None,
    ) -> None:
        """Commit a folded batch and its position; `stop` marks the partition as stopped at the new position.

        `leader_epoch` and `last` are those of the batch's last record; None leaves the one before.

        Raises DiskFull, NotYet (retriable), OSError: nothing has changed then; Corrupted when the view is damaged.
        """
        assert folded.next_offset >= self.state.next_offset, "a position never goes back"
        state = State(
            folded.next_offset,
            folded.log_time_ms,
            self.state.leader_epoch if leader_epoch is None else leader_epoch,
            stop,
            last or self.state.last,
        )
        self._make_room(folded)
        while not self._commit(folded, state):
            self._enlarge()
            self._make_room(folded)  # the larger map reaches behind what is allocated
        self.state = state
        if folded.decided is not None:
            self.counter, self.revision = folded.decided.counter, folded.decided.revision

    def stop(self, stop: Stop) -> None:
        """Mark the partition as stopped where it stands. Readers answer 503 until an `apply` clears it."""
        self.apply(Folded(self.state.next_offset, self.state.log_time_ms, {}, [], None), stop=stop)

    def resume(self) -> None:
        """Clear the mark of `stop`: its cause is gone."""
        self.apply(Folded(self.state.next_offset, self.state.log_time_ms, {}, [], None))

    def reader(self) -> ViewReader:
        """Read this view in the writer's own process (LMDB allows one opening a process)."""
        return ViewReader(self._env, self.path)

    def size_bytes(self) -> int:
        """Bytes of the environment in use."""
        return int(self._env.info()["last_pgno"] + 1) * PAGE

    def free_slots(self) -> int:
        """Take back the reader slots of processes that have died, and the pages they held on to; returns how many."""
        return int(self._env.reader_check())

    def close(self, *, flush: bool = True) -> None:
        """Flush and close the environment.

        A view closed this way survives a power cut. Without `flush` it keeps its mark, and takes no time.

        Raises as `apply`; it is closed then, and keeps its mark.
        """
        try:
            if flush:
                environment.clear_unsynced(self.path, self._env)
        finally:
            self._env.close()

    def move(self, path: Path) -> None:
        """Give the folder another name while it is open, durably. Requires: nothing is there."""
        self.path.rename(path)
        durable.flush(path.parent)
        self.path = path

    def set_quarantine(self, quarantine: Quarantine) -> None:
        """Replace the list of what was skipped: a view that is copied takes that of its source. Raises as `apply`."""
        with damage.translating(self.path), self._env.begin(write=True) as txn:
            self._write_quarantine(txn, quarantine)

    def load_decisions(self, items: Iterable[DecisionItem], counter: int, revision: int = 0) -> None:
        """Add decision items of a snapshot or of another view; count as many outcomes, and have the rules, of that one.

        Raises as `apply`; some of them may be there then. Requires: the table is conditional.
        """
        assert self._decisions is not None, "the table is conditional"
        left = iter(items)
        while chunk := list(islice(left, _LOADED)):
            room = dict(chunk)
            self._make_room(_NOTHING._replace(entries=room))
            while not self._transaction(partial(decisions.load, self._decisions, items=chunk)):
                self._enlarge()
                self._make_room(_NOTHING._replace(entries=room))
        self._transaction(partial(decisions.write, self._decisions, decided=Decided({}, {}, counter, revision)))
        self.counter, self.revision = counter, revision

    def _recover(self, identity: ViewIdentity, base: Base | None, quarantine: Quarantine) -> tuple[State, Base | None]:
        with self._env.begin(write=True) as txn:
            raw = txn.get(layout.IDENTITY, db=self._meta)
            if raw is None:
                return self._begin_new(txn, identity, base, quarantine), base
            if raw != _identity_bytes(identity):
                raise Corrupted(f"{self.path} holds another view: {raw[:1_000]!r}, wanted {asdict(identity)}")
            standing = txn.get(layout.BASE, db=self._meta)
            return State.decode(txn.get(layout.STATE, db=self._meta) or b""), standing and Base.decode(standing)

    def _number(self, name: bytes) -> int:
        with self._env.begin() as txn:
            return layout.offset_or_0(txn.get(name, db=self._meta))

    def _begin_new(self, txn: Any, identity: ViewIdentity, base: Base | None, quarantine: Quarantine) -> State:
        """Write all that a new view knows, in the transaction that creates it."""
        state = _standing_on(base) if base else State(0, 0)
        txn.put(layout.IDENTITY, _identity_bytes(identity), db=self._meta)
        txn.put(layout.STATE, state.encode(), db=self._meta)
        if base:
            txn.put(layout.BASE, base.encode(), db=self._meta)
        if quarantine.counts:
            self._write_quarantine(txn, quarantine)
        return state

    def _write_quarantine(self, txn: Any, quarantine: Quarantine) -> None:
        txn.drop(self._quarantine, delete=False)
        for offset, reason in quarantine.records[-layout.MAX_QUARANTINED :]:
            txn.put(layout.pack_offset(offset), reason.encode(), db=self._quarantine)
        txn.put(layout.COUNTS, orjson.dumps(quarantine.counts), db=self._meta)

    def _commit(self, folded: Folded, state: State) -> bool:
        """Commit in one transaction; False, and nothing has changed, when the map is too small for it."""
        return self._transaction(partial(self._write, folded=folded, state=state))

    def _write(self, txn: Any, folded: Folded, state: State) -> None:
        self._put_entries(txn, folded.entries)
        if self._expiries is not None:
            self._take_back_ended(txn, folded, state)
        if folded.quarantined:
            self._put_quarantined(txn, folded.quarantined)
        if folded.decided is not None:
            assert self._decisions is not None, "only conditional tables decide"
            decisions.write(self._decisions, txn, folded.decided)
            decisions.sweep(self._decisions, txn, state.log_time_ms, folded.decided)
        txn.put(layout.STATE, state.encode(), db=self._meta)

    def _transaction(self, write: Callable[[Any], None]) -> bool:
        """Let `write` act in one transaction; False, and nothing has changed, when the map is too small for it."""
        try:
            with self._env.begin(write=True) as txn:
                write(txn)
        except lmdb.MapFullError:
            return False
        except lmdb.Error as error:
            raise damage.translated(self.path, error) from error
        return True

    def _put_entries(self, txn: Any, entries: Mapping[bytes, bytes]) -> None:
        if not entries:
            return
        ordered = sorted(
            entries
        )  # in key order neighbours share pages, and the last key to come is not the longest to look for
        if max(map(len, ordered)) > layout.SHORT_BYTES:
            self._put_long(txn, {key: entries[key] for key in ordered if len(key) > layout.SHORT_BYTES})
            ordered = [key for key in ordered if len(key) <= layout.SHORT_BYTES]
        txn.cursor(db=self._entries).putmulti([(key, entries[key]) for key in ordered])

    def _take_back_ended(self, txn: Any, folded: Folded, state: State) -> None:
        """Note the ends of what was written, and take back rows whose end has come by now."""
        expiries.write(self._expiries, txn, folded.entries)
        row = partial(self._entry, txn)
        self._put_entries(txn, expiries.sweep(self._expiries, txn, state.log_time_ms, len(folded.entries), row))

    def _entry(self, txn: Any, row_key: bytes) -> bytes | None:
        raw: bytes | None = txn.get(layout.cell_key(row_key), db=self._entries)
        if raw is None or len(row_key) <= layout.SHORT_BYTES:
            return raw
        return dict(layout.unpack_bucket(raw)).get(row_key)

    def _put_long(self, txn: Any, entries: Mapping[bytes, bytes]) -> None:
        buckets: dict[bytes, dict[bytes, bytes]] = {}
        for key, entry in entries.items():
            buckets.setdefault(layout.cell_key(key), {})[key] = entry
        for lmdb_key, changed in buckets.items():
            bucket = dict(layout.unpack_bucket(txn.get(lmdb_key, default=b"", db=self._entries)))
            txn.put(lmdb_key, layout.pack_bucket(bucket | changed), db=self._entries)

    def _put_quarantined(self, txn: Any, quarantined: Sequence[tuple[int, str]]) -> None:
        counts: Counter[str] = Counter(layout.unpack_counts(txn.get(layout.COUNTS, default=b"{}", db=self._meta)))
        counts.update(reason for _, reason in quarantined)
        for offset, reason in quarantined[-layout.MAX_QUARANTINED :]:
            txn.put(layout.pack_offset(offset), reason.encode(), db=self._quarantine)
        txn.put(layout.COUNTS, orjson.dumps(dict(counts)), db=self._meta)
        cursor = txn.cursor(db=self._quarantine)
        for _ in range(txn.stat(self._quarantine)["entries"] - layout.MAX_QUARANTINED):
            cursor.first()
            cursor.delete()

    def _enlarge(self) -> None:
        """Double the environment's map."""
        size_bytes = self._env.info()["map_size"] * 2
        with damage.translating(self.path):
            self._env.set_mapsize(size_bytes)
        if self._sync != "none":
            environment.reach(self.path, size_bytes)

    def _make_room(self, folded: Folded) -> None:
        """Allocate the blocks that this commit can touch at most."""
        if self._sync != "none":  # without writemap a full disk is an error of the commit
            return
        entries = folded.entries
        payload = sum(map(len, entries.values())) + sum(map(len, entries)) + len(entries) * _ENTRY_OVERHEAD
        items = len(entries)
        if folded.decided is not None:
            size = decisions.size_of(folded.decided)
            payload, items = payload + size.bytes + size.items * _ENTRY_OVERHEAD, items + size.items
        if self._expiries is not None:
            ends = expiries.room_for(entries)
            payload, items = payload + ends.bytes, items + ends.items
        used = self.size_bytes() // PAGE
        copied = min(items * _PAGES_PER_ENTRY, used)  # copy on write: at worst all there is
        needed = (used + copied + 2 * payload // PAGE + _SPARE_PAGES) * PAGE  # a page is at least half full
        if needed <= self._allocated:
            return
        try:
            self._grow(needed + max(_STEP, needed >> 3))
        except DiskFull:  # no room to spare: this commit alone may fit
            self._grow(needed)

    def _grow(self, size_bytes: int) -> None:
        size_bytes = min(size_bytes, self._env.info()["map_size"])
        with preallocate.room_for(self.path):
            preallocate.allocate(self.path / "data.mdb", size_bytes)
        self._allocated = size_bytes


def _standing_on(base: Base) -> State:
    return State(base.cut, base.log_time_ms, base.leader_epoch, last=RecordIdentity.parse(base.last))


def _identity_bytes(identity: ViewIdentity) -> bytes:
    fields = asdict(identity)
    if identity.window is None:
        del fields["dedup_records"], fields["dedup_window_ms"]
    if not identity.expiring:
        del fields["expiring"]
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
