"""Levels of a partition's SSTables: a base, and deltas upon it, each of the rows that one compaction changed.

    newest mutation of every key ─> a delta; merged with all that is below it once the deltas are too large a share of
                                    the base, or with the deltas alone where it would be one level too many

So a compaction writes about what has changed: the minor and the major compaction of Bigtable (Chang et al. 2006).
The digest is had by difference: the entries that the delta replaces are looked up below it, by walking along where
that is quicker. What a delta deletes stays in it as a tombstone, and goes with the base.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from logstore.model.folding.digest import TOMBSTONES, Digest, pair
from logstore.model.folding.sorted_merge import join
from logstore.snapshot.manifest import FileFacts
from logstore.snapshot.sst import SstReader

AT_MOST = 4  # levels: each is one more place where a row may lie
_WALK = 8  # a step along the levels costs an eighth of a look-up

Item = tuple[bytes, bytes]


class Difference:
    """Difference that newer entries make to the digest of what lies below them."""

    def __init__(self) -> None:
        """Begin with no entries."""
        self._sum = self._entries = 0

    def add(self, item: Item, old: bytes | None) -> None:
        """Count an entry, and the live one below it that it replaces."""
        key, entry = item
        if old is not None:
            self._sum -= pair(key, old)
            self._entries -= 1
        if entry[0] not in TOMBSTONES:
            self._sum += pair(key, entry)
            self._entries += 1

    def passing(self, pairs: Iterable[tuple[Item, bytes | None]]) -> Iterator[Item]:
        """Add newer entries, and pass on those that are needed: not tombstones with nothing to hide."""
        for item, old in pairs:
            self.add(item, old)
            if old is not None or item[1][0] not in TOMBSTONES:
                yield item

    def after(self, before: Digest) -> Digest:
        """The digest with the newer entries, from the one without them."""
        return before.plus(Digest(self._sum, self._entries))


class Shares(NamedTuple):
    """Bytes of a partition's base, and of the deltas upon it."""

    base: int
    deltas: int


def shares_of(files: Iterable[FileFacts]) -> Shares:
    """Shares of one partition's files."""
    shares = [0, 0]
    for file in files:
        shares[file.level > 0] += file.size_bytes
    return Shares(*shares)


def is_quicker_to_walk(changed: int, entries: int) -> bool:
    """True where reading all entries in order costs less than looking the changed ones up."""
    return changed * _WALK > entries


def beside(
    newer: Iterable[Item], below: SstReader, *, walk: bool, start: bytes = b""
) -> Iterator[tuple[Item, bytes | None]]:
    """Newer entries, each with the live one below that it replaces. Requires: they are in key order.

    `walk`: read all that is below in order, from `start` on, else look up what is needed.
    """
    if walk:
        for item, old in join(newer, below.scan(start)):
            if item is not None:
                yield item, None if old is None else old[1]
    else:
        for item in newer:
            yield item, below.get(item[0])
