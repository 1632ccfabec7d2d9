"""Replica: reads of a node's views in the caller's own process, with the rows, positions and errors of `Store`."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import NamedTuple, Self

from logstore.client.checks import Text, check_number, check_table, keys_of
from logstore.client.read.budget import DEADLINE_MS, Budget
from logstore.client.read.conversation.requests import MANY
from logstore.client.read.level import Level
from logstore.client.read.point import After, PointInTime, when
from logstore.client.read.row import Row
from logstore.client.read.scan_pages import ScanPages
from logstore.log.after_fork import keep, renew_in_child
from logstore.model.errors import UsageError
from logstore.model.key import MAX_KEY_BYTES, after_prefix, check_key, to_bytes
from logstore.model.position import Position
from logstore.replica.failures import typed
from logstore.replica.follower import Follower
from logstore.replica.followers import FOLLOWERS
from logstore.replica.levels import consistency_of
from logstore.replica.published import NotPlain, PublishedTable, SharedCatalog
from logstore.replica.reads import open_view, read_many, read_row, read_rows
from logstore.replica.view import ReplicaView
from logstore.serve.read.consistency import Consistency
from logstore.serve.read.parameters.scan_query import Query
from logstore.serve.wire.problems import Problem

MAX_AGE_MS = 1_000  # of rows that are read in place
CLOSED = "this Replica is closed; open a new one"


class _Nothing:
    """Catalog in which nothing is known, while no follower is there."""

    published: Mapping[str, PublishedTable] = {}


_NOTHING = _Nothing()


class ReplicaStanding(NamedTuple):
    """Standing of a partition in this process."""

    partition: int
    state: str  # live, catching-up, stopped, elsewhere or unserved
    applied: int | None  # next offset of its view; None: there is none to be read
    lag: int | None  # records behind the end of the log as last heard; None: never heard
    age_s: float | None  # since a worker that follows it was heard last; 0 while one is there, None: never
    reason: str = ""  # why it is stopped, or what holds it up


class Replica:
    """An embedded reader of the node on `data_dir`. Thread-safe; close it, or use it in a `with` block.

        with logstore.Replica("/var/lib/logstore") as replica:
            row = replica.get("users", "ada", after=position)

    Reads what the node's workers have applied, without a request: as many processes as are wanted may, each as a user
    who may read the node's files, where process ids are those that the node sees. All replicas of a process on one
    directory share what is opened. In a forked child it opens anew when it is used.

    While the node is away, reads go on from what it left, as old as `standing` says; what has to be waited for then
    ends in ConsistencyTimeout or LogUnreachable. A partition that another node serves is NotOwner: ask that one, by
    `Store`.
    """

    def __init__(self, data_dir: str | os.PathLike[str]) -> None:
        """Begin to follow the node. Raises SetupError for what is not the data directory of a node."""
        if not isinstance(data_dir, (str, os.PathLike)):
            raise UsageError(f"data_dir is the path of a node's data directory, not {type(data_dir).__name__}")
        self._data_dir, self._closed = Path(data_dir), False
        self._lock = Lock()
        self._follower: Follower | None = None
        self._catalog: SharedCatalog | _Nothing = _NOTHING
        self._following()
        renew_in_child(self)

    def get(
        self,
        table: str,
        key: Text,
        *,
        after: Position | str | None = None,
        as_of: PointInTime = None,
        consistency: Level | None = None,
        max_lag_ms: int | None = None,
        deadline_ms: int = DEADLINE_MS,
    ) -> Row | None:
        """Read a row, or None; parameters as of `Store.get`.

        Raises ConsistencyTimeout, LogUnreachable, NoSuchTable, NotOwner, Starting, Stopped, EpochChanged; NotRetained
        when the past that `as_of` names is not kept.
        """
        raw = key if type(key) is bytes else to_bytes(key)
        plain = after is None and as_of is None and consistency is None and max_lag_ms is None
        if plain and deadline_ms == DEADLINE_MS and type(table) is str and 0 < len(raw) <= MAX_KEY_BYTES:
            known = self._catalog.published.get(table)
            found = known and known.partitions[known.place(None, raw, len(raw), known.width, None, None)]
            if found:
                try:
                    return found.row(raw)
                except (Problem, NotPlain):
                    pass  # what is below waits for what ends by itself, tells the rest in full, and looks at a clock
        return self._get(table, check_key(raw), when(after, as_of, consistency, max_lag_ms), deadline_ms)

    def get_many(
        self, table: str, keys: Sequence[Text], *, after: Position | str | None = None, as_of: PointInTime = None,
        consistency: Level | None = None, max_lag_ms: int | None = None, deadline_ms: int = DEADLINE_MS,
    ) -> list[Row | None]:  # fmt: skip
        """Rows in the order of `keys`, None where there is none; raises like `get`.

        Every partition is read at one committed state for each 1,000 keys, which the deadline is for, too.
        """
        check_table(table)
        wanted, bound = [check_key(key) for key in keys_of(keys)], when(after, as_of, consistency, max_lag_ms)
        Budget.of(deadline_ms)
        follower = self._following()
        rows: list[Row | None] = []
        with typed(table):
            for first in range(0, len(wanted), MANY):
                some = wanted[first : first + MANY]
                rows += read_many(follower, table, some, consistency_of(bound, deadline_ms))
        return rows

    def scan(
        self,
        table: str,
        *,
        prefix: Text | None = None,
        start: Text | None = None,
        end: Text | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
        after: Position | str | None = None,
        as_of: PointInTime = None,
        consistency: Level | None = None,
        max_lag_ms: int | None = None,
        deadline_ms: int = DEADLINE_MS,
    ) -> Iterator[Row]:
        """Rows in key order, page by page as they are taken; parameters as of `Store.scan`.

        Of each page every partition is read at one committed state; nothing is held open between pages. Raises like
        `get`.
        """
        check_table(table)
        ScanPages(prefix=prefix, start=start, end=end, limit=limit, reverse=reverse, keys_only=keys_only)
        Budget.of(deadline_ms)
        bound = when(after, as_of, consistency, max_lag_ms)
        first, last = to_bytes(prefix or start or b""), None if end is None else to_bytes(end)
        query = Query(first, after_prefix(first) if prefix else last, 1, reverse, keys_only, None)
        return self._scan(table, query, limit, partial(consistency_of, bound, deadline_ms))

    @contextmanager
    def view(
        self, table: str, *, after: Position | str | None = None, consistency: Level | None = None,
        max_lag_ms: int | None = None, deadline_ms: int = DEADLINE_MS, max_age_ms: int = MAX_AGE_MS,
    ) -> Iterator[ReplicaView]:  # fmt: skip
        """Read rows of a table in place for the length of a block: values are `memoryview`s, and nothing is copied.

            with replica.view("images") as view:
                row = view.get("cat")
                file.write(row.value)

        Each partition is read at one committed state, at least as new as asked for. Values end with the block, and
        slices of them must not outlive it. It keeps the node from using pages again: after `max_age_ms` it ends in
        NotYet. Raises like `get`.
        """
        check_table(table)
        check_number("max_age_ms", max_age_ms, 1, whole=True)
        Budget.of(deadline_ms)
        follower, bound = self._following(), when(after, None, consistency, max_lag_ms)
        with typed(table):
            opened = open_view(follower, table, consistency_of(bound, deadline_ms))
        overdue = follower.later(max_age_ms / 1_000, opened.expire)
        try:
            with opened:
                yield opened
        finally:
            overdue()

    def standing(self, table: str, *, deadline_ms: int = DEADLINE_MS) -> list[ReplicaStanding]:
        """Tell how the table's partitions stand here, and how old that is. Raises NoSuchTable, Starting, UsageError."""
        check_table(table)
        Budget.of(deadline_ms)
        follower = self._following()

        async def work(_: Follower, __: float) -> list[ReplicaStanding]:
            catalog = follower.catalog
            known = catalog.table(table)
            found = []
            for partition in range(known.partitions):
                where = known.epoch, partition
                served, state = catalog.served.get(where), catalog.state_of(known, partition)
                reader = None if served is None else served.reader
                applied = None if reader is None else reader.state().next_offset
                lag = None if served is None or applied is None else served.lag(applied)
                reason = "" if served is None else served.reason
                found.append(ReplicaStanding(partition, state, applied, lag, catalog.age_s(where), reason))
            return found

        with typed(table):
            return follower.call(work, deadline_ms)

    def close(self) -> None:
        """Let go of the node's files, behind the reads that are under way; it takes no call afterwards."""
        with self._lock:
            follower, self._follower, self._closed = self._follower, None, True
            self._catalog = _NOTHING
        if follower is not None:
            FOLLOWERS.give_back(follower)

    def after_fork(self) -> None:
        """Open anew in the child; see `log.after_fork`."""
        keep(self._follower)
        self._lock, self._follower, self._catalog = Lock(), None, _NOTHING

    def __repr__(self) -> str:
        return f"Replica({str(self._data_dir)!r}{', closed' if self._closed else ''})"

    def __enter__(self) -> Self:
        self._following()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _get(self, table: str, key: bytes, bound: After, deadline_ms: int) -> Row | None:
        """The row, where more is asked for than is here, or what is here does not answer."""
        check_table(table)
        Budget.of(deadline_ms)
        follower = self._following()
        with typed(table):
            return read_row(follower, table, key, consistency_of(bound, deadline_ms))

    def _scan(
        self, table: str, query: Query, limit: int | None, level_of: Callable[[], Consistency]
    ) -> Iterator[Row]:  # fmt: skip
        follower = self._following()
        with typed(table):
            yield from read_rows(follower, table, query, limit, level_of)

    def _following(self) -> Follower:
        """The follower, begun anew in a child. Raises UsageError when this is closed, SetupError."""
        with self._lock:
            if self._closed:
                raise UsageError(CLOSED)
            if self._follower is None:
                self._follower = FOLLOWERS.take(self._data_dir)
                self._catalog = self._follower.catalog
            return self._follower
