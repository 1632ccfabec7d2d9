"""Expiries: ends of a view's rows in the order in which they come, so that their bytes can be taken back.

    database   key                                                      value
    expiries   expiry (8) | version (8) | xxh3-64(row key) (8)          the row key

A row whose end has come is absent to everybody at once, whether or not its bytes are still there. They are taken back a
few rows at a time, with what is committed anyway: a tombstone of the same version stays, since a base below, or one to
come, may hold an older entry of the row.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from xxhash import xxh3_64_digest

from logstore.model.folding.digest import TOMBSTONES
from logstore.model.folding.entry import EXPIRES, HEAD_BYTES, tombstone_of

EXPIRIES = b"expiries"
_KEY = struct.Struct(">QQ")
_SWEPT = 64  # rows that a commit takes back at least, if there are some


class EndsSize(NamedTuple):
    """Size of what a commit writes of ends: bytes of keys and values, and items that it touches."""

    bytes: int
    items: int


def write(database: Any, txn: Any, entries: Mapping[bytes, bytes]) -> None:
    """Note the ends of these rows' new entries."""
    ending = [(_key(row_key, raw), row_key) for row_key, raw in entries.items() if _may_end(raw)]
    if ending:
        txn.cursor(db=database).putmulti(sorted(ending))


def sweep(
    database: Any, txn: Any, log_time_ms: int, written: int, row: Callable[[bytes], bytes | None]
) -> dict[bytes, bytes]:
    """Forget ends that have come; returns the tombstones of the rows that have ended so. `row`: a row's entry.

    More of them than the rows that the commit has `written`, and not many more.
    """
    tombstones: dict[bytes, bytes] = {}
    cursor = txn.cursor(db=database)
    for _ in range(2 * written + _SWEPT):
        if not cursor.first():
            break
        key, row_key = cursor.item()
        expiry_ms, version = _KEY.unpack_from(key)
        if expiry_ms > log_time_ms:
            break
        cursor.delete()
        raw = row(row_key)
        if raw is not None and _may_end(raw) and int.from_bytes(raw[1:9], "big") == version:
            tombstones[row_key] = tombstone_of(raw)
    return tombstones


def room_for(entries: Mapping[bytes, bytes]) -> EndsSize:
    """The room that a commit of these entries takes for their ends, and to take rows back that have ended, at most."""
    ending = [row_key for row_key, raw in entries.items() if _may_end(raw)]
    return EndsSize(sum(map(len, ending)) + 24 * len(ending), len(ending) + 2 * (2 * len(entries) + _SWEPT))


def _may_end(raw: bytes) -> bool:
    return raw[0] >= EXPIRES and raw[0] not in TOMBSTONES


def _key(row_key: bytes, raw: bytes) -> bytes:
    return raw[HEAD_BYTES : HEAD_BYTES + 8] + raw[1:9] + xxh3_64_digest(row_key)
