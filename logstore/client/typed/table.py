"""TypedTable: one table of a `Store`, with values of the program's own types."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar, Unpack

from logstore.client.checks import Text, check_table
from logstore.client.conditional.outcome import Outcome
from logstore.client.typed.row import Edge, ReadOptions, TypedRow
from logstore.codecs import Codec
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.client.memory.store import MemoryStore
    from logstore.client.store import Store

T = TypeVar("T")


class TypedTable(Generic[T]):
    """A table whose values are encoded when they are written and decoded when they are read.

    Its methods are those of the store without the name of the table, and raise the same; besides, UsageError for a
    value that the codec cannot write, and Undecodable for one that it cannot read.
    """

    def __init__(self, store: "Store | MemoryStore", name: str, codec: Codec[T]) -> None:
        self._store, self.name, self._edge = store, check_table(name), Edge(name, codec)

    def put(
        self, key: Text, value: T, *, headers: Mapping[str, Text] | None = None, ttl_s: float | None = None,
        seen: int | None = None,
    ) -> Position:  # fmt: skip
        """Write one row, as `Store.put`."""
        raw = self._edge.encoded(value)
        return self._store.put(self.name, key, raw, headers=headers, ttl_s=ttl_s, seen=seen)

    def delete(
        self, key: Text, *, headers: Mapping[str, Text] | None = None, seen: int | None = None
    ) -> Position:  # fmt: skip
        """Delete one row, as `Store.delete`."""
        return self._store.delete(self.name, key, headers=headers, seen=seen)

    def put_if(
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
        """Write a row under a condition, as `Store.put_if`; `value_is`: the bytes that the codec writes for it."""
        return self._store.put_if(
            self.name, key, self._edge.encoded(value), absent=absent, present=present, version=version,
            value_is=self._edge.encoded_or_none(value_is), headers=headers, ttl_s=ttl_s,
        )  # fmt: skip

    def delete_if(
        self,
        key: Text,
        *,
        absent: bool = False,
        present: bool = False,
        version: int | None = None,
        value_is: T | None = None,
        headers: Mapping[str, Text] | None = None,
    ) -> Outcome:
        """Delete a row under a condition, as `Store.delete_if`."""
        return self._store.delete_if(
            self.name, key, absent=absent, present=present, version=version,
            value_is=self._edge.encoded_or_none(value_is), headers=headers,
        )  # fmt: skip

    def cas(
        self, key: Text, expected: T | None, value: T | None, *, headers: Mapping[str, Text] | None = None
    ) -> Outcome:
        """Put `value` in the place of `expected`, as `Store.cas`: of equal values the bytes have to be equal."""
        edge = self._edge
        return self._store.cas(
            self.name, key, edge.encoded_or_none(expected), edge.encoded_or_none(value), headers=headers
        )

    def put_many(self, pairs: Mapping[Text, T | None] | Iterable[tuple[Text, T | None]]) -> Position:
        """Write pairs, as `Store.put_many`; a value None deletes."""
        return self._store.put_many(self.name, self._edge.pairs(pairs))

    def get(self, key: Text, **options: Unpack[ReadOptions]) -> TypedRow[T] | None:
        """Read a row, or None, as `Store.get`."""
        return self._edge.row(self._store.get(self.name, key, **options))

    def get_many(self, keys: Sequence[Text], **options: Unpack[ReadOptions]) -> list[TypedRow[T] | None]:
        """Rows in the order of `keys`, as `Store.get_many`."""
        return [self._edge.row(row) for row in self._store.get_many(self.name, keys, **options)]

    def scan(
        self,
        *,
        prefix: Text | None = None,
        start: Text | None = None,
        end: Text | None = None,
        limit: int | None = None,
        reverse: bool = False,
        **options: Unpack[ReadOptions],
    ) -> Iterator[TypedRow[T]]:
        """Rows in key order, as `Store.scan`."""
        rows = self._store.scan(self.name, prefix=prefix, start=start, end=end, limit=limit, reverse=reverse, **options)
        return self._edge.rows(rows)

    def __repr__(self) -> str:
        return f"TypedTable({self.name!r}, {self._store!r})"
