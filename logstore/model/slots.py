"""Slots: the unit of placement. Partition p of every table lies in slot `p mod S`.

So equal keys of equally partitioned tables are always together, and one small map says where everything is.
"""

DEFAULT_SLOTS = 16


def slot_of(partition: int, slots: int) -> int:
    """The slot of a partition, in a store of `slots` slots."""
    return partition % slots


def spread(slots: int) -> list[int]:
    """An order of the slots in which any run of neighbours is spread out (van der Corput's sequence, 1935).

    Group coordinators hand out ranges: partition i of `logstore.slots` stands for slot `spread(S)[i]`, so that a table
    of few partitions, which lie in the first slots, does not end up with one worker.
    """
    bits = max(1, (slots - 1).bit_length())
    return sorted(range(slots), key=lambda slot: int(f"{slot:0{bits}b}"[::-1], 2))
