"""RowState: the state of a row, as the records below an offset left it.

A tombstone is a way to store absence, and so never part of a row: a cell that was deleted is as one never written.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from xxhash import xxh3_128_digest

from logstore.model.folding.entry import Entry
from logstore.model.folding.terms import Column, Condition
from logstore.model.hard_rows.rules import PLAIN_FAMILY

PLAIN_COLUMN: Column = (PLAIN_FAMILY, b"")  # the cell that a plain put writes


class CellState(NamedTuple):
    """State of a cell.

    `members`: its value, or its siblings in rising order of version. `older`: earlier values of its present life,
    newest first.
    """

    version: int  # offset of the record that changed it last
    members: tuple[Entry, ...]
    older: tuple[Entry, ...] = ()

    def at(self, log_time_ms: int) -> "CellState | None":
        """The cell without what has ended; None when its newest value has, which ends its life."""
        members = tuple(entry for entry in self.members if not entry.expired(log_time_ms))
        if not members:
            return None
        return self._replace(members=members, older=tuple(old for old in self.older if not old.expired(log_time_ms)))


class RowState(NamedTuple):
    """State of a row: its cells, and of each locality group the offset of the last record that named one of them."""

    cells: Mapping[Column, CellState] = MappingProxyType({})
    versions: Mapping[str, int] = MappingProxyType({})  # by locality group; none while the row has no cell

    def at(self, log_time_ms: int) -> "RowState":
        """The row as seen at a log time: what has ended by then is not in it, whether or not its bytes still are."""
        seen = {column: found for column, cell in self.cells.items() if (found := cell.at(log_time_ms)) is not None}
        return RowState(seen, self.versions) if seen else ABSENT

    @property
    def version(self) -> int | None:
        """The row version: the highest of its groups' ones; None while the row has no cell."""
        return max(self.versions.values()) if self.cells else None

    def version_of(self, column: Column | None) -> int | None:
        """The version of a cell, or of the row; None when it is absent."""
        if column is None:
            return self.version
        cell = self.cells.get(column)
        return cell and cell.version

    def meets(self, condition: Condition) -> bool:
        """True when the condition holds of this row, which is what is in the state."""
        if condition.kind == "absent":
            return not self.cells
        if condition.kind == "present":
            return bool(self.cells)
        if condition.kind == "version":
            return self.version_of(condition.column) == condition.version
        cell = self.cells.get(PLAIN_COLUMN)
        return cell is not None and [xxh3_128_digest(one.payload) for one in cell.members] == [condition.digest]


ABSENT = RowState()
