"""Digest: a fingerprint of the live entries of one partition at one cut, independent of the order they are met in.

    digest = sum mod 2^128 over all live entries of xxh3-128( key length: 4 bytes big-endian | key | entry bytes )

An incremental multiset hash of the AdHash family (Bellare and Micciancio 1997): what is added can be subtracted again,
so a digest is had by scanning everything, or from a known one by difference. It finds faults, not adversaries.
Tombstones are not counted.
"""

from collections.abc import Iterable
from typing import NamedTuple

from xxhash import xxh3_128_intdigest

_MASK = (1 << 128) - 1
TOMBSTONES = (0x01, 0x81)  # first bytes of an entry, see entry.py


class Digest(NamedTuple):
    """The sum over some entries, and how many they are. Digests of disjoint sets add up."""

    value: int = 0
    entries: int = 0

    def plus(self, other: "Digest") -> "Digest":
        """The digest of both sets together."""
        return Digest((self.value + other.value) & _MASK, self.entries + other.entries)

    def minus(self, other: "Digest") -> "Digest":
        """The digest of what is left. Requires: `other` is part of this one."""
        return Digest((self.value - other.value) & _MASK, self.entries - other.entries)

    @property
    def hex(self) -> str:
        """The sum as 32 lower-case hex digits."""
        return f"{self.value:032x}"

    @classmethod
    def from_hex(cls, text: str, entries: int) -> "Digest":
        """Read `hex` again; raises ValueError when it is not 32 hex digits."""
        if len(text) != 32:
            raise ValueError(f"a digest has 32 hex digits, not {len(text)}: {text[:40]!r}")
        return cls(int(text, 16), entries)


def pair(key: bytes, entry: bytes) -> int:
    """The hash of one (key, encoded entry)."""
    return xxh3_128_intdigest(len(key).to_bytes(4) + key + entry)


def digest(pairs: Iterable[tuple[bytes, bytes]]) -> Digest:
    """The digest of (key, encoded entry) pairs; tombstones are passed over. The pairs are streamed, never held."""
    total = entries = 0
    hashed = xxh3_128_intdigest
    for key, entry in pairs:
        if entry[0] not in TOMBSTONES:
            total += hashed(
                len(key).to_bytes(4) + key + entry
            )  # a Python integer does not overflow: masking once is enough
            entries += 1
    return Digest(total & _MASK, entries)
