"""Layout: the bytes of a view. The drawing with all its boxes is in `docs/lmdb_layout.md`.

    database     key                           value
    entries      cell key (below)              entry, or for a long cell key a bucket
    quarantine   8 bytes, offset big-endian    the reason, a word of `mutation.REASONS` or of an invalid outcome
    meta         "identity"                    JSON: table, epoch, partition and rules that this view is made for
                 "state"                       next offset (8 bytes), log time (8), leader epoch (4), offset (8) and
                                               identity (16) of the last record, all big-endian; then the stop as
                                               JSON, or nothing while the partition runs
                 "quarantine"                  JSON: {reason: count}
                 "base"                        JSON: the snapshot that holds what the entries leave out; absent: none

    cell key     the row key itself                                                       up to 495 bytes
                 the row key's first 495 bytes, then 8 bytes xxh3-64 of all of it         from 496 bytes on
    bucket       one or more of: 4 bytes key length, 4 bytes entry length, row key, entry; keys rise

LMDB keys have at most 511 bytes: 495 + 8 leaves 8 for the version that an older entry of the same cell is filed under.
A long key's length (503) tells it from every short one, and all long keys with one prefix stand together, right behind
the short key that equals the prefix and before every short key above it. Among themselves they stand in the order of
their hashes; a scan puts them in byte order. Two long keys with equal hashes share a bucket, so a collision, even a
made one, costs time and never an answer.
"""

import struct
from typing import NamedTuple

import orjson
import xxhash

from logstore.model.errors import Corrupted
from logstore.model.folding import bucket
from logstore.model.folding.digest import Digest
from logstore.model.record_identity import DIGEST_BYTES, RecordIdentity

ENTRIES, META, QUARANTINE = b"entries", b"meta", b"quarantine"
DATABASES = 16  # room for the databases of later formats

IDENTITY, STATE, COUNTS, BASE = b"identity", b"state", b"quarantine", b"base"
SHORT_BYTES = 495
LONG_BYTES = SHORT_BYTES + 8
MAX_QUARANTINED = 1_000
MAX_READERS = 1_024  # reader slots of an environment
DEFAULT_MAP_BYTES = 1 << 30  # address space, not disk; doubled when it is full, so that 100,000 views fit into 47 bits

pack_bucket, pack_one, unpack_bucket = bucket.pack_bucket, bucket.pack_one, bucket.unpack_bucket  # of long keys

_STATE = struct.Struct(">QQiQ16s")
_NO_RECORD = 2**64 - 1  # in place of the last record's offset: no record below the position is known
STATE_BYTES = _STATE.size  # a state that is longer carries a stop
_OFFSET = struct.Struct(">Q")


class Stop(NamedTuple):
    """Cause for which a partition answers nothing.

    `word` is the error class's word, `detail` a sentence with the command that helps.
    """

    word: str
    detail: str
    offset: int


class State(NamedTuple):
    """Position and stop of a view, committed together with its entries."""

    next_offset: int
    log_time_ms: int
    leader_epoch: int = (
        -1
    )  # of the last record applied, -1 = unknown; Kafka tells by it whether the log was cut back since (KIP-320)
    stop: Stop | None = None
    last: RecordIdentity | None = None  # the newest record below the next offset; None = unknown

    def encode(self) -> bytes:
        """The value of "state"."""
        last = self.last or RecordIdentity(_NO_RECORD, bytes(DIGEST_BYTES))
        head = _STATE.pack(self.next_offset, self.log_time_ms, self.leader_epoch, *last)
        return head + orjson.dumps(self.stop._asdict()) if self.stop else head

    @classmethod
    def decode(cls, raw: bytes) -> "State":
        """Decode a state; raises Corrupted when the bytes are too short, or the stop behind them cannot be read."""
        if len(raw) < _STATE.size:
            raise Corrupted(f"a view's state of {len(raw)} bytes is too short")
        following, log_time_ms, leader_epoch, offset, digest = _STATE.unpack_from(raw)
        stop = _stop(raw[_STATE.size :]) if len(raw) > _STATE.size else None
        last = None if offset == _NO_RECORD else RecordIdentity(offset, digest)
        return cls(following, log_time_ms, leader_epoch, stop, last)


