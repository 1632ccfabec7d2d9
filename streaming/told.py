"""Told: what the catalogue tells those who care for snapshots."""

from typing import NamedTuple

from logstore.log.registry import Definitions
from streaming.library import Library
from streaming.progress import Progress
from streaming.schedule import Schedule
from streaming.target import Target


class Snapshots(NamedTuple):
    """Those who care for snapshots."""

    library: Library
    progress: Progress
    schedule: Schedule

    def tell(self, definitions: Definitions, targets: list[Target], *, leading: bool) -> None:
        """What holds now: definitions, what is followed here, and whether this worker leads."""
        self.progress.only(targets)
        self.schedule.lead([table for table in definitions.tables.values() if not table.dropped], leading=leading)
