"""MemoryStore: a store of this process alone, with the methods, checks, positions and errors of `Store`."""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from logstore.client.checks import (
    CheckedWrites,
    Pair,
    Text,
    check_seen,
    check_table,
    check_takes,
    check_timeout,
    check_value,
    keys_of,
    pairs_of,
    seen_header,
    ttl_header,
)  # fmt: skip
from logstore.client.conditional.decided_put import decided_put, may_be_refused, refusal_of
from logstore.client.conditional.outcome import Outcome, check_log
from logstore.client.conditional.record import ConditionalRecord, named_after, read_name
from logstore.client.conditional.writes import ConditionalWrites
from logstore.client.memory.altered import alter
from logstore.client.memory.decisions import MemoryDecisions
from logstore.client.memory.partition import MemoryPartition
from logstore.client.memory.pipeline import MemoryPipeline
from logstore.client.memory.points import points_of, token_of
from logstore.client.memory.reads import MemoryReads
from logstore.client.memory.tables import MemoryTables, home_of
from logstore.client.read.budget import DEADLINE_MS, Budget
from logstore.client.read.level import Level
from logstore.client.read.point import After, PointInTime, when
from logstore.client.read.row import Row
from logstore.client.wide.altered import check_altered
from logstore.client.wide.reads import ScanBounds, WideReads
from logstore.client.write.level import WriteLevel, awaits_outcome, check_write_level, raising_as_put
from logstore.model.errors import (
    BatchFailed,
    InvalidWrite,
    NotConditional,
)
from logstore.model.key import check_key, to_bytes
from logstore.model.partitioning.splits import splits_of
from logstore.model.position import Position
from logstore.model.table import (
    DEFAULT_DEDUP_RECORDS,
    DEFAULT_DEDUP_WINDOW_MS,
    DEFAULT_MAX_VALUE_BYTES,
    Table,
    check_limits,
    check_name,
    check_rows,
    families_of,
    has_ttl,
    partition_count,
)
from logstore.model.wide.selection import CellSelection

if TYPE_CHECKING:
    from logstore.client.history.key_history import KeyHistory
    from logstore.client.memory.changes import MemoryChanges
    from logstore.client.session.session import Session
    from logstore.client.typed.table import TypedTable
    from logstore.client.wide.row import WideRow
    from logstore.codecs import Codec

T = TypeVar("T")
_CHUNK = 1_000  # pairs that are checked at once


