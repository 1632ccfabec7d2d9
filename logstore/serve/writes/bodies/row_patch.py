"""Row patch: one mutation of a row as a body says it, in JSON or msgpack.

    {"op", "value", "delta", "if", "edits"}

Bytes are a string, or {"base64": "..."} in JSON, or bytes in msgpack. `if` is one of {"absent": true}, {"present":
true}, {"version": n} and {"value": ...}; of an edit {"version": n, "family": ..., "qualifier": ...} too, of a cell.
"""

import base64
import binascii

import msgspec
from msgspec import Raw

from logstore.model.errors import UsageError
from logstore.model.folding.terms import Condition
from logstore.model.wide.columns import check_family
from logstore.serve.wire.media_types import JSON, MSGPACK
from logstore.serve.wire.problems import Problem
from logstore.serve.writes.bodies.cell_edits import ABSENT, LEAST_DELTA, MOST_DELTA, Bytes, CellEdit, edited_row
from logstore.serve.writes.row_record import APPEND, COUNTER_BYTES, DELETE, EDIT, INCR, OPERATIONS, PUT, RowRecord

PATCH_KINDS = (JSON, MSGPACK)
_BIN = (b"\xc4", b"\xc5", b"\xc6")  # how bytes begin in msgpack
_MOST_VERSION = (1 << 63) - 1
_MAX_NAMED_BYTES = 1_000  # of a qualifier in a header of the log


class _Expected(msgspec.Struct, forbid_unknown_fields=True):
    """The field "if"."""

    absent: bool = False
    present: bool = False
    version: int | None = None
    value: Raw = ABSENT
    family: str | None = None
    qualifier: Raw = ABSENT


class RowPatch(msgspec.Struct, forbid_unknown_fields=True):
    """One mutation as it is sent. Bytes stay as they are until it is known that they are some."""

    op: str = PUT
    value: Raw = ABSENT
    delta: int | None = None
    expected: _Expected | None = msgspec.field(default=None, name="if")
    edits: list[CellEdit] | None = None

    def check_fields(self, *, rows: bool = False) -> None:
        """Raise UsageError for fields that the operation has not. `rows`: it says the rows of an edit."""
        if self.op not in OPERATIONS:
            raise UsageError(f"op is one of {', '.join(OPERATIONS)}, not {self.op[:40]!r}")
        given = bool(bytes(self.value))
        if given != (self.op in (PUT, APPEND)) or (self.delta is not None) != (self.op == INCR):
            raise UsageError("put and append have a value, incr has a delta, delete and edit have neither")
        if ((self.edits is not None) + rows) != (self.op == EDIT):
            raise UsageError("an edit has edits, or rows that have some, and no other op has them")

    def payload(self, to_bytes: Bytes) -> bytes | None:
        """The value of the log's record, of all but an edit. Raises UsageError, and what `to_bytes` raises."""
        if self.op == DELETE:
            return None
        if self.delta is None:
            return to_bytes(self.value)
        if not LEAST_DELTA <= self.delta <= MOST_DELTA:
            raise UsageError("delta is a whole number of 64 bits")
        return self.delta.to_bytes(COUNTER_BYTES, signed=True)

    def condition(self, to_bytes: Bytes) -> Condition | None:
        """The condition. Raises UsageError, and what `to_bytes` raises."""
        return None if self.expected is None else _condition(self.expected, to_bytes, of_edit=self.op == EDIT)


class _PatchBody(RowPatch):
    """The body of a PATCH; without `op` it is an edit."""

    op: str = EDIT


_EXAMPLES = (
    'Changes are {"op": "incr", "delta": 1}, {"op": "append", "value": "..."} and, of wide rows, '
    '{"edits": [{"op": "set", "family": "...", "qualifier": "...", "value": "..."}]}'
)
_JSON, _MSGPACK = msgspec.json.Decoder(_PatchBody), msgspec.msgpack.Decoder(_PatchBody)


def read_patch(kind: str, body: bytes, key: bytes) -> RowRecord:
    """The record of the body of a PATCH. Raises Problem, UsageError."""
    decoder, to_bytes = (_MSGPACK, msgpack_bytes) if kind == MSGPACK else (_JSON, json_bytes)
    try:
        change = decoder.decode(body)
        change.check_fields()
        if change.op in (PUT, DELETE):
            raise UsageError("PATCH changes a row by incr, append or edit; PUT and DELETE write it whole")
        condition = change.condition(to_bytes)
        if change.edits is not None:
            return RowRecord.of_edit(edited_row(key, change.edits, to_bytes), condition, None)
        return RowRecord(change.op, key, change.payload(to_bytes), condition)
    except (msgspec.DecodeError, UnicodeError, binascii.Error, RecursionError) as error:
        raise Problem(
            "bad-request", f"the body is no change of a row: {error!s:.200}; nothing was written. {_EXAMPLES}"
        ) from error


class _Base64(msgspec.Struct, forbid_unknown_fields=True):
    base64: str


_TEXT = msgspec.json.Decoder(str | _Base64)


def json_bytes(raw: Raw) -> bytes:
    """The bytes that JSON says. Raises msgspec.DecodeError, UnicodeError, binascii.Error."""
    found = _TEXT.decode(raw)
    return found.encode() if isinstance(found, str) else base64.b64decode(found.base64, validate=True)


def msgpack_bytes(raw: Raw) -> bytes:
    """The bytes that msgpack says, as such or as text. Raises msgspec.DecodeError, UnicodeError."""
    if bytes(raw)[:1] in _BIN:
        return msgspec.msgpack.decode(raw, type=bytes)
    return msgspec.msgpack.decode(raw, type=str).encode()


def _condition(expected: _Expected, to_bytes: Bytes, *, of_edit: bool) -> Condition:
    if expected.version is not None and not 0 <= expected.version <= _MOST_VERSION:
        raise UsageError("a version is an offset: a whole number from 0 on")
    has_value = bool(bytes(expected.value))
    if of_edit and has_value:
        raise UsageError("an edit is done if the row is absent or present, or if it, or a cell, has a version")
    found = [
        *([Condition("absent")] if expected.absent else []),
        *([Condition("present")] if expected.present else []),
        *(
            []
            if expected.version is None
            else [Condition("version", expected.version, column=_cell(expected, to_bytes))]
        ),
        *([Condition.of_value(to_bytes(expected.value))] if has_value else []),
    ]
    if len(found) != 1:
        raise UsageError("`if` has one of absent (true), present (true), version and value")
    if (expected.family is not None or bytes(expected.qualifier)) and not (of_edit and expected.version is not None):
        raise UsageError("a cell is named beside its version, in the condition of an edit")
    return found[0]


def _cell(expected: _Expected, to_bytes: Bytes) -> tuple[str, bytes] | None:
    """The cell whose version is expected; None: the row's."""
    has_qualifier = bool(bytes(expected.qualifier))
    if (expected.family is not None) != has_qualifier:
        raise UsageError("a cell is named by family and qualifier")
    if expected.family is None:
        return None
    qualifier = to_bytes(expected.qualifier)
    if len(qualifier) > _MAX_NAMED_BYTES:
        raise UsageError(f"the qualifier of a condition has at most {_MAX_NAMED_BYTES:,} bytes, not {len(qualifier):,}")
    return check_family(expected.family), qualifier
