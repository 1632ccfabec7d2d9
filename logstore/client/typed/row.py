"""TypedRow: a row whose value is an object of the program, and how values cross the edge."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

from logstore.client.read.level import Level
from logstore.client.read.point import PointInTime
from logstore.client.read.row import Row, SiblingRow
from logstore.codecs import Codec
from logstore.model.errors import SeveralValues, Undecodable, UsageError
from logstore.model.position import Position

T = TypeVar("T")
_NO_PAIRS = str, bytes, bytearray, memoryview, set, frozenset


class ReadOptions(TypedDict, total=False):
    """Options of every read, as of `Store.get`."""

    after: Position | str | None
    as_of: PointInTime
    consistency: Level | None
    max_lag_ms: int | None
    deadline_ms: int


class TypedRow(NamedTuple, Generic[T]):
    """A row as it was read, its value decoded; the other fields are those of `Row`."""

    key: bytes
    value: T
    version: int
    partition: int
    token: str
    source: str = ""

    @property
    def position(self) -> Position:
        """The token as a position, for `after`."""
        return Position.parse(self.token)

    @property
    def siblings(self) -> "tuple[TypedSibling[T], ...]":
        """Values of the row, oldest first; of a row that has one, that one under the row's version."""
        return (TypedSibling(self.version, self.value),)


class TypedSibling(NamedTuple, Generic[T]):
    """One of several values of a row, decoded."""

    version: int  # offset of the mutation that wrote it
    value: T


class TypedSiblingRow(TypedRow[T]):
    """A row of several values, as `SiblingRow`: merge `siblings`, and put the result with `seen=row.version`."""

    __slots__ = ()

    @property
    def value(self) -> T:
        """No value: raises SeveralValues, for none of them is the row's."""
        raise SeveralValues(self.key, self.version, self.siblings)

    @property
    def siblings(self) -> tuple[TypedSibling[T], ...]:
        """Values of the row, two or more, the oldest first."""
        return self[1]  # type: ignore[return-value]  # as `Edge` makes it


class Edge(Generic[T]):
    """The edge of one table: values of the program on one side, bytes on the other."""

    def __init__(self, table: str, codec: Codec[T]) -> None:
        if not (callable(getattr(codec, "encode", None)) and callable(getattr(codec, "decode", None))):
            raise UsageError(f"a codec has `encode` and `decode`, and {codec!r} has not; see logstore.codecs")
        self._table, self._codec = table, codec

    def encoded(self, value: T) -> bytes:
        """Bytes of a value. Raises UsageError for one that the codec cannot write."""
        try:
            raw = self._codec.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise UsageError(f"{self._codec!r} cannot write a value of table {self._table}: {error}") from error
        if not isinstance(raw, bytes):
            raise UsageError(f"{self._codec!r} writes bytes, not {type(raw).__name__}")
        return raw

    def encoded_or_none(self, value: T | None) -> bytes | None:
        """Bytes of a value; None, which stands for no row, stays None. Raises UsageError."""
        return None if value is None else self.encoded(value)

    def pairs(self, pairs: Any) -> Any:
        """Pairs with their values encoded, in the form they came in; None, which deletes, stays None.

        What is no pairs is left as it is, for the store to refuse.
        """
        if isinstance(pairs, Mapping):
            return {key: self.encoded_or_none(value) for key, value in pairs.items()}
        if isinstance(pairs, list | tuple):
            return [self._pair(pair) for pair in pairs]
        is_other = isinstance(pairs, _NO_PAIRS) or not isinstance(pairs, Iterable)
        return pairs if is_other else map(self._pair, pairs)

    def row(self, row: Row | None) -> TypedRow[T] | None:
        """A row with its value decoded. Raises Undecodable."""
        return None if row is None else self.decoded(row)

    def rows(self, rows: Iterable[Row]) -> Iterator[TypedRow[T]]:
        """Rows with their values decoded, as they come. Raises Undecodable."""
        return map(self.decoded, rows)

    def decoded(self, row: Row) -> TypedRow[T]:
        """A row with its value, or each of its siblings, decoded. Raises Undecodable, which names it."""
        if isinstance(row, SiblingRow):
            decoded = tuple(TypedSibling(one.version, self._value(row, one.value)) for one in row.siblings)
            return TypedSiblingRow(row.key, decoded, *row[2:])  # type: ignore[arg-type]  # its class takes them apart
        return TypedRow(row.key, self._value(row, row.value), *row[2:])

    def _value(self, row: Row, raw: bytes) -> T:
        try:
            return self._codec.decode(raw)
        except (TypeError, ValueError, RecursionError) as error:
            raise Undecodable(
                f"the value of key {row.key!r} of table {self._table}, written at offset {row.version:,} of partition "
                f"{row.partition}, is nothing that {self._codec!r} reads: {error}"
            ) from error

    def _pair(self, pair: Any) -> Any:
        """A pair with its value encoded; what is no pair is left to the store to refuse."""
        if isinstance(pair, list | tuple) and len(pair) == 2:
            return pair[0], self.encoded_or_none(pair[1])
        return pair
