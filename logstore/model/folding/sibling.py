"""Sibling: one of several values that stand side by side in a row, as readers see it.

A row of one value is an ordinary row, whatever its entry looks like; `Value` is what a row holds for its readers.
"""

from collections.abc import Sized
from typing import NamedTuple


class Sibling(NamedTuple):
    """A value whose writer did not know of the others."""

    version: int  # offset of the mutation that wrote it
    value: bytes


Siblings = tuple[Sibling, ...]  # two or more, in rising order of version
Value = bytes | Siblings


def size_bytes(value: Sized | None) -> int:
    """Bytes of a row's values, or of its cells, together."""
    if isinstance(value, tuple):
        return sum(len(one.value) for one in value)
    return 0 if value is None else len(value)
