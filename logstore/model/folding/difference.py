"""Difference: the digest of newer entries over what lies below them, from the digest of that alone.

    digest after = digest before - what the newer entries replace + those of them that are live

So a digest costs what has changed: a node has it of its view over a base, a compaction of its delta over the levels of
a snapshot. What is replaced is looked up below, or found by walking along it where that is quicker.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, Protocol

from logstore.model.folding.digest import TOMBSTONES, Digest, pair
from logstore.model.folding.entry import tombstone_of
from logstore.model.folding.packed_values import seen_at
from logstore.model.folding.sorted_merge import join

_WALK = 8  # a step along what lies below costs an eighth of a look-up

Item = tuple[bytes, bytes]  # key, entry


class KeyRange(NamedTuple):
    """Keys with start <= key < end; None: no end."""

    start: bytes = b""
    end: bytes | None = None

    def holds(self, key: bytes) -> bool:
        """True where a key is in it."""
        return key >= self.start and (self.end is None or key < self.end)

    def meets(self, first: bytes, last: bytes) -> bool:
        """True where some key from `first` to `last`, both included, may be in it."""
        return last >= self.start and (self.end is None or first < self.end)


EVERY_KEY = KeyRange()


class LookUp(Protocol):
    """Look-ups and walks among live entries that newer ones lie over."""

    def get(self, key: bytes) -> bytes | None:
        """The live entry of a key."""

    def scan(self, start: bytes = b"", end: bytes | None = None) -> Iterator[Item]:
        """Live entries with start <= key < end, in key order."""


class StateBelow(NamedTuple):
    """State that newer entries lie over: its reader, its digest, and how many entries a walk along it meets.

    `log_time_ms`: of the state that both make, in a table whose rows expire; what has ended by then is not in it.
    `get_many`: look-ups of so many keys at once as may be held with their entries, `at_once`.
    """

    reader: LookUp
    digest: Digest
    entries: int
    log_time_ms: int | None = None
    get_many: Callable[[list[bytes]], list[bytes | None]] | None = None
    at_once: int = 1


class Difference:
    """Difference that newer entries make to the digest of what lies below them."""

    def __init__(self) -> None:
        """Begin with no entries."""
        self._added = self._added_entries = self._replaced = self._replaced_entries = 0

    def add(self, item: Item, old: bytes | None) -> None:
        """Count an entry, and the live one below it that it replaces."""
        key, entry = item
        if old is not None:
            self._replaced += pair(key, old)
            self._replaced_entries += 1
        if entry[0] not in TOMBSTONES:
            self._added += pair(key, entry)
            self._added_entries += 1

    def passing(self, pairs: Iterable[tuple[Item, bytes | None]]) -> Iterator[Item]:
        """Add newer entries, and pass on those that are needed: not tombstones with nothing to hide."""
        for item, old in pairs:
            self.add(item, old)
            if old is not None or item[1][0] not in TOMBSTONES:
                yield item

    def counting(self, pairs: Iterable[tuple[Item, bytes | None]]) -> Iterator[Item]:
        """Add newer entries, and pass all of them on."""
        for item, old in pairs:
            self.add(item, old)
            yield item

    def after(self, before: Digest) -> Digest:
        """The digest with the newer entries, from the one without them."""
        return self.untouched(before).plus(Digest(self._added, self._added_entries))

    def untouched(self, before: Digest) -> Digest:
        """The digest of what lies below and is not replaced, from that of all that lies below."""
        return before.minus(Digest(self._replaced, self._replaced_entries))


def digest_upon(newer: Iterable[Item], changed: int, below: StateBelow, keys: KeyRange = EVERY_KEY) -> Digest:
    """The digest of newer entries and what lies below them together. Requires and walks as `beside`."""
    difference = Difference()
    for item, old in beside(newer, changed, below, keys):
        difference.add(item, old)
    return difference.after(below.digest)


def beside(
    newer: Iterable[Item], changed: int, below: StateBelow, keys: KeyRange = EVERY_KEY
) -> Iterator[tuple[Item, bytes | None]]:
    """Newer entries, some `changed`, each with the live one below that it replaces.

    What has ended comes as a tombstone of its version, and a row of which a part has ended without it, in rows that are
    not newer too: those are met by walking along what lies below. Requires: they are in key order, all in `keys`.
    """
    if below.log_time_ms is not None:
        yield from _beside_ends(newer, below, below.log_time_ms, keys)
    elif changed * _WALK > below.entries:
        for item, old in join(newer, below.reader.scan(*keys)):
            if item is not None:
                yield item, None if old is None else old[1]
    elif below.get_many is None:
        for item in newer:
            yield item, below.reader.get(item[0])
    else:
        items = iter(newer)
        while piece := list(islice(items, below.at_once)):
            yield from zip(piece, below.get_many([key for key, _ in piece]), strict=True)


def ended(items: Iterable[Item], log_time_ms: int) -> Iterator[Item]:
    """The items as seen at this log time; a tombstone of its version in place of each that has ended."""
    for key, entry in items:
        yield key, _seen(entry, log_time_ms)


def _seen(entry: bytes, log_time_ms: int) -> bytes:
    seen = seen_at(entry, log_time_ms)
    return tombstone_of(entry) if seen is None else seen


def _beside_ends(
    newer: Iterable[Item], below: StateBelow, log_time_ms: int, keys: KeyRange
) -> Iterator[tuple[Item, bytes | None]]:
    for item, old in join(ended(newer, log_time_ms), below.reader.scan(*keys)):
        if item is not None:
            yield item, None if old is None else old[1]
        elif old is not None and (seen := _seen(old[1], log_time_ms)) is not old[1]:
            yield (old[0], seen), old[1]
