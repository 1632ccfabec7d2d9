"""Sorted merge: two lists of cells in key order as one, where newer cells lie over older ones of the same key.

A cell is a tuple that begins with its key. Requires, everywhere here: keys rise strictly in both lists, or with
`reverse` fall.
"""

from collections.abc import Iterable, Iterator
from operator import gt, lt
from typing import Any, TypeVar

A = TypeVar("A", bound=tuple[bytes, *tuple[Any, ...]])  # above
B = TypeVar("B", bound=tuple[bytes, *tuple[Any, ...]])  # below


def join(newer: Iterable[A], older: Iterable[B], *, reverse: bool = False) -> Iterator[tuple[A | None, B | None]]:
    """Cells of both lists, those of one key side by side; None where a list lacks the key."""
    earlier = gt if reverse else lt
    cells = iter(newer)
    top = next(cells, None)
    for cell in older:
        while top is not None and earlier(top[0], cell[0]):
            yield top, None
            top = next(cells, None)
        if top is not None and top[0] == cell[0]:
            yield top, cell
            top = next(cells, None)
        else:
            yield None, cell
    while top is not None:
        yield top, None
        top = next(cells, None)


def overlay(newer: Iterable[A], older: Iterable[B], *, reverse: bool = False) -> Iterator[A | B]:
    """Cells of both lists in one order; of a key that is in both, the newer one."""
    for top, cell in join(newer, older, reverse=reverse):
        if top is not None:
            yield top
        elif cell is not None:
            yield cell
