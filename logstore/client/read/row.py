"""Row: what a read returns, and the rows of a list answer (msgpack), checked before anybody has them."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import compress, repeat
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from logstore.client.transport.answer import HttpAnswer
from logstore.model.errors import ServerError, SeveralValues, Stopped, WideTable
from logstore.model.folding.sibling import Sibling, Siblings, Value
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.client.wide.row import WideRow
    from logstore.model.wide.cell import WideCell

MSGPACK = "application/msgpack"
COLUMNS = "application/vnd.logstore.columns+msgpack"
LISTS = f"{COLUMNS}, {MSGPACK};q=0.9"  # what is accepted: nodes that do not know the one answer with the other
_KINDS = frozenset({COLUMNS.encode(), MSGPACK.encode()})
_UNEVEN = "its columns are not of one length"
_new = tuple.__new__
B = TypeVar("B")


class Row(NamedTuple):
    """A row as it was read."""

    key: bytes
    value: bytes
    version: int  # offset of the mutation that wrote it
    partition: int
    token: str  # of the answer: read elsewhere after it, and at least this is seen
    source: str = ""  # "view" or "snapshot": where the entry was; empty in a list

    @property
    def position(self) -> Position:
        """The token as a position, for `after`."""
        return Position.parse(self.token)

    @property
    def siblings(self) -> Siblings:
        """Values of the row, oldest first; of a row that has one, that one under the row's version."""
        return (Sibling(self.version, self.value),)


class SiblingRow(Row):
    """A row of several values: `siblings` has them. Merge them, and put the result with `seen=row.version`.

    `version` is the row's own: the offset of the mutation that changed it last. As a tuple it has the siblings in the
    place of the value.
    """

    __slots__ = ()

    @property
    def value(self) -> bytes:
        """No value: raises SeveralValues, for none of them is the row's."""
        raise SeveralValues(self.key, self.version, self.siblings)

    @property
    def siblings(self) -> Siblings:
        """Values of the row, two or more, the oldest first."""
        return self[1]  # type: ignore[return-value]  # as `row_of` makes it


def row_of(key: bytes, value: Value, version: int, partition: int, token: str, source: str = "") -> Row:
    """The row of a value, or of siblings."""
    return _new(SiblingRow if isinstance(value, tuple) else Row, (key, value, version, partition, token, source))


def lacks_none(column: Sequence[object]) -> bool:
    """True when no field is None. Truth first: it is told in a third of the time, and few fields are empty or 0."""
    return all(column) or None not in column


class RowPage(NamedTuple):
    """A page of a scan. Its rows are made as they are taken, so that the next page can be asked for before."""

    rows: Iterator[Any]  # Row, or WideRow where cells were asked for
    length: int  # rows
    cursor: str | None  # of the next page


def page_of(answer: HttpAnswer, table: str, *, keys_only: bool, wide: bool = False) -> RowPage:
    """The page of a scan that an answer is. Raises WideTable, and ServerError when it is none."""
    from logstore.client.read.list_body import page_body  # noqa: PLC0415 - who reads row by row does without msgspec

    body = _body(answer, page_body)
    if not (wide or keys_only):
        _check_values(body.columns and body.columns.cells, table)
    try:
        columns = body.in_columns()
        length = len(columns.key)
        if wide:
            cells = [()] * length if keys_only else columns.cells or []
            places = columns.key, columns.version, columns.partition
            return RowPage(iter(_wide_rows(cells, *places, body.token or "")), length, body.cursor)
        values = [b""] * length if keys_only else columns.values()
        several = columns.siblings is not None
        rows = _rows(columns.key, values, columns.version, columns.partition, body.token or "", several=several)
    except ValueError as error:
        raise _wrong(answer, error) from error
    return RowPage(rows, length, body.cursor)


def positions_of(answer: HttpAnswer) -> dict[int, int]:
    """The next offsets that a page of a scan in msgpack was read at, by partition. Raises ServerError."""
    from logstore.client.read.list_body import read_positions  # noqa: PLC0415 - as above

    return _body(answer, read_positions)


class Many(NamedTuple):
    """Rows of one answer to a multi-get."""

    keys: Sequence[bytes]  # that were answered
    rows: list[Any]  # of each: Row, or WideRow, or None
    elsewhere: list[bytes]  # keys that another node has


