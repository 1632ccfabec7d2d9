"""Cell edits: changes of a wide row as a body says them; they act in their order, together or not at all.

    {"op": "set", "family": "content", "qualifier": "html", "value": ..., "ttl_ms": n, if it is to end}
    {"op": "append", "family", "qualifier", "value"}    {"op": "incr", "family", "qualifier", "delta"}
    {"op": "delete", "family", "qualifier"}    {"op": "delete-family", "family"}    {"op": "delete-row"}

In the log they are the verbs of `logstore.model.hard_rows.changes.edits`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import msgspec
from msgspec import Raw

from logstore.model.errors import UsageError
from logstore.model.key import check_key
from logstore.model.wide.columns import check_family
from logstore.model.wide.edited_rows import EditedRows

Bytes = Callable[[Raw], bytes]
ABSENT = Raw()
LEAST_DELTA, MOST_DELTA = -(1 << 63), (1 << 63) - 1
MAX_TTL_MS = (1 << 63) - 1
_FIELDS = {
    "set": ("set", ("family", "qualifier", "value")), "append": ("append", ("family", "qualifier", "value")),
    "incr": ("incr", ("family", "qualifier", "delta")), "delete": ("del", ("family", "qualifier")),
    "delete-family": ("del-family", ("family",)), "delete-row": ("del-row", ()),
}  # fmt: skip
CELL_OPERATIONS = tuple(_FIELDS)


class CellEdit(msgspec.Struct, forbid_unknown_fields=True):
    """One change of a row. Bytes stay as they are until it is known that they are some."""

    op: str
    family: str | None = None
    qualifier: Raw = ABSENT
    value: Raw = ABSENT
    delta: int | None = None
    ttl_ms: int | None = None

    def verb(self, to_bytes: Bytes) -> list[Any]:
        """The change as it stands in the log. Raises UsageError, and what `to_bytes` raises."""
        if self.op not in _FIELDS:
            raise UsageError(f"the op of an edit is one of {', '.join(_FIELDS)}, not {self.op[:40]!r}")
        verb, needed = _FIELDS[self.op]
        given = {
            "family": self.family is not None, "qualifier": bool(bytes(self.qualifier)),
            "value": bool(bytes(self.value)), "delta": self.delta is not None,
        }  # fmt: skip
        if {name for name, is_given in given.items() if is_given} != set(needed):
            raise UsageError(f"the op {self.op} has {', '.join(needed) or 'no other field'}, and nothing else")
        if self.delta is not None and not LEAST_DELTA <= self.delta <= MOST_DELTA:
            raise UsageError("delta is a whole number of 64 bits")
        if self.ttl_ms is not None and (self.op != "set" or not 1 <= self.ttl_ms <= MAX_TTL_MS):
            raise UsageError("ttl_ms is a number of milliseconds from 1 on, of what is set")
        found: list[Any] = [verb]
        if self.family is not None:
            found.append(check_family(self.family))
        found += [to_bytes(raw) for raw in (self.qualifier, self.value) if bytes(raw)]
        found += [number for number in (self.delta, self.ttl_ms) if number is not None]
        return found


class RowOfEdits(msgspec.Struct, forbid_unknown_fields=True):
    """A row of several that are edited together."""

    key: Raw
    edits: list[CellEdit]


def edited_row(key: bytes, edits: Sequence[CellEdit], to_bytes: Bytes) -> EditedRows:
    """The edit of one row. Raises UsageError, and what `to_bytes` raises."""
    verbs = _verbs(edits, to_bytes)
    return EditedRows(key, msgpack.packb(verbs), _families(edits), False, _has_ttl(edits))


def edited_rows(rows: Sequence[RowOfEdits], to_bytes: Bytes) -> EditedRows:
    """The edit of several rows of a partition. Raises UsageError, BadKey, and what `to_bytes` raises."""
    named = {check_key(to_bytes(row.key)): row.edits for row in rows}
    if not named or len(named) < len(rows):
        raise UsageError("an edit of rows has one or more of them, and each key once")
    value = msgpack.packb([["row", key, _verbs(edits, to_bytes)] for key, edits in named.items()])
    families = frozenset[str]().union(*map(_families, named.values()))
    return EditedRows(next(iter(named)), value, families, True, any(map(_has_ttl, named.values())))


def _verbs(edits: Sequence[CellEdit], to_bytes: Bytes) -> list[list[Any]]:
    if not edits:
        raise UsageError("the edit changes nothing: edits is a list of what is done to the row")
    return [edit.verb(to_bytes) for edit in edits]


def _families(edits: Sequence[CellEdit]) -> frozenset[str]:
    return frozenset(edit.family for edit in edits if edit.family is not None)


def _has_ttl(edits: Sequence[CellEdit]) -> bool:
    return any(edit.ttl_ms is not None for edit in edits)
