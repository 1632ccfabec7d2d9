"""Foreign time: records of a table that lives by the broker's time, to which a writer's clock gave the timestamp.

Log time is made of timestamps, and decides what has ended and what is still remembered. A topic of the store's own has
`message.timestamp.type=LogAppendTime`; while somebody has changed that, records are taken as their writers date them. A
topic that a user brought keeps the times it has: its tables take no TTLs.
"""

from collections.abc import Sequence
from typing import NamedTuple

from logstore.model.skips import first_missing
from logstore.model.table import Table


class ForeignTime(NamedTuple):
    """Offsets of the first run of such records that no repair steps over, both included."""

    first: int
    last: int

    def detail(self, table: Table, partition: int) -> str:
        """Message for people: the fault, and the way on."""
        return (
            f"the records at offsets {self.first:,} to {self.last:,} of {table.name}/{partition} have timestamps of "
            "their writers, by whose clocks rows would end: message.timestamp.type of the topic "
            f"{table.topic} was not LogAppendTime; set it again (`logstore doctor`), give the records up with "
            f"`logstore table repair {table.name} --partition {partition} --skip {self.first}..{self.last} --force`, "
            "and write those rows again"
        )


def foreign_time(table: Table, partition: int, by_writers: Sequence[int]) -> ForeignTime | None:
    """The first of these records that cannot be taken; None: all can. `by_writers`: as of `Timestamps`."""
    if not by_writers or table.adopted:
        return None
    skips = table.skips.get(partition, ())
    left = [offset for offset in by_writers if first_missing(range(offset, offset + 1), skips) is not None]
    if not left:
        return None
    run = next((n for n in range(1, len(left)) if left[n] != left[n - 1] + 1), len(left))
    return ForeignTime(left[0], left[run - 1])
