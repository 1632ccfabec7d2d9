"""AsyncSession: one caller's reads and writes of an `AsyncStore`, each of which sees those before."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from logstore.client.checks import Pair, Text
from logstore.client.conditional.async_writes import AsyncConditionalWrites
from logstore.client.conditional.outcome import Outcome
from logstore.client.conditional.record import ConditionalRecord
from logstore.client.read.budget import DEADLINE_MS
from logstore.client.read.level import Level
from logstore.client.session.state import SessionState, bound, level
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.client.aio import AsyncStore
    from logstore.client.read.row import Row
    from logstore.client.wide.row import Column, WideRow

R = TypeVar("R")


class AsyncSession(AsyncConditionalWrites, SessionState):
    """Reads and writes that follow each other: `Session`, with methods to await."""

    _store: "AsyncStore"

    async def put(
        self, table: str, key: Text, value: Text, *, headers: Mapping[str, Text] | None = None,
        ttl_s: float | None = None, seen: int | None = None,
    ) -> Position:  # fmt: skip
        """Write one row, as `AsyncStore.put`."""
        return self._wrote(table, await self._store.put(table, key, value, headers=headers, ttl_s=ttl_s, seen=seen))

    async def delete(
        self, table: str, key: Text, *, headers: Mapping[str, Text] | None = None, seen: int | None = None
    ) -> Position:  # fmt: skip
        """Delete one row, as `AsyncStore.delete`."""
        return self._wrote(table, await self._store.delete(table, key, headers=headers, seen=seen))

    async def put_many(self, table: str, pairs: Mapping[Text, Text | None] | Iterable[Pair]) -> Position:
        """Write pairs, as `AsyncStore.put_many`."""
        return self._wrote(table, await self._store.put_many(table, pairs))

    async def decide(self, table: str, record: ConditionalRecord) -> Outcome:
        """Have the record in the log, and its outcome, as `AsyncStore.decide`."""
        with self._deciding(table) as decided:
            return decided(await self._store.decide(table, record))

    async def outcome_of(
        self, table: str, key: Text, id: bytes | str | Position, *, consistency: Level | None = "latest",  # noqa: A002 - as the header is called
        max_lag_ms: int | None = None, deadline_ms: int = DEADLINE_MS,
    ) -> Outcome | None:  # fmt: skip
        """Find the outcome of a write by its id or its position, as `AsyncStore.outcome_of`."""
        with self._tables.reading(table) as floor:
            options = level(consistency, max_lag_ms, deadline_ms)
            return await self._store.outcome_of(table, key, id, after=bound(floor), **options)

    async def get(
        self,
        table: str,
        key: Text,
        *,
        consistency: Level | None = None,
        max_lag_ms: int | None = None,
        deadline_ms: int = DEADLINE_MS,
    ) -> "Row | None":
        """Read a row, or None, as `AsyncStore.get`."""
        with self._tables.reading(table) as floor:
            row = await self._store.get(table, key, after=bound(floor), **level(consistency, max_lag_ms, deadline_ms))
            if row is not None:
                floor.rise(row.token)
            return row

    async def get_many(
        self,
        table: str,
        keys: Sequence[Text],
        *,
        consistency: Level | None = None,
        max_lag_ms: int | None = None,
        deadline_ms: int = DEADLINE_MS,
    ) -> "list[Row | None]":
        """Rows in the order of `keys`, None where there is none, as `AsyncStore.get_many`."""
        with self._tables.reading(table) as floor:
            options = level(consistency, max_lag_ms, deadline_ms)
            return await self._store.get_many(table, keys, after=bound(floor), **options)

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
        consistency: Level | None = None,
        max_lag_ms: int | None = None,
        deadline_ms: int = DEADLINE_MS,
    ) -> "AsyncIterator[Row]":
        """Rows in key order, as `AsyncStore.scan`."""
        rows = self._store.scan(
            table, prefix=prefix, start=start, end=end, limit=limit, reverse=reverse, keys_only=keys_only,
            after=bound(self._tables.floor(table)), **level(consistency, max_lag_ms, deadline_ms),
        )  # fmt: skip
        return self._seen(table, rows)

    async def get_row(
        self,
        table: str,
        key: Text,
        columns: "Sequence[Column] | None" = None,
        versions: int = 1,
        *,
        consistency: Level | None = None,
        max_lag_ms: int | None = None,
        deadline_ms: int = DEADLINE_MS,
    ) -> "WideRow | None":
        """Read a wide row, or the cells of it that `columns` names, as `AsyncStore.get_row`."""
        with self._tables.reading(table) as floor:
            options = level(consistency, max_lag_ms, deadline_ms)
            row = await self._store.get_row(table, key, columns, versions, after=bound(floor), **options)
            if row is not None:
                floor.rise(row.token)
            return row

    async def get_rows(
        self,
        table: str,
        keys: Sequence[Text],
        columns: "Sequence[Column] | None" = None,
        versions: int = 1,
        *,
        consistency: Level | None = None,
        max_lag_ms: int | None = None,
        deadline_ms: int = DEADLINE_MS,
    ) -> "list[WideRow | None]":
        """Read wide rows in the order of `keys`, as `AsyncStore.get_rows`."""
        with self._tables.reading(table) as floor:
            options = level(consistency, max_lag_ms, deadline_ms)
            return await self._store.get_rows(table, keys, columns, versions, after=bound(floor), **options)

    def scan_rows(
        self,
        table: str,
        columns: "Sequence[Column] | None" = None,
        versions: int = 1,
        *,
        prefix: Text | None = None,
        start: Text | None = None,
        end: Text | None = None,
        limit: int | None = None,
        reverse: bool = False,
        consistency: Level | None = None,
        max_lag_ms: int | None = None,
        deadline_ms: int = DEADLINE_MS,
    ) -> "AsyncIterator[WideRow]":
        """Wide rows in key order, as `AsyncStore.scan_rows`."""
        rows = self._store.scan_rows(
            table, columns, versions, prefix=prefix, start=start, end=end, limit=limit, reverse=reverse,
            after=bound(self._tables.floor(table)), **level(consistency, max_lag_ms, deadline_ms),
        )  # fmt: skip
        return self._seen(table, rows)

    async def _seen(self, table: str, rows: "AsyncIterator[R]") -> "AsyncIterator[R]":
        with self._tables.reading(table):
            async for row in rows:
                yield row
