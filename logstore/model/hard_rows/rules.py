"""Rules: what a table's definition says of its fold, as in force over a stretch of one partition's log."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from logstore.model.folding.fold import FoldRules
from logstore.model.table import DEFAULT_DEDUP_RECORDS, DEFAULT_DEDUP_WINDOW_MS, MAX_ROW_BYTES, Table

MAX_ROW_CELLS = 100_000
CELL_BYTES = 32  # of a value in a row, beside its qualifier and payload
PLAIN_FAMILY = ""  # the family of the cell that a plain put writes
DEFAULT_GROUP = ""  # the locality group of families that name none


class ColumnFamily(NamedTuple):
    """Rules of one column family."""

    versions: int = 1  # that a cell keeps, the newest one included
    ttl_ms: int | None = None  # of cells whose writer gives none; None: they stay
    group: str = DEFAULT_GROUP  # the locality group


PLAIN = {PLAIN_FAMILY: ColumnFamily()}


def with_plain(families: Mapping[str, ColumnFamily]) -> dict[str, ColumnFamily]:
    """The families, and that of the cell that a plain put writes."""
    return {**PLAIN, **families}


class DedupWindow(NamedTuple):
    """Window for which a partition remembers ids and outcomes; both of its bounds end the memory of them."""

    records: int  # the newest so many
    ms: int | None  # of log time; None where writers set the timestamps


class Rules(NamedTuple):
    """Rules by which the rows of one partition are folded."""

    place: FoldRules
    wide: bool = False  # rows of many cells, in `families`
    families: Mapping[str, ColumnFamily] = PLAIN
    expiring: bool = True  # False: the table takes no TTLs
    by_broker_time: bool = True  # False: writers set timestamps, so nothing expires and windows count records alone
    keeps_siblings: bool = False
    multi_row: bool = False
    dedup_window_ms: int = DEFAULT_DEDUP_WINDOW_MS
    dedup_records: int = DEFAULT_DEDUP_RECORDS
    max_row_cells: int = MAX_ROW_CELLS
    max_row_bytes: int = MAX_ROW_BYTES
    revisions: Mapping[int, Mapping[str, ColumnFamily]] = MappingProxyType({})  # families by revision, but for the 0th

    def at(self, revision: int) -> "Rules":
        """The rules of a revision. Requires: it is known. Those that `rules_of` gives are of revision 0."""
        return self if revision == 0 else self._replace(families=self.revisions[revision])

    @property
    def groups(self) -> frozenset[str]:
        """The locality groups of all families."""
        return frozenset(family.group for family in self.families.values())

    @property
    def window(self) -> DedupWindow:
        """The dedup window."""
        return DedupWindow(self.dedup_records, self.dedup_window_ms if self.by_broker_time else None)


def rules_of(table: Table, partition: int) -> Rules:
    """The rules by which a partition of a conditional table is folded."""
    revisions = {
        one.revision: with_plain({name: ColumnFamily(**said) for name, said in one.families.items()})
        for one in table.revisions
    }
    return Rules(
        FoldRules.of(table, partition),
        wide=table.wide, families=revisions.pop(0), keeps_siblings=table.siblings, multi_row=table.multi_row,
        expiring=table.expiring, dedup_window_ms=table.dedup_window_ms, dedup_records=table.dedup_records,
        revisions=revisions,
    )  # fmt: skip
