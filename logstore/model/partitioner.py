"""Partitioner: which partition of a topic a row key lives in. Kafka's Java default, and no other.

    partition = (murmur2(key) & 0x7fffffff) % partitions        murmur2 of the raw key bytes, seed 0x9747b28c

Source: `org.apache.kafka.common.utils.Utils.murmur2` and `BuiltInPartitioner.partitionForKey`. librdkafka and kcat do
the same under the name `murmur2_random`; their own default (CRC32) does not. Proved with vectors in
`tests/test_partitioner.py`.
"""

import functools
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import chain
from struct import Struct, unpack_from
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF
_WORDS = [
    Struct(f"<{words}I").unpack_from for words in range(64)
]  # made once: parsing the format costs as much as a short key
_FEW = 24  # below this many keys a Python loop beats the set-up of the arrays


def murmur2(key: bytes) -> int:
    """The unsigned 32-bit murmur2 hash of `key`."""
    length = len(key)
    h = _SEED ^ length
    whole = length >> 2
    for k in _WORDS[whole](key) if whole < len(_WORDS) else unpack_from(f"<{whole}I", key):
        k = k * _M & _MASK  # noqa: PLW2901 - the mixing reads as in the source
        h = (h * _M ^ (k ^ k >> 24) * _M) & _MASK
    if tail := key[whole << 2 :]:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of `key` in a topic of `partitions` partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def partitions_of(
    keys: Sequence[bytes], partitions: int, key_lengths: Sequence[int] | None = None
) -> "npt.NDArray[np.int64]":
    """The partitions of many keys at once, in their order: some 20 times quicker than one by one."""
    import numpy as np  # noqa: PLC0415 - who places single keys does not wait for its import

    if len(keys) < _FEW:
        return np.fromiter((partition_of(key, partitions) for key in keys), np.int64, len(keys))
    if len({*(key_lengths or map(len, keys))}) == 1:
        return _in_range(_murmur2_of_equal_length(keys, len(keys[0])), partitions)
    lengths = np.fromiter(key_lengths or map(len, keys), np.int64, len(keys))
    hashes = np.empty(len(keys), np.uint32)
    for length in np.unique(lengths):
        where = np.flatnonzero(lengths == length)
        if len(where) < _FEW:
            hashes[where] = [murmur2(keys[i]) for i in where.tolist()]
        else:
            same = keys if len(where) == len(keys) else [keys[i] for i in where.tolist()]
            hashes[where] = _murmur2_of_equal_length(same, int(length))
    return _in_range(hashes, partitions)


def _in_range(hashes: "npt.NDArray[np.uint32]", partitions: int) -> "npt.NDArray[np.int64]":
    import numpy as np  # noqa: PLC0415 - as above

    return (hashes & np.uint32(0x7FFFFFFF)).astype(np.int64) % partitions


def placed(keys: Sequence[bytes], partitions: int) -> list[int]:
    """The partitions of many keys, as plain numbers; one by one where numpy is not installed."""
    if _has_numpy():
        return list(partitions_of(keys, partitions).tolist())
    return [partition_of(key, partitions) for key in keys]


@functools.cache
def _has_numpy() -> bool:
    return find_spec("numpy") is not None


def _murmur2_of_equal_length(keys: Sequence[bytes], length: int) -> "npt.NDArray[np.uint32]":
    """Requires: every key has `length` bytes. Column by column: one vector operation does all keys."""
    import numpy as np  # noqa: PLC0415 - as above

    padded = -length % 4
    raw = b"".join(keys) if not padded else b"".join(chain.from_iterable((key, b"\0" * padded) for key in keys))
    words = np.frombuffer(raw, "<u4").reshape(len(keys), -1)
    m = np.uint32(_M)
    h = np.full(len(keys), _SEED ^ length, np.uint32)
    for column in range(length >> 2):
        k = words[:, column] * m
        k ^= k >> np.uint32(24)
        h = h * m ^ k * m
    if padded:
        h = (h ^ words[:, length >> 2]) * m
    h = (h ^ h >> np.uint32(13)) * m
    return h ^ h >> np.uint32(15)
