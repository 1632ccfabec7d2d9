"""Entry: a cell's stored value, the same bytes in an LMDB view and in an SSTable.

    offset  size  field
    0       1     kind       0 value, 1 tombstone, 2 siblings, 3 cells; bit 7 set: an expiry follows the timestamp
    1       8     version    big-endian; the offset of the mutation that wrote the cell
    9       8     timestamp  big-endian milliseconds since the epoch, as the broker set it on that mutation
    17      8     expiry     big-endian milliseconds of log time; only when bit 7 of kind is set. Of a tombstone: the
                             end of the value that it had
    17|25   ...   payload    empty for a tombstone; of kinds 2 and 3 a packed row

Big-endian, so that two entries of one key compare like their versions once the kind is masked.
These numbers are on disks: add kinds, never change them. `tests/test_entry.py` holds the golden bytes.
"""

import struct
from typing import NamedTuple

from logstore.model.errors import Corrupted

VALUE, TOMBSTONE = 0, 1
SIBLINGS, CELLS = 2, 3  # several values in one payload: `logstore.model.hard_rows.packed`
HEAD_BYTES = 17  # of an entry without expiry
EXPIRES = 0x80  # bit of the first byte
LATEST_MS = (1 << 63) - 1  # ends are capped here
_HEAD = struct.Struct(">BQQ")
_EXPIRY = struct.Struct(">Q")
encode_head = (
    _HEAD.pack
)  # (kind, version, timestamp) of an entry without expiry: the lane needs one for every row it writes


def has_ended(entry: bytes, now_ms: int) -> bool:
    """True when an encoded entry has an expiry that has come.

    `now_ms` is log time in the fold, the later of log and wall time for readers.
    """
    return entry[0] >= EXPIRES and int.from_bytes(entry[HEAD_BYTES : HEAD_BYTES + 8], "big") <= now_ms


def ends_later(entry: bytes, more_ms: int) -> bytes:
    """The encoded entry with an end that comes by so much later; one without an end stays as it is."""
    if entry[0] < EXPIRES:
        return entry
    end = min(int.from_bytes(entry[HEAD_BYTES : HEAD_BYTES + 8], "big") + more_ms, LATEST_MS)
    return entry[:HEAD_BYTES] + end.to_bytes(8) + entry[HEAD_BYTES + 8 :]


def tombstone_of(entry: bytes) -> bytes:
    """The tombstone that an encoded entry is once its end has come: of its version, and with that end.

    So that a read of the past tells a row that had ended by then from one whose value is gone since.
    """
    return bytes([TOMBSTONE | EXPIRES]) + entry[1 : HEAD_BYTES + 8]


class Entry(NamedTuple):
    """A version of a cell."""

    kind: int
    version: int  # offset in the cell's partition
    timestamp_ms: int  # of the record, milliseconds since the epoch
    payload: bytes = b""
    expires_ms: int | None = None  # log time, milliseconds since the epoch; None = never

    def encode(self) -> bytes:
        """Requires: version and timestamp >= 0; a tombstone has no payload."""
        assert self.kind != TOMBSTONE or not self.payload, "a tombstone has no payload"
        if self.expires_ms is None:
            return _HEAD.pack(self.kind, self.version, self.timestamp_ms) + self.payload
        return (
            _HEAD.pack(self.kind | EXPIRES, self.version, self.timestamp_ms)
            + _EXPIRY.pack(self.expires_ms)
            + self.payload
        )

    @classmethod
    def decode(cls, raw: bytes) -> "Entry":
        """Decode the bytes of an entry; raises Corrupted when they are too short or of an unknown kind."""
        try:
            kind, version, timestamp_ms = _HEAD.unpack_from(raw)
            if not kind & EXPIRES:
                return cls(_known(kind), version, timestamp_ms, bytes(raw[17:]))
            (expires_ms,) = _EXPIRY.unpack_from(raw, 17)
            return cls(_known(kind & ~EXPIRES), version, timestamp_ms, bytes(raw[25:]), expires_ms)
        except struct.error as error:
            raise Corrupted(f"an entry of {len(raw)} bytes is too short") from error

    def expired(self, now_ms: int) -> bool:
        """True from the moment of expiry on.

        `now_ms` is log time in the fold, the later of log and wall time for readers.
        """
        return self.expires_ms is not None and self.expires_ms <= now_ms


def _known(kind: int) -> int:
    if kind not in (VALUE, TOMBSTONE, SIBLINGS, CELLS):
        raise Corrupted(f"unknown entry kind {kind}: written by a newer version, or damaged")
    return kind
