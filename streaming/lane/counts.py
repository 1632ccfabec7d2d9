"""Counts of a lane: what it applied of each table, and how long that took. The lane writes, others look."""

from dataclasses import dataclass


@dataclass(slots=True)
class TableCounts:
    """Records and batches of one table that were applied, and the seconds that folds and commits took."""

    records: int = 0
    batches: int = 0
    fold_s: float = 0.0
    commit_s: float = 0.0


class LaneCounts:
    """Counts of a lane, since its worker started."""

    def __init__(self) -> None:
        self._tables: dict[str, TableCounts] = {}
        self.restarts = 0  # of its consumer, because it did not progress

    def of(self, table: str) -> TableCounts:
        """Counts of a table; they go on where it is let go and followed again."""
        return self._tables.setdefault(table, TableCounts())

    def tables(self) -> dict[str, TableCounts]:
        """Counts of all tables, by name."""
        return dict(self._tables)
