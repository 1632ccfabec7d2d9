"""Partitioning: which partition of a table a row key lives in. Nobody else asks the partitioner.

    hash table       the hash of the key, as Kafka's Java client places it (`logstore.model.partitioner`)
    ordered table    between split points: partition p holds splits[p - 1] <= key < splits[p]

A scan meets the partitions in legs: those of one leg are merged, and one leg comes after the other. A hash table has
one leg, with all partitions; an ordered one has a leg for each partition that its range touches, in the order of keys.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from logstore.model.partitioner import partition_of, partitions_of, placed

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Partitioning(NamedTuple):
    """Rule by which a table places its rows. Requires: `splits` rise strictly; if there are some, one fewer."""

    partitions: int
    splits: tuple[bytes, ...] = ()  # none: a hash table

    def of(self, key: bytes) -> int:
        """The partition of `key`."""
        return bisect_right(self.splits, key) if self.splits else partition_of(key, self.partitions)

    def of_each(self, keys: Sequence[bytes], key_lengths: Sequence[int] | None = None) -> "npt.NDArray[np.int64]":
        """The partitions of many keys at once, in their order. `key_lengths`: of each, where they are known."""
        if not self.splits:
            return partitions_of(keys, self.partitions, key_lengths)
        import numpy as np  # noqa: PLC0415 - who places single keys does not wait for its import

        return np.fromiter(map(partial(bisect_right, self.splits), keys), np.int64, len(keys))

    def listed(self, keys: Sequence[bytes]) -> list[int]:
        """The partitions of many keys, as plain numbers; also where numpy is not installed."""
        if self.splits:
            return list(map(partial(bisect_right, self.splits), keys))
        return placed(keys, self.partitions)

    def touched(self, start: bytes, end: bytes | None) -> range:
        """Partitions that can hold a key of `[start, end)`, `end` None = no end; of an empty range, that of `start`."""
        if not self.splits:
            return range(self.partitions)
        first = bisect_right(self.splits, start)
        last = len(self.splits) if end is None else bisect_left(self.splits, end)
        return range(first, max(first, last) + 1)

    def legs(self, start: bytes, end: bytes | None, *, reverse: bool) -> list[Sequence[int]]:
        """Partitions that a scan of `[start, end)` reads, leg by leg in the order of the scan."""
        return self.in_legs(self.touched(start, end), reverse=reverse)

    def in_legs(self, partitions: Sequence[int], *, reverse: bool) -> list[Sequence[int]]:
        """Legs of partitions, which rise, in the order of a scan."""
        if not self.splits:
            return [partitions]
        return [(partition,) for partition in (reversed(partitions) if reverse else partitions)]

    def bounds(self, partition: int) -> tuple[bytes, bytes | None]:
        """The range `[start, end)` of keys of a partition of an ordered table; None: it has no end."""
        lows, highs = (b"", *self.splits), (*self.splits, None)
        return lows[partition], highs[partition]