class MemoryStore(ConditionalWrites, WideReads):
    """A store in memory, for tests of programs that take a `Store`. Thread-safe.

        store = MemoryStore(["users"])
        position = store.put("users", "ada", "Ada Lovelace")
        assert store.get("users", "ada", after=position).value == b"Ada Lovelace"

    What is written is read at once, and everything is retained for `as_of`. Keys are placed and rows are folded by the
    code of the real store; what takes a network there (LogUnreachable, Unknown, deadlines) never happens here.
    """

    def __init__(self, tables: Iterable[str] = (), *, clock_ms: Callable[[], int] | None = None) -> None:
        """Make a store with these tables. `clock_ms`: stands for the broker's clock, milliseconds since 1970."""
        self._tables = MemoryTables(clock_ms or _now_ms)
        self._reads = MemoryReads(self._tables)
        for name in [tables] if isinstance(tables, str) else tables:
            self.create(name)

    def create(
        self,
        table: str,
        *,
        partitions: int | None = None,
        splits: Iterable[Text] = (),
        max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES,
        conditional: bool = False,
        expiring: bool = False,
        wide: bool = False,
        families: Mapping[str, Mapping[str, Any]] | Iterable[str] = (),
        siblings: bool = False,
        multi_row: bool = False,
        dedup_window_ms: int = DEFAULT_DEDUP_WINDOW_MS,
        dedup_records: int = DEFAULT_DEDUP_RECORDS,
    ) -> None:
        """Make a table, as `Admin.create`. Raises TableExists, BadDefinition."""
        check_name(check_table(table))
        points = splits_of(splits)
        count = partition_count(partitions, points)
        check_limits(count, max_value_bytes)
        named = families_of(families)
        definition = Table(
            table, table, secrets.token_hex(16), count, max_value_bytes, splits=points,
            conditional=conditional or expiring or wide or siblings, expiring=expiring or has_ttl(named),
            wide=wide, families=named, siblings=siblings, multi_row=multi_row,
            dedup_window_ms=dedup_window_ms, dedup_records=dedup_records,
        )  # fmt: skip
        check_rows(definition)
        self._tables.add(definition)

    def alter(
        self,
        table: str,
        *,
        add_families: Mapping[str, Mapping[str, Any]] | Iterable[str] = (),
        families: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Add column families to a wide table, or change rules of some, as `Admin.alter`.

        Raises NoSuchTable, NotWide, BadDefinition, UsageError.
        """
        added = check_altered(add_families, families)
        with self._tables.lock:
            alter(self._tables.partitions(table), added, families or {}, self._tables.clock_ms())

    def put(
        self, table: str, key: Text, value: Text, *, headers: Mapping[str, Text] | None = None,
        ttl_s: float | None = None, seen: int | None = None, level: WriteLevel | None = None,
    ) -> Position:  # fmt: skip
        """Write one row, as `Store.put`; every level is met at once.

        Raises BadKey, ValueTooLarge, NoSuchTable, UsageError, NotExpiring, NoSiblings, InvalidWrite.
        """
        check_write_level(level)
        with raising_as_put(level, seen):
            position = self.write(table, key, to_bytes(value), headers, ttl_s, seen, decided=awaits_outcome(level))
        check_seen(seen, position)
        return position

    def delete(
        self, table: str, key: Text, *, headers: Mapping[str, Text] | None = None, seen: int | None = None,
        level: WriteLevel | None = None,
    ) -> Position:  # fmt: skip
        """Delete one row, as `Store.delete`; raises like `put`."""
        check_write_level(level)
        with raising_as_put(level, seen):
            position = self.write(table, key, None, headers, None, seen, decided=awaits_outcome(level))
        check_seen(seen, position)
        return position

    def write(
        self, table: str, key: Text, value: bytes | None, headers: Mapping[str, Text] | None, ttl_s: float | None,
        seen: int | None, *, decided: bool = True,
    ) -> Position:  # fmt: skip
        """Have one record in the log; a value None deletes. Raises as `put`.

        `decided`: False for one that counts as written, whatever the fold makes of it.
        """
        with self._tables.lock:
            parts = self._tables.partitions(table)
            raw = check_key(to_bytes(key))
            own = [*seen_header(seen), *ttl_header(ttl_s)]
            check_takes(parts[0].table, own)
            if decided and may_be_refused(parts[0].table, value, own):
                return self._applied(table, decided_put(raw, value, headers, own))
            return self._tables.append(parts, raw, check_value(value, parts[0].table.max_value_bytes), headers, own)

    def _applied(self, table: str, record: ConditionalRecord) -> Position:
        """The position of a write that the fold may refuse. Raises InvalidWrite."""
        outcome = self.decide(table, record)
        position = outcome.position
        refusal = refusal_of(outcome, record.key, position)
        if refusal is not None:
            raise refusal
        return position

    def put_many(
        self, table: str, pairs: Mapping[Text, Text | None] | Iterable[Pair], *, level: WriteLevel | None = None
    ) -> Position:  # fmt: skip
        """Write pairs, as `Store.put_many`; a value None deletes. All of them are checked before any is written.

        Raises BatchFailed where a wide row refuses one; nothing after it is written.
        """
        check_write_level(level)
        with self._tables.lock:
            parts, source = self._tables.partitions(table), pairs_of(pairs)
            checked: list[CheckedWrites] = []
            while some := list(islice(source, _CHUNK)):
                checked.append(CheckedWrites(some, parts[0].table, len(checked) * _CHUNK))
            pairs_checked = (
                pair for chunk in checked for pair in zip(chunk.keys, chunk.values, strict=True)
            )  # fmt: skip
            return self._written(table, pairs_checked, decided=awaits_outcome(level))

    def _written(self, table: str, pairs: Iterable[tuple[bytes, bytes | None]], *, decided: bool) -> Position:
        written: list[Position] = []
        for place, (key, value) in enumerate(pairs):
            try:
                written.append(self.write(table, key, value, None, None, None, decided=decided))
            except InvalidWrite as error:
                failed, position = [range(place, place + 1)], Position().merge(written)
                raise BatchFailed(place + 1, 1, error, failed_places=failed, position=position) from error
        return Position().merge(written)

    def pipeline(self, table: str, *, level: WriteLevel | None = None) -> MemoryPipeline:
        """Write without waiting for each, as `Store.pipeline`."""
        check_write_level(level)
        self._tables.partitions(table)
        return MemoryPipeline(self, table, level)

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
        """Read a row, or None, as `Store.get`. Raises ConsistencyTimeout, NoSuchTable, UsageError."""
        bound = when(after, as_of, consistency, max_lag_ms)
        found: list[Row | None] = self._reads.get(table, [check_key(to_bytes(key))], bound, deadline_ms, "view")
        return found[0]

    def get_many(
        self, table: str, keys: Sequence[Text], *, after: Position | str | None = None, as_of: PointInTime = None,
        consistency: Level | None = None, max_lag_ms: int | None = None, deadline_ms: int = DEADLINE_MS,
    ) -> list[Row | None]:  # fmt: skip
        """Rows in the order of `keys`, None where there is none, as `Store.get_many`; raises like `get`."""
        bound = when(after, as_of, consistency, max_lag_ms)
        return self._reads.get(table, [check_key(key) for key in keys_of(keys)], bound, deadline_ms, "")

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
        """Rows in key order, as `Store.scan`, as they are when the first one is taken. Raises like `get`."""
        bound = when(after, as_of, consistency, max_lag_ms)
        rows = ScanBounds(prefix, start, end, limit, reverse, keys_only)
        return self._reads.scan(check_table(table), rows, bound, deadline_ms, None)

    def _wide_row(
        self, table: str, key: Text, cells: CellSelection, bound: After, deadline_ms: int
    ) -> "WideRow | None":
        found: list[WideRow | None] = self._reads.get(
            table, [check_key(to_bytes(key))], bound, deadline_ms, "view", cells
        )
        return found[0]

    def _wide_rows(
        self, table: str, keys: Sequence[Text], cells: CellSelection, bound: After, deadline_ms: int
    ) -> "list[WideRow | None]":
        return self._reads.get(table, [check_key(key) for key in keys_of(keys)], bound, deadline_ms, "", cells)

    def _wide_scan(
        self, table: str, rows: ScanBounds, cells: CellSelection, bound: After, deadline_ms: int
    ) -> "Iterator[WideRow]":
        return self._reads.scan(table, rows, bound, deadline_ms, cells)

    def history(
        self, table: str, key: Text, *, since: PointInTime = None, until: PointInTime = None, limit: int | None = None,
        oldest_first: bool = False, values: bool = True, archive: bool = True, storage: str | None = None,
    ) -> "KeyHistory":  # fmt: skip
        """Every mutation of a key, as `Store.history`; there is no archive to ask."""
        from logstore.client.history.key_history import KeyHistory, Selection, check_archive  # noqa: PLC0415 - only who uses it
        from logstore.client.memory.history import MemorySources  # noqa: PLC0415 - as above

        check_archive(archive, storage)
        selection, key_bytes = Selection(since, until, limit, oldest_first, values).check(), check_key(to_bytes(key))
        with self._tables.lock:
            parts = self._tables.partitions(table)
            sources = MemorySources(home_of(parts, key_bytes), key_bytes)
        return KeyHistory(sources, selection, decide=sources.decide)

    def changes(
        self, table: str, *, since: Position | str = "now", prefix: Text | None = None, follow: bool = True,
        patience_s: float = 60.0, from_archive: bool = False, storage: str | None = None, before: bool = False,
    ) -> "MemoryChanges":  # fmt: skip
        """Changes of a table's rows, as `Store.changes`: an iterator that waits for what other threads write."""
        from logstore.client.changes.changes import PollPoint, check_from_archive  # noqa: PLC0415 - only who uses it
        from logstore.client.memory.changes import MemoryChanges, epochs_of  # noqa: PLC0415 - as above

        check_from_archive(from_archive, storage)
        asked = PollPoint(table, since, prefix, patience_s, follow=follow, before=before)
        with self._tables.lock:
            self._tables.check_known(epochs_of(asked.id))
            return MemoryChanges(self._tables.partitions(table), asked, self._tables.changed, self._tables.check_open)

    def outcome_of(
        self, table: str, key: Text, id: bytes | str | Position, *, after: Position | str | None = None,  # noqa: A002 - as the header is called
        consistency: Level | None = "latest", max_lag_ms: int | None = None, deadline_ms: int = DEADLINE_MS,
    ) -> Outcome | None:  # fmt: skip
        """Find the outcome of a write by its id or its position, as `Store.outcome_of`."""
        name, key_bytes = read_name(id), check_key(to_bytes(key))
        bound = when(named_after(after, name), None, consistency, max_lag_ms)
        Budget.of(deadline_ms)
        with self._tables.lock:
            self._tables.check_known(bound)
            parts = self._tables.partitions(table)
            part = home_of(parts, key_bytes)
            token = token_of(part.table, points_of([part], bound, self._tables.clock_ms))
            decisions = self._decisions(part)
            if not isinstance(name, Position):
                return decisions.first_of(key_bytes, name, token)
            check_log(name, Position.parse(token))
            return decisions.outcome_at(name.offset, token)

    def decide(self, table: str, record: ConditionalRecord) -> Outcome:
        """Have the record in the log, and its outcome."""
        with self._tables.lock:
            parts = self._tables.partitions(table)
            record.check_takes(parts[0].table)
            decisions = self._decisions(home_of(parts, record.key))
            check_value(record.value, parts[0].table.max_value_bytes)
            position = self._tables.append(parts, record.key, record.value, record.headers, record.own)
            return decisions.outcome(position.offset, position.token, record.id)

    def _decisions(self, part: MemoryPartition) -> MemoryDecisions:
        if part.decisions is None:
            raise NotConditional(part.table.name)
        return part.decisions

    def session(self, token: Position | str | None = None) -> "Session":
        """A session, whose reads see what it wrote and read before, from the `token` of an earlier one on."""
        from logstore.client.session.session import Session  # noqa: PLC0415 - only who uses it

        self._tables.check_open()
        return Session(self, token)

    def table(self, name: str, codec: "Codec[T]") -> "TypedTable[T]":
        """One table with values of the program's own types, e.g. `codec=logstore.codecs.json`; see `TypedTable`."""
        from logstore.client.typed.table import TypedTable  # noqa: PLC0415 - only who uses it

        self._tables.check_open()
        return TypedTable(self, name, codec)

    def flush(self, timeout_s: float | None = None) -> int:
        """Zero: no write waits for its acknowledgement."""
        check_timeout(timeout_s)
        return 0

    def close(self, timeout_s: float | None = None) -> None:
        """Close the store; it takes no call afterwards."""
        check_timeout(timeout_s)
        self._tables.close()

    def __repr__(self) -> str:
        return f"MemoryStore({self._tables.names()!r}{', closed' if self._tables.closed else ''})"

    def __enter__(self) -> Self:
        self._tables.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
