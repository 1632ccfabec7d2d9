"""Task groups: small items that one task takes together, for what a task costs whatever it does.

Neighbours are grouped while they cost no more than a task may; there are enough groups for every core to have work:
PER_CORE for each that is known, TASKS at most. What is larger has a task of its own.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

TASKS, PER_CORE = 8, 2
T = TypeVar("T")


def grouped(items: Sequence[T], cost_of: Callable[[T], int], most: int, cores: int = 0) -> list[list[T]]:
    """The items in order, in groups that cost `most` at most; one that costs more is a group alone.

    `cores`: tasks that run at once; 0: it is not known.
    """
    fewest = min(TASKS, PER_CORE * cores) or TASKS
    longest, groups, cost = -(-len(items) // fewest), list[list[T]](), 0
    for item in items:
        more = cost_of(item)
        if groups and cost + more <= most and len(groups[-1]) < longest:
            groups[-1].append(item)
            cost += more
        else:
            groups.append([item])
            cost = more
    return groups


def flattened(results: Iterable[Iterable[T]]) -> list[T]:
    """Results of the items, from those of their groups."""
    return [one for those in results for one in those]