def many_of(answer: HttpAnswer, table: str, wanted: Sequence[bytes], *, wide: bool = False) -> Many:
    """Rows that a multi-get found.

    Raises Stopped, WideTable, and ServerError when it is no answer to the keys that were asked.
    """
    from logstore.client.read.list_body import many_body  # noqa: PLC0415 - as above

    body = _body(answer, many_body)
    if not wide:
        _check_values(body.columns and body.columns.cells, table)
    try:
        columns = body.in_columns()
        keys, left_out = columns.key, body.unprocessed
        if wide:
            rows: list[Any] = _wide_rows(
                columns.cells or [], keys, columns.version, columns.partition, body.token or ""
            )
        else:
            values, places = columns.values(), (columns.version, columns.partition)
            rows = _rows_or_none(keys, values, *places, body.token or "", several=columns.siblings is not None)
    except ValueError as error:
        raise _wrong(answer, error) from error
    if not left_out and keys == wanted:  # as nearly always: all of them, in their order
        return Many(keys, rows, [])
    if not {*keys, *(one.key for one in left_out)} <= {*wanted}:
        raise _wrong(answer, "its keys are not those that were asked for")
    for one in left_out:
        if one.reason == "partition-stopped":
            raise Stopped(f"the partition of key {one.key!r} of table {table} has stopped; `logstore status` says why")
    return Many(keys, rows, [one.key for one in left_out if one.reason == "not-owner"])


def _check_values(cells: object, table: str) -> None:
    """Raise WideTable for a list of cells, where values were asked for."""
    if cells is not None:
        raise WideTable(table)


def _wide_rows(
    cells: "Sequence[tuple[WideCell, ...] | None]", keys: Sequence[bytes], versions: Sequence[int | None],
    partitions: Sequence[int], token: str,
) -> "list[WideRow | None]":  # fmt: skip
    """Rows of cells, and None where there are none. Raises ValueError."""
    from logstore.client.wide.row import WideRow  # noqa: PLC0415 - who reads values does without

    if not len(keys) == len(cells) == len(versions) == len(partitions):
        raise ValueError(_UNEVEN)
    return [
        None if found is None or version is None else WideRow(key, found, version, partition, token)
        for key, found, version, partition in zip(keys, cells, versions, partitions, strict=True)
    ]


def wide_row_of(answer: HttpAnswer, key: bytes, version: int, partition: int, token: str, source: str) -> "WideRow":
    """The wide row that an answer is. Raises ServerError when it is none."""
    cells, made = _wide_row()
    return made(key, _body(answer, cells), version, partition, token, source)


@cache  # an import within a function is a tenth of all that a read of a wide row costs
def _wide_row() -> "tuple[Callable[[bytes], tuple[WideCell, ...]], type[WideRow]]":
    from logstore.client.read.list_body import wide_cells  # noqa: PLC0415 - as above
    from logstore.client.wide.row import WideRow  # noqa: PLC0415 - as above

    return wide_cells, WideRow


def _rows_or_none(
    keys: Sequence[bytes],
    values: Sequence[Value | None],
    versions: Sequence[int | None],
    partitions: Sequence[int],
    token: str,
    *,
    several: bool,
) -> list[Row | None]:
    """Rows of columns, and None where there is no value; `several`: some may have siblings. Raises ValueError."""
    if lacks_none(values) and lacks_none(versions):
        return [*_rows(keys, values, versions, partitions, token, several=several)]
    is_there = [value is not None for value in values]
    if not len(keys) == len(values) == len(versions) == len(partitions):
        raise ValueError(_UNEVEN)
    there = [list(compress(column, is_there)) for column in (keys, values, versions, partitions)]
    if None in there[2]:
        raise ValueError("a row that was found has no version")
    rows = _rows(there[0], there[1], there[2], there[3], token, several=several)
    return [next(rows) if one else None for one in is_there]


def _rows(
    keys: Sequence[object], values: Sequence[object], versions: Sequence[object], partitions: Sequence[object],
    token: str, *, several: bool,
) -> Iterator[Row]:  # fmt: skip
    """Rows of columns that are checked: a million a second, so past Row's own `new`. Raises ValueError at once."""
    if not len(keys) == len(values) == len(versions) == len(partitions):
        raise ValueError(_UNEVEN)
    kinds = [SiblingRow if type(one) is tuple else Row for one in values] if several else repeat(Row)
    return map(_new, kinds, zip(keys, values, versions, partitions, repeat(token), repeat(""), strict=False))


def _body(answer: HttpAnswer, decode: Callable[[bytes], B]) -> B:
    kind = answer.headers.get(b"content-type", b"")
    if kind not in _KINDS and kind.split(b";")[0].strip() not in _KINDS:
        raise _wrong(answer, f"it is {kind[:80]!r}, not {MSGPACK}")
    try:
        return decode(answer.content)
    except (ValueError, RecursionError) as error:
        raise _wrong(answer, error) from error


def _wrong(answer: HttpAnswer, why: object) -> ServerError:
    return ServerError(
        f"what the server sent is no list of the read API: {why!s}; is the URL right?", answer.status, {}
    )
