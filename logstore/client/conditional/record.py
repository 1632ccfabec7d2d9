"""ConditionalRecord: what a conditional write puts into the log, checked before it goes there."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from logstore.client.checks import Text, check_headers, check_takes, ttl_header
from logstore.model.errors import NotConditional, UsageError
from logstore.model.key import check_key, to_bytes
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.model.table import Table
    from logstore.model.wide.edited_rows import EditedRows

ID_BYTES = 16
COUNTER_BYTES = 8
_LARGEST = (1 << 63) - 1
_MAX_NAMED_BYTES = 1_000  # of a qualifier in a header
Headers = Mapping[str, Text] | None


class ConditionalRecord(NamedTuple):
    """A record whose outcome is remembered. The same one may be sent again: its id makes of all of them one write."""

    key: bytes
    value: bytes | None  # None deletes
    own: tuple[tuple[str, bytes], ...]  # reserved headers: ls.id first, ls.ttl last
    headers: Headers = None  # the writer's own
    edited: "EditedRows | None" = None  # of an edit of wide rows

    @property
    def id(self) -> bytes:
        """The mutation id."""
        return self.own[0][1]

    def check_takes(self, table: "Table") -> None:
        """Raise NotConditional, NotExpiring, NoSiblings, NotWide, UsageError unless the table takes such a record."""
        if self.edited is not None:
            self.edited.check_takes(table)
        if not table.conditional:
            raise NotConditional(table.name)
        check_takes(table, self.own)


class Expected(NamedTuple):
    """Expectation of a conditional write about its row, as the caller says it."""

    absent: bool = False
    present: bool = False
    version: int | None = None
    value_is: Text | None = None
    column: object = None  # of the version: the cell that has it, and not the row

    @property
    def is_none(self) -> bool:
        """True when nothing is expected."""
        rest = self.version, self.value_is, self.column
        return self.absent is False and self.present is False and rest == (None, None, None)

    def header(self) -> bytes:
        """The condition in the form of the log. Raises UsageError unless it is exactly one."""
        from logstore.model.folding.terms import Condition  # noqa: PLC0415 - loads xxhash, which readers do without

        for name, flag in (("absent", self.absent), ("present", self.present)):
            if not isinstance(flag, bool):
                raise UsageError(f"{name} is True or False, not {flag!r:.80}")
        if self.column is not None and self.version is None:
            raise UsageError("a column is named beside version=N: the version that its cell has")
        if self.version is not None:
            _check_int("version", self.version, 0)
        conditions = [
            *([Condition("absent")] if self.absent else []),
            *([Condition("present")] if self.present else []),
            *([] if self.version is None else [Condition("version", self.version, column=self._cell())]),
            *([] if self.value_is is None else [Condition.of_value(to_bytes(self.value_is))]),
        ]
        if len(conditions) != 1:
            raise UsageError(
                f"a conditional write has exactly one condition, not {len(conditions)}: absent=True, present=True, "
                "version=N (of a row that was read) or value_is=VALUE"
            )
        return conditions[0].encode()

    def _cell(self) -> "tuple[str, bytes] | None":
        """Column of the cell whose version is expected. Raises UsageError."""
        if self.column is None:
            return None
        from logstore.model.wide.columns import column_of  # noqa: PLC0415 - only edits name cells

        family, qualifier = column_of(self.column)
        if len(qualifier) > _MAX_NAMED_BYTES:
            raise UsageError(
                f"the qualifier of a condition has at most {_MAX_NAMED_BYTES:,} bytes, not {len(qualifier):,}"
            )
        return family, qualifier


def put_record(
    key: Text, value: Text, expected: Expected, headers: Headers, ttl_s: float | None = None
) -> ConditionalRecord:
    """A put under a condition. Raises BadKey, UsageError."""
    return record_of(key, to_bytes(value), [("ls.if", expected.header()), *ttl_header(ttl_s)], headers)


def delete_record(key: Text, expected: Expected, headers: Headers) -> ConditionalRecord:
    """A delete under a condition. Raises BadKey, UsageError."""
    return record_of(key, None, [("ls.if", expected.header())], headers)


def cas_record(key: Text, expected: Text | None, value: Text | None, headers: Headers) -> ConditionalRecord:
    """A value in the place of another; None is no row, on either side. Raises BadKey, UsageError."""
    wanted = Expected(absent=True) if expected is None else Expected(value_is=expected)
    if value is None:
        return delete_record(key, wanted, headers)
    return put_record(key, value, wanted, headers)


def incr_record(key: Text, delta: int, headers: Headers) -> ConditionalRecord:
    """An addition to a counter. Raises BadKey, UsageError."""
    _check_int("delta", delta, -_LARGEST - 1)
    return record_of(key, delta.to_bytes(COUNTER_BYTES, signed=True), [("ls.op", b"incr")], headers)


def append_record(key: Text, suffix: Text, headers: Headers) -> ConditionalRecord:
    """Bytes behind those of a row. Raises BadKey, UsageError."""
    return record_of(key, to_bytes(suffix), [("ls.op", b"append")], headers)


def edit_record(edited: "EditedRows", expected: Expected, headers: Headers) -> ConditionalRecord:
    """An edit of wide rows; `expected` may be none. Raises UsageError."""
    condition = [] if expected.is_none else [("ls.if", expected.header())]
    return record_of(edited.key, edited.value, [("ls.op", b"edit"), *condition], headers)._replace(edited=edited)


def read_id(text: bytes | str) -> bytes:
    """A mutation id as bytes, from them or from hex. Raises UsageError."""
    raw: Any = text
    if isinstance(text, str):
        try:
            raw = bytes.fromhex(text) if text.isascii() else None
        except ValueError:
            raw = None
    if not isinstance(raw, bytes) or len(raw) != ID_BYTES:
        raise UsageError(f"the id of a write is {ID_BYTES} bytes, or as many in hex, not {text!r:.80}")
    return raw


def read_name(name: bytes | str | Position) -> bytes | Position:
    """The id of a write, as bytes, or its position. Raises UsageError."""
    if not isinstance(name, Position):
        return read_id(name)
    _ = name.offset  # raises for that of several writes
    return name


def named_after(after: Position | str | None, name: bytes | Position) -> Position | str | None:
    """Position that the read of an outcome is to see at least: that of a write which it names, and so its own table."""
    return name if after is None and isinstance(name, Position) else after


def record_of(key: Text, value: bytes | None, terms: list[tuple[str, bytes]], headers: Headers) -> ConditionalRecord:
    """A record with a new id and these terms, a TTL the last of them. Raises BadKey, UsageError."""
    check_headers(headers)
    return ConditionalRecord(
        check_key(to_bytes(key)), value, (("ls.id", os.urandom(ID_BYTES)), *terms), headers or None
    )


def _check_int(name: str, number: int, least: int) -> None:
    if type(number) is not int or not least <= number <= _LARGEST:
        raise UsageError(f"{name} is a whole number from {least:,} to {_LARGEST:,}, not {number!r:.80}")
