"""Packed values: the payloads of entries that hold several values, and such an entry as seen at a log time.

    kind       payload
    siblings   [value...]                                                                       oldest first
    cells      [[group, version]...], [[family, qualifier, [value...]]...]                      newest value first
               [next end ms, the same two]      where values end: the least end of any of them
    value      [version, timestamp ms, payload, end ms or nil]

The entry's own expiry is the end of the whole row: the greatest end, where each cell's newest value, or each sibling,
has one. What has ended is not in the state, so a digest counts an entry as it is seen at the log time of its cut.
"""

from collections.abc import Sequence
from typing import Any

import msgpack

from logstore.model.errors import Corrupted
from logstore.model.folding.entry import EXPIRES, HEAD_BYTES, SIBLINGS, VALUE, Entry, has_ended

_VERSION, _END = 0, 3  # of a value
ENDING = b"\x93"  # first byte of cells of which some value ends
_NEXT_END_BYTES = 10  # enough of a payload to tell when its next value ends
_EXPIRY_BYTES = 8

PackedValue = Sequence[Any]
DAMAGE = (ValueError, TypeError, IndexError, AttributeError, msgpack.UnpackException)  # what a damaged payload raises


def pack_cells(groups: Sequence[Any], cells: Sequence[Any]) -> bytes:
    """The payload of a row of cells, of its group versions and cells in the shape above, both in rising order."""
    ends = [one[_END] for _, _, values in cells for one in values if one[_END] is not None]
    packed: bytes = msgpack.packb([min(ends), groups, cells] if ends else [groups, cells])
    return packed


def seen_at(raw: bytes, now_ms: int) -> bytes | None:
    """The encoded entry without the values in it that have ended by `now_ms`; None when nothing of it is left.

    The same object when all of it is seen. A tombstone without an end stays. Raises Corrupted.
    """
    if has_ended(raw, now_ms):
        return None
    if raw[0] & ~EXPIRES < SIBLINGS:
        return raw
    start = HEAD_BYTES + (_EXPIRY_BYTES if raw[0] & EXPIRES else 0)
    try:
        if raw[0] & ~EXPIRES == SIBLINGS:
            return _siblings_at(raw, start, now_ms)
        return _cells_at(raw, start, now_ms) if _next_end(raw, start) <= now_ms else raw
    except DAMAGE as error:
        raise Corrupted(f"a row of {len(raw)} bytes cannot be read: {error}") from error


def _next_end(raw: bytes, start: int) -> float:
    """The log time at which the next value of a row of cells ends."""
    if raw[start] != ENDING[0]:
        return float("inf")
    unpacker = msgpack.Unpacker()
    unpacker.feed(raw[start : start + _NEXT_END_BYTES])
    unpacker.read_array_header()
    found: int = unpacker.unpack()
    return found


def _siblings_at(raw: bytes, start: int, now_ms: int) -> bytes:
    members = msgpack.unpackb(raw[start:])
    left = _living(members, now_ms)
    if len(left) == len(members):
        return raw
    if len(left) == 1 and left[0][_VERSION] == int.from_bytes(raw[1:9]):
        return Entry(VALUE, *left[0]).encode()
    packed: bytes = msgpack.packb(left)
    return raw[:start] + packed


def _cells_at(raw: bytes, start: int, now_ms: int) -> bytes:
    _, groups, cells = msgpack.unpackb(raw[start:])
    left = [
        [family, qualifier, _living(values, now_ms)]
        for family, qualifier, values in cells
        if _living(values[:1], now_ms)
    ]
    return raw[:start] + pack_cells(groups, left)


def _living(values: Sequence[PackedValue], now_ms: int) -> list[PackedValue]:
    return [one for one in values if one[_END] is None or one[_END] > now_ms]
