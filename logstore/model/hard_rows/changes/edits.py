"""Edits: the cells that a mutation names, in the order in which it changes them.

An `edit` record holds a msgpack array of

    ["set", family, qualifier, payload, ttl_ms?]    ["del", family, qualifier]    ["del-family", family]    ["del-row"]
    ["incr", family, qualifier, delta]              ["append", family, qualifier, bytes]
    ["row", key, [edits...]]                        those of another row of the partition, not nested

A family is an ASCII str; qualifiers, payloads and keys are bin or str (its bytes); delta and TTL are int64. Anything
else is invalid, for ever: what is new comes with another format version. The other operations are edits of one cell.
"""

from typing import Any, NamedTuple

import msgpack

from logstore.model.hard_rows.rules import PLAIN_FAMILY
from logstore.model.key import MAX_KEY_BYTES

_INT64 = range(-(1 << 63), 1 << 63)
_SHAPES = {"set": (4, 5), "del": (3,), "del-family": (2,), "del-row": (1,), "incr": (4,), "append": (4,), "row": (3,)}


class Infeasible(Exception):
    """An operation that cannot be done; `reason` is a word. Nothing changes then."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Edit(NamedTuple):
    """One change of one row: what it names follows from its verb."""

    verb: str  # set, del, del-family, del-row, incr, append
    family: str = PLAIN_FAMILY
    qualifier: bytes = b""
    payload: bytes = b""
    delta: int = 0
    ttl_ms: int | None = None


class RowEdits(NamedTuple):
    """Edits of one row."""

    key: bytes
    edits: list[Edit]


def parse_edits(key: bytes, value: bytes) -> list[RowEdits]:
    """The edits of a record of row `key`, row after row, as they follow each other; raises Infeasible("bad-edit").

    Requires: `value` is one well-formed msgpack object.
    """
    found: list[RowEdits] = []
    for item in _array(value):
        if item[0] == "row":
            found.append(RowEdits(_key(item[1]), [_edit(_shaped(one)) for one in _list(item[2])]))
        else:
            found.append(RowEdits(key, [_edit(item)]))
    return found


def names_rows(value: bytes) -> bool:
    """True when the edits of a record name other rows, whatever else there is to say of them."""
    items = _unpacked(value)
    return isinstance(items, list) and any(isinstance(item, list) and item[:1] == ["row"] for item in items)


def rows_named(value: bytes) -> list[bytes]:
    """Keys of the other rows that the edits of a record name, as far as they are keys."""
    items = _unpacked(value)
    named = [item[1] for item in items if _is_row(item)] if isinstance(items, list) else []
    return [_bytes(one) for one in named if isinstance(one, str | bytes) and one]


def names_ttl(value: bytes) -> bool:
    """True when an edit of a record brings a TTL of its own, whatever else there is to say of them."""
    items = _unpacked(value)
    rows = [item[2] for item in items if _is_row(item)] if isinstance(items, list) else []
    lists = [items, *rows]
    return any(
        isinstance(one, list) and one[:1] == ["set"] and len(one) == 5
        for several in lists if isinstance(several, list) for one in several
    )  # fmt: skip


def _is_row(item: Any) -> bool:
    return isinstance(item, list) and item[:1] == ["row"] and len(item) == 3


def _unpacked(value: bytes) -> Any:
    """The object of a value; None for one that Python cannot hold, as a map with arrays for keys."""
    try:  # str and bin differ: a verb is the one and never the other
        return msgpack.unpackb(value, raw=False, unicode_errors="surrogateescape", strict_map_key=False)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException):
        return None


def _array(value: bytes) -> list[list[Any]]:
    return [_shaped(item) for item in _list(_unpacked(value))]


def _list(raw: Any) -> list[Any]:
    if not isinstance(raw, list):
        raise Infeasible("bad-edit")
    return raw


def _shaped(raw: Any) -> list[Any]:
    """An array whose first item is a verb, and that has as many items as such an edit has."""
    item = _list(raw)
    if not item or not isinstance(item[0], str) or len(item) not in _SHAPES.get(item[0], ()):
        raise Infeasible("bad-edit")
    return item


def _edit(item: list[Any]) -> Edit:
    verb, rest = item[0], item[1:]
    if verb == "row":  # a row in a row
        raise Infeasible("bad-edit")
    if verb == "del-row":
        return Edit(verb)
    family = _family(rest[0])
    if verb == "del-family":
        return Edit(verb, family)
    qualifier = _bytes(rest[1])
    if verb == "del":
        return Edit(verb, family, qualifier)
    if verb == "incr":
        return Edit(verb, family, qualifier, delta=_int64(rest[2]))
    ttl_ms = _int64(rest[3]) if len(rest) == 4 else None
    if ttl_ms is not None and ttl_ms < 0:
        raise Infeasible("bad-edit")
    return Edit(verb, family, qualifier, _bytes(rest[2]), ttl_ms=ttl_ms)


def _key(raw: Any) -> bytes:
    key = _bytes(raw)
    if not 0 < len(key) <= MAX_KEY_BYTES:
        raise Infeasible("bad-edit")
    return key


def _family(raw: Any) -> str:
    if not isinstance(raw, str) or not raw.isascii():
        raise Infeasible("bad-edit")
    return raw


def _bytes(raw: Any) -> bytes:
    if isinstance(raw, str):
        return raw.encode("utf-8", "surrogateescape")
    if not isinstance(raw, bytes):
        raise Infeasible("bad-edit")
    return raw


def _int64(raw: Any) -> int:
    if type(raw) is not int or raw not in _INT64:
        raise Infeasible("bad-edit")
    return raw