class Base(NamedTuple):
    """The snapshot a view stands on.

    The view holds entries of version `cut` and above; everything older is in the snapshot's SSTables.
    """

    snapshot: str  # its name
    cut: int  # the first offset it does not cover
    log_time_ms: int  # at the cut, milliseconds since 1970
    digest: str  # of this partition's live entries at the cut, 32 hex digits
    entries: int  # how many those are
    root: (
        str  # what the fold began with: "" = offset 0, else the name of a snapshot; a digest is worth what it is worth
    )
    leader_epoch: int = -1  # of the last record below the cut, -1 = unknown
    last: str = ""  # that record's identity, `<offset>-<32 hex digits>`; empty: unknown
    counter: int = 0  # outcomes that a conditional table has counted below the cut
    rows_digest: str = ""  # the part of `digest` that its rows make; empty: all of it
    rules: int = 0  # revision of a wide table's rules that is in force at the cut

    @property
    def rows(self) -> Digest:
        """The digest of the rows alone: outcomes and ids are in the view, whole."""
        return Digest.from_hex(self.rows_digest or self.digest, self.entries)

    def encode(self) -> bytes:
        """The value of "base"; what a table without outcomes has nothing of is left out, as earlier builds wrote it."""
        fields = self._asdict()
        for name in ("counter", "rows_digest", "rules"):
            if not fields[name]:
                del fields[name]
        return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)

    @classmethod
    def decode(cls, raw: bytes) -> "Base":
        """Decode a base; raises Corrupted when the bytes are none."""
        try:
            base = cls(**orjson.loads(raw))
        except (ValueError, TypeError) as error:
            raise Corrupted(f"a view's base cannot be read: {error}") from error
        named = isinstance(base.snapshot, str) and isinstance(base.root, str)
        if not (named and isinstance(base.cut, int) and base.cut >= 0):
            raise Corrupted(f"a view's base is damaged: {raw[:200]!r}")
        RecordIdentity.parse(base.last)
        return base


class Quarantine(NamedTuple):
    """Records that the fold skipped: counts by reason since the beginning, and the newest as (offset, reason)."""

    counts: dict[str, int]
    records: list[tuple[int, str]]


def _stop(raw: bytes) -> Stop:
    try:
        return Stop(**orjson.loads(raw))
    except (ValueError, TypeError) as error:
        raise Corrupted(f"a view's stop cannot be read: {error}") from error


def cell_key(row_key: bytes) -> bytes:
    """The LMDB key of a row's cell."""
    if len(row_key) <= SHORT_BYTES:
        return row_key
    return row_key[:SHORT_BYTES] + xxhash.xxh3_64_digest(row_key)


def is_bucket(lmdb_key: bytes) -> bool:
    """True when the value under this LMDB key is a bucket of long keys."""
    return len(lmdb_key) == LONG_BYTES


def pack_offset(offset: int) -> bytes:
    """The key of a quarantined record."""
    return _OFFSET.pack(offset)


def unpack_offset(raw: bytes) -> int:
    """The offset of a quarantined record; raises Corrupted when it has not 8 bytes."""
    if len(raw) != _OFFSET.size:
        raise Corrupted(f"the key of a quarantined record has {len(raw)} bytes")
    return int(_OFFSET.unpack(raw)[0])


def offset_or_0(raw: bytes | None) -> int:
    """The number that `pack_offset` wrote; 0 where there is none."""
    return 0 if raw is None else unpack_offset(raw)


def unpack_counts(raw: bytes) -> dict[str, int]:
    """Counts of skipped records, by reason; raises Corrupted when they cannot be read."""
    try:
        counts: dict[str, int] = orjson.loads(raw)
    except ValueError as error:
        raise Corrupted(f"a view's counts of skipped records cannot be read: {error}") from error
    return counts
