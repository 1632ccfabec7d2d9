"""Sibling: one of several values that stand side by side in a row, as readers see it.

A row of one value is an ordinary row, whatever its entry looks like; `Value` is what a row holds for its readers.
"""

from collections.abc import Iterable, Sized
from typing import NamedTuple


class Sibling(NamedTuple):
    """A value whose writer did not know of the others."""

    version: int  # offset of the mutation that wrote it
    value: bytes


Siblings = tuple[Sibling, ...]  # two or more, in rising order of version
Value = bytes | Siblings
Ends = tuple[int | None, ...]  # when a value, or each sibling or cell, ends; empty: nothing of the row does


def ends_of(given: Iterable[int | None]) -> Ends:
    """The ends of a row's value, siblings or cells, in their order."""
    ends = tuple(given)
    return () if ends.count(None) == len(ends) else ends


def first_end(ends: Ends) -> int | None:
    """The time at which the first part of what a row holds ends; None: nothing of it does."""
    return min((one for one in ends if one is not None), default=None)


def size_bytes(value: Sized | None) -> int:
    """Bytes of a row's values, or of its cells, together."""
    if isinstance(value, tuple):
        return sum(len(one.value) for one in value)
    return 0 if value is None else len(value)
