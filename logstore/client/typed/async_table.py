"""AsyncTypedTable: one table of an `AsyncStore`, with values of the program's own types."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar, Unpack

from logstore.client.checks import Text, check_table
from logstore.client.conditional.outcome import Outcome
from logstore.client.typed.row import Edge, ReadOptions, TypedRow
from logstore.codecs import Codec
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.client.aio import AsyncStore
    from logstore.client.read.row import Row

T = TypeVar("T")


class AsyncTypedTable(Generic[T]):
    """A table whose values are encoded when they are written and decoded when they are read, as `TypedTable`."""

    def __init__(self, store: "AsyncStore", name: str, codec: Codec[T]) -> None:
        self._store, self.name, self._edge = store, check_table(name), Edge(name, codec)

    async def put(
        self, key: Text, value: T, *, headers: Mapping[str, Text] | None = None, ttl_s: float | None = None,
        seen: int | None = None,
    ) -> Position:  # fmt: skip
        """Write one row, as `AsyncStore.put`."""
        raw = self._edge.encoded(value)
        return await self._store.put(self.name, key, raw, headers=headers, ttl_s=ttl_s, seen=seen)

    async def delete(
        self, key: Text, *, headers: Mapping[str, Text] | None = None, seen: int | None = None
    ) -> Position:  # fmt: skip
        """Delete one row, as `AsyncStore.delete`."""
        return await self._store.delete(self.name, key, headers=headers, seen=seen)

    async def put_if(
        self,
        key: Text,
        value: T,
        *,
        absent: bool = False,
        present: bool = False,
        version: int | None = None,
        value_is: T | None = None,
        headers: Mapping[str, Text] | None = None,
        ttl_s: float | None = None,
    ) -> Outcome:
        """Write a row under a condition, as `AsyncStore.put_if`; `value_is`: the bytes that the codec writes for it."""
        return await self._store.put_if(
            self.name, key, self._edge.encoded(value), absent=absent, present=present, version=version,
            value_is=self._edge.encoded_or_none(value_is), headers=headers, ttl_s=ttl_s,
        )  # fmt: skip

    async def delete_if(
        self,
        key: Text,
        *,
        absent: bool = False,
        present: bool = False,
        version: int | None = None,
        value_is: T | None = None,
        headers: Mapping[str, Text] | None = None,
    ) -> Outcome:
        """Delete a row under a condition, as `AsyncStore.delete_if`."""
        return await self._store.delete_if(
            self.name, key, absent=absent, present=present, version=version,
            value_is=self._edge.encoded_or_none(value_is), headers=headers,
        )  # fmt: skip

    async def cas(
        self, key: Text, expected: T | None, value: T | None, *, headers: Mapping[str, Text] | None = None
    ) -> Outcome:
        """Put `value` in the place of `expected`, as `AsyncStore.cas`: of equal values the bytes have to be equal."""
        edge = self._edge
        return await self._store.cas(
            self.name, key, edge.encoded_or_none(expected), edge.encoded_or_none(value), headers=headers
        )

    async def put_many(self, pairs: Mapping[Text, T | None] | Iterable[tuple[Text, T | None]]) -> Position:
        """Write pairs, as `AsyncStore.put_many`; a value None deletes."""
        return await self._store.put_many(self.name, self._edge.pairs(pairs))

    async def get(self, key: Text, **options: Unpack[ReadOptions]) -> TypedRow[T] | None:
        """Read a row, or None, as `AsyncStore.get`."""
        return self._edge.row(await self._store.get(self.name, key, **options))

    async def get_many(self, keys: Sequence[Text], **options: Unpack[ReadOptions]) -> list[TypedRow[T] | None]:
        """Rows in the order of `keys`, as `AsyncStore.get_many`."""
        return [self._edge.row(row) for row in await self._store.get_many(self.name, keys, **options)]

    def scan(
        self,
        *,
        prefix: Text | None = None,
        start: Text | None = None,
        end: Text | None = None,
        limit: int | None = None,
        reverse: bool = False,
        **options: Unpack[ReadOptions],
    ) -> AsyncIterator[TypedRow[T]]:
        """Rows in key order, as `AsyncStore.scan`."""
        rows = self._store.scan(self.name, prefix=prefix, start=start, end=end, limit=limit, reverse=reverse, **options)
        return self._decoded(rows)

    async def _decoded(self, rows: "AsyncIterator[Row]") -> AsyncIterator[TypedRow[T]]:
        async for row in rows:
            yield self._edge.decoded(row)

    def __repr__(self) -> str:
        return f"AsyncTypedTable({self.name!r}, {self._store!r})"
