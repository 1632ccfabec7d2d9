"""AsyncTypedTable: one table of an `AsyncStore`, with values of the program's own types."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar, Unpack

from logstore.client.checks import Text, check_table
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

    async def put(self, key: Text, value: T, *, headers: Mapping[str, Text] | None = None) -> Position:
        """Write one row, as `AsyncStore.put`."""
        return await self._store.put(self.name, key, self._edge.encoded(value), headers=headers)

    async def delete(self, key: Text, *, headers: Mapping[str, Text] | None = None) -> Position:
        """Delete one row, as `AsyncStore.delete`."""
        return await self._store.delete(self.name, key, headers=headers)

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
