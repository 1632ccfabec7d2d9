"""Bucket: the values of several whole keys under one key of a store that cuts or hashes long ones.

    one or more of: 4 bytes key length, 4 bytes value length, key, value; keys rise

In views entries of long row keys lie in buckets, in views and snapshots the ids of mutations.
"""

import struct
from collections.abc import Iterator, Mapping

from logstore.model.errors import Corrupted

_ITEM = struct.Struct(">II")


def unpack_bucket(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Items of a bucket as (key, value), keys rising; raises Corrupted when the lengths do not add up."""
    at = 0
    while at < len(raw):
        if at + _ITEM.size > len(raw):
            raise Corrupted("a bucket of long keys ends inside an item")
        key_bytes, entry_bytes = _ITEM.unpack_from(raw, at)
        middle, after = at + _ITEM.size + key_bytes, at + _ITEM.size + key_bytes + entry_bytes
        if after > len(raw):
            raise Corrupted("a bucket of long keys ends inside an item")
        yield bytes(raw[at + _ITEM.size : middle]), bytes(raw[middle:after])
        at = after


def pack_one(key: bytes, entry: bytes) -> bytes:
    """The bucket of one pair."""
    return _ITEM.pack(len(key), len(entry)) + key + entry


def pack_bucket(items: Mapping[bytes, bytes]) -> bytes:
    """The bucket of these (key, value) pairs."""
    return b"".join(_ITEM.pack(len(key), len(entry)) + key + entry for key, entry in sorted(items.items()))
