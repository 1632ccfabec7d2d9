"""Target: a partition that a lane has to follow."""

from typing import NamedTuple

from logstore.model.table import PartitionKey, Table
from logstore.view.layout import Stop


class Target(NamedTuple):
    """A partition that a lane has to follow; `problem` is what is known to be wrong with its topic.

    `hold`: why nobody can tell whether anything is, an ACL that lacks, mostly; nothing of the log is applied meanwhile.
    """

    table: Table
    partition: int
    slot: int
    problem: Stop | None = None
    hold: str | None = None

    @property
    def name(self) -> str:
        """Name of the target's table.

        Another one after a promotion, which is a change of tables for all that lies on the disk.
        """
        return self.table.name

    @property
    def key(self) -> PartitionKey:
        """Key of the target's partition: (epoch, partition)."""
        return self.table.epoch, self.partition
