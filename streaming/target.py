"""Target: a partition that a lane has to follow."""

from typing import NamedTuple

from logstore.model.table import Table
from logstore.view.layout import Stop


class Target(NamedTuple):
    """A partition that a lane has to follow; `problem` is what is known to be wrong with its topic."""

    table: Table
    partition: int
    slot: int
    problem: Stop | None = None

    @property
    def key(self) -> tuple[str, int]:
        """(epoch, partition)."""
        return self.table.epoch, self.partition
