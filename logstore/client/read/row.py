"""Row: what a read returns, and the rows of a list answer (msgpack), checked before anybody has them."""

from collections.abc import Sequence
from itertools import compress, repeat
from typing import Any, NamedTuple

from logstore.client.transport.answer import HttpAnswer
from logstore.model.errors import ServerError, Stopped
from logstore.model.position import Position

MSGPACK = "application/msgpack"
COLUMNS = "application/vnd.logstore.columns+msgpack"
LISTS = f"{COLUMNS}, {MSGPACK};q=0.9"  # what is accepted: nodes that do not know the one answer with the other
_FIELDS = "key", "value", "version", "partition"
_KINDS: tuple[set[type], ...] = {bytes}, {bytes}, {int}, {int}
_new = tuple.__new__


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


class RowPage(NamedTuple):
    """A page of a scan before its rows are made, so that the next one can be asked for meanwhile."""

    answer: HttpAnswer
    columns: list[Sequence[Any]]
    length: int  # rows
    token: str
    cursor: str | None  # of the next page

    def rows(self) -> list[Row]:
        """Rows of the page. Raises ServerError when they are none."""
        try:
            return _rows(self.columns, self.token)
        except (TypeError, ValueError) as error:
            raise _wrong(self.answer, error) from error


def page_of(answer: HttpAnswer, *, keys_only: bool) -> RowPage:
    """The page of a scan that an answer is. Raises ServerError when it is none."""
    body = _body(answer)
    try:
        columns = _columns(body, "rows", keys_only=keys_only)
        page = RowPage(answer, columns, len(columns[0]), body["token"] or "", body["cursor"])
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _wrong(answer, error) from error
    if not (page.cursor is None or isinstance(page.cursor, str)):
        raise _wrong(answer, "its cursor is no text")
    return page


class Many(NamedTuple):
    """Rows of one answer to a multi-get."""

    keys: Sequence[bytes]  # that were answered
    rows: list[Row | None]  # of each
    elsewhere: list[bytes]  # keys that another node has


def many_of(answer: HttpAnswer, table: str, wanted: Sequence[bytes]) -> Many:
    """Rows that a multi-get found. Raises Stopped, and ServerError when it is no answer to the keys that were asked."""
    body = _body(answer)
    try:
        token, columns = body["token"] or "", _columns(body, "results", keys_only=False)
        rows = _rows_or_none(columns, token)
        left_out = [(entry["key"], str(entry["reason"])) for entry in body["unprocessed"]]
        all_there = not left_out and columns[0] == wanted
        known = all_there or {*columns[0], *dict(left_out)} <= {*wanted}
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _wrong(answer, error) from error
    if not known:
        raise _wrong(answer, "its keys are not those that were asked for")
    for key, reason in left_out:
        if reason == "partition-stopped":
            raise Stopped(f"the partition of key {key!r} of table {table} has stopped; `logstore status` says why")
    return Many(columns[0], rows, [key for key, reason in left_out if reason == "not-owner"])


def _columns(body: dict[str, Any], name: str, *, keys_only: bool) -> list[Sequence[Any]]:
    """Keys, values, versions and partitions, also of a list of rows, as nodes before this form answer."""
    fields = [field for field in _FIELDS if not (keys_only and field == "value")]
    found = body["columns"] if "columns" in body else {f: [_field(row, f) for row in body[name]] for f in fields}
    columns = {field: found[field] for field in fields}
    return [columns[field] if field in columns else [b""] * len(columns["key"]) for field in _FIELDS]


def _field(row: dict[str, Any], field: str) -> Any:
    if not row.get("found", True):
        return row["key"] if field == "key" else None
    if row[field] is None:
        raise TypeError(f"a row has no {field}")
    return row[field]


def _rows_or_none(columns: Sequence[Sequence[Any]], token: str) -> list[Row | None]:
    """Rows of columns, and None where there is no value."""
    if None not in columns[1]:
        return [*_rows(columns, token)]
    is_there = [value is not None for value in columns[1]]
    if {*map(type, columns[0])} != {bytes}:
        raise TypeError("a key is not of its kind")
    rows = iter(_rows([list(compress(column, is_there)) for column in columns], token))
    return [next(rows) if there else None for there in is_there]


def _rows(columns: Sequence[Sequence[Any]], token: str) -> list[Row]:
    """Rows of columns, each field of its kind. A million a second: so a column at a time, past Row's own `new`."""
    kinds = [{*map(type, column)} for column in columns]
    if not all(some <= kind for some, kind in zip(kinds, _KINDS, strict=True)) or type(token) is not str:
        raise TypeError("a key, value, version, partition or token is not of its kind")
    shared = repeat(token, len(columns[0])), repeat("", len(columns[0]))
    return list(map(_new, repeat(Row), zip(*columns, *shared, strict=True)))


def _body(answer: HttpAnswer) -> dict[str, Any]:
    kind = answer.headers.get(b"content-type", b"")
    if kind.split(b";")[0].strip().decode("latin-1") not in (COLUMNS, MSGPACK):
        raise _wrong(answer, f"it is {kind[:80]!r}, not {MSGPACK}")
    import msgpack  # noqa: PLC0415 - who reads row by row does without

    try:
        body = msgpack.unpackb(answer.content)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise _wrong(answer, error) from error
    if not isinstance(body, dict):
        raise _wrong(answer, "it is no map")
    return body


def _wrong(answer: HttpAnswer, why: object) -> ServerError:
    return ServerError(
        f"what the server sent is no list of the read API: {why!s}; is the URL right?", answer.status, {}
    )
