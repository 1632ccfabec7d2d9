"""Skips: offsets of one partition that a repair gave up, as (first, last), both included.

The log may hold them or not: they are never folded, and their absence is no gap.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import chain

Skips = Sequence[tuple[int, int]]


def first_missing(offsets: range, skips: Skips) -> int | None:
    """The first of `offsets` that no repair steps over; None when there is none."""
    at = offsets.start
    for first, last in sorted(skips):
        if first <= at <= last:
            at = last + 1
    return at if at < offsets.stop else None


def remaining(offsets: Sequence[int], skips: Skips) -> list[int] | None:
    """Indices of the offsets that no repair gave up; None where that is all of them. Requires: offsets rise."""
    ranges = [range(bisect_left(offsets, first), bisect_right(offsets, last)) for first, last in skips]
    gone = set(chain.from_iterable(ranges))
    return [at for at in range(len(offsets)) if at not in gone] if gone else None
