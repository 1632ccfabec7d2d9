"""RecordIdentity: by which the record at an offset is known again.

A log that lost its end and grew again has other records at the offsets it lost. Whoever stands on a log (view,
snapshot, archive) keeps the identity of the newest record below its position, and compares it with the log before it
follows.
"""

import struct
from typing import NamedTuple

import xxhash

from logstore.model.errors import Corrupted

_HEAD = struct.Struct(">Qq")
_LENGTH = struct.Struct(">I")
_NULL = b"\xff\xff\xff\xff"
DIGEST_BYTES = 16


class RecordIdentity(NamedTuple):
    """An offset, and the xxh3-128 of what stands there."""

    offset: int
    digest: bytes

    @property
    def text(self) -> str:
        """Text form of the identity: `<offset>-<32 hex digits>`."""
        return f"{self.offset}-{self.digest.hex()}"

    @classmethod
    def parse(cls, text: str) -> "RecordIdentity | None":
        """Read `text`; empty: None. Raises Corrupted."""
        if not text:
            return None
        offset, _, digest = text.partition("-")
        try:
            found = cls(int(offset), bytes.fromhex(digest))
        except ValueError as error:
            raise Corrupted(f"{text[:80]!r} does not identify a record") from error
        if len(found.digest) != DIGEST_BYTES or found.offset < 0:
            raise Corrupted(f"{text[:80]!r} does not identify a record")
        return found


def identify(offset: int, timestamp_ms: int, key: bytes | None, value: bytes | None) -> RecordIdentity:
    """The identity of a record: xxh3-128 of offset, timestamp, key and value, the last two with their lengths."""
    hashed = xxhash.xxh3_128(_HEAD.pack(offset, timestamp_ms))
    for part in (key, value):
        hashed.update(_NULL if part is None else _LENGTH.pack(len(part)))
        hashed.update(part or b"")
    return RecordIdentity(offset, hashed.digest())


class AppliedPosition(NamedTuple):
    """Position to which a log was followed: next offset, and the newest record below it with its leader epoch."""

    next_offset: int
    leader_epoch: int  # -1 = unknown
    last: RecordIdentity
