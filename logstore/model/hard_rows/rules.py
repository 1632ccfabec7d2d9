"""Rules: what a table's definition says of its fold, as in force over a stretch of one partition's log."""

from collections.abc import Mapping
from typing import NamedTuple

from logstore.model.folding.fold import FoldRules

DEDUP_WINDOW_MS = 24 * 3_600 * 1_000
DEDUP_RECORDS = 4_000_000
MAX_ROW_CELLS = 100_000
PLAIN_FAMILY = ""  # the family of the cell that a plain put writes
DEFAULT_GROUP = ""  # the locality group of families that name none


class ColumnFamily(NamedTuple):
    """Rules of one column family."""

    versions: int = 1  # that a cell keeps, the newest one included
    ttl_ms: int | None = None  # of cells whose writer gives none; None: they stay
    group: str = DEFAULT_GROUP  # the locality group


PLAIN = {PLAIN_FAMILY: ColumnFamily()}


class Rules(NamedTuple):
    """Rules by which the rows of one partition are folded."""

    place: FoldRules
    wide: bool = False  # rows of many cells, in `families`
    families: Mapping[str, ColumnFamily] = PLAIN
    by_broker_time: bool = True  # False: writers set timestamps, so nothing expires and windows count records alone
    keeps_siblings: bool = False
    multi_row: bool = False
    dedup_window_ms: int = DEDUP_WINDOW_MS
    dedup_records: int = DEDUP_RECORDS
    max_row_cells: int = MAX_ROW_CELLS

    @property
    def groups(self) -> frozenset[str]:
        """The locality groups of all families."""
        return frozenset(family.group for family in self.families.values())
