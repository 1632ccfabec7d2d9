"""Edited rows: what a record of an edit needs of its table, whoever wrote it."""

from typing import TYPE_CHECKING, NamedTuple

from logstore.model.errors import NotExpiring, NotWide, UsageError

if TYPE_CHECKING:
    from logstore.model.table import Table


class EditedRows(NamedTuple):
    """Row, or rows of one partition, that an edit changes: what a record of it needs of its table."""

    key: bytes  # of the record: that of the first row
    value: bytes  # of the record
    families: frozenset[str]
    several: bool  # rows
    has_ttl: bool

    def check_takes(self, table: "Table") -> None:
        """Raise NotWide, UsageError unless the table takes such an edit."""
        if not table.wide:
            raise NotWide(table.name)
        if self.has_ttl and not table.expiring:
            raise NotExpiring(table.name)
        unknown = sorted(self.families - table.families.keys() - {""})
        if unknown:
            raise UsageError(
                f"table {table.name!r} has no column family {unknown[0]!r}; it has "
                f"{', '.join(sorted(table.families)) or 'none'}"
            )
        if self.several and not table.multi_row:
            raise UsageError(
                f"an edit of table {table.name!r} changes one row; `logstore table create NAME --wide --multi-row` "
                "makes a table that takes edits of several rows of a partition"
            )
