"""Encoding: outcomes and ids as they lie in views and snapshots. Golden bytes: `tests/test_decisions.py`.

    outcome   key     offset, 8 bytes
              value   number (8) | log time in ms (8) | what became of the mutation:
                          00                        applied
                          01 version (8, signed)    rejected; -1: what the condition asked for is absent
                          02 reason, ASCII          invalid
                          03 offset (8) outcome     duplicate of the record at that offset, and what became of it

    id        key     row key | mutation id (16)
              value   offset of its first record (8) | digest of that one's content (16) | log time (8) | number (8)

What became of the first record of an id is the outcome at its offset: both have its number and log time, so they leave
the state together. All numbers are big-endian.
"""

import struct

from logstore.model.errors import Corrupted
from logstore.model.hard_rows.outcomes import (
    AppliedOutcome,
    DuplicateOutcome,
    InvalidOutcome,
    Outcome,
    RejectedOutcome,
    RememberedId,
    RememberedOutcome,
)  # fmt: skip

ID_BYTES = 16
_HEAD = struct.Struct(">QQ")
_OFFSET = struct.Struct(">Q")
_VERSION = struct.Struct(">q")
_ID = struct.Struct(">Q16sQQ")
APPLIED, _REJECTED, _INVALID, _DUPLICATE = b"\0", b"\1", b"\2", b"\3"  # what became of a mutation
_ABSENT = -1


def encode_outcome(remembered: RememberedOutcome) -> bytes:
    """The value of an outcome."""
    return outcome_value(remembered.number, remembered.log_time_ms, encode_became(remembered.outcome))


def outcome_value(number: int, log_time_ms: int, became: bytes) -> bytes:
    """The value of an outcome, of what became of the mutation, encoded."""
    return _HEAD.pack(number, log_time_ms) + became


def decode_outcome(raw: bytes) -> RememberedOutcome:
    """Read `encode_outcome`; raises Corrupted when the bytes are none."""
    try:
        number, log_time_ms = _HEAD.unpack_from(raw)
        return RememberedOutcome(_read_became(bytes(raw[_HEAD.size :])), log_time_ms, number)
    except (struct.error, UnicodeDecodeError, IndexError, ValueError) as error:
        raise Corrupted(f"an outcome of {len(raw)} bytes cannot be read: {error}") from error


def outcome_key(offset: int) -> bytes:
    """The key of the outcome of the record at `offset`."""
    return _OFFSET.pack(offset)


def outcome_offset(key: bytes) -> int:
    """The offset in an outcome's key; raises Corrupted when it has not 8 bytes."""
    if len(key) != _OFFSET.size:
        raise Corrupted(f"the key of an outcome has {len(key)} bytes")
    return int(_OFFSET.unpack(key)[0])


def encode_id(remembered: RememberedId) -> bytes:
    """The value of an id."""
    return id_value(remembered.first, remembered.content, remembered.log_time_ms, remembered.number)


def id_value(first: int, content: bytes, log_time_ms: int, number: int) -> bytes:
    """The value of an id, of its fields."""
    return _ID.pack(first, content, log_time_ms, number)


def first_of(raw: bytes) -> int:
    """The offset of the first record that bore an id; raises Corrupted as `decode_id`."""
    return _id_fields(raw)[0]


def decode_id(raw: bytes, first: RememberedOutcome) -> RememberedId:
    """Read `encode_id`; `first`: the outcome at the offset that it names. Raises Corrupted when the bytes are none."""
    offset, content, log_time_ms, number = _id_fields(raw)
    if isinstance(first.outcome, DuplicateOutcome) or first.number != number:
        raise Corrupted(f"the outcome at offset {offset} is not that of the first record of an id")
    return RememberedId(offset, content, first.outcome, log_time_ms, number)


def _id_fields(raw: bytes) -> tuple[int, bytes, int, int]:
    if len(raw) != _ID.size:
        raise Corrupted(f"an id's value has {len(raw)} bytes, not {_ID.size}")
    first, content, log_time_ms, number = _ID.unpack(raw)
    return first, content, log_time_ms, number


def encode_became(outcome: Outcome) -> bytes:
    """The bytes of what became of a mutation."""
    if isinstance(outcome, AppliedOutcome):
        return APPLIED
    if isinstance(outcome, RejectedOutcome):
        return became_rejected(outcome.version)
    if isinstance(outcome, InvalidOutcome):
        return became_invalid(outcome.reason)
    return became_duplicate(outcome.first, encode_became(outcome.outcome))


def became_rejected(version: int | None) -> bytes:
    """The bytes of a rejection by a row or cell of this version."""
    return _REJECTED + _VERSION.pack(_ABSENT if version is None else version)


def became_invalid(reason: str) -> bytes:
    """The bytes of a mutation that cannot be done for this reason."""
    return _INVALID + reason.encode("ascii")


def reason_of(became: bytes) -> str | None:
    """The reason in the bytes of a mutation that cannot be done; None for every other one."""
    return became[1:].decode("ascii") if became.startswith(_INVALID) else None


def became_duplicate(first: int, became: bytes) -> bytes:
    """The bytes of a duplicate of the record at `first`, of what became of that one."""
    return _DUPLICATE + _OFFSET.pack(first) + became


def _read_became(raw: bytes) -> Outcome:
    kind, rest = raw[:1], raw[1:]
    if kind == APPLIED and not rest:
        return AppliedOutcome()
    if kind == _REJECTED and len(rest) == _VERSION.size:
        (version,) = _VERSION.unpack(rest)
        return RejectedOutcome(None if version == _ABSENT else version)
    if kind == _INVALID and rest:
        return InvalidOutcome(rest.decode("ascii"))
    if kind == _DUPLICATE:
        of_first = _read_became(rest[_OFFSET.size :])
        if not isinstance(of_first, DuplicateOutcome):
            return DuplicateOutcome(_OFFSET.unpack_from(rest)[0], of_first)
    raise ValueError(f"{raw[:20].hex() or 'nothing'} is no outcome")
