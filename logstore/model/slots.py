"""Slots: the unit of placement. Partition p of every table lies in slot `p mod S`.

So equal keys of equally partitioned tables are always together, and one small map says where everything is.
"""

DEFAULT_SLOTS = 16


def slot_of(partition: int, slots: int) -> int:
    """The slot of a partition, in a store of `slots` slots."""
    return partition % slots
