"""WideReads: reads of wide rows, of every blocking client."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from logstore.client.checks import Text, check_table
from logstore.client.read.budget import DEADLINE_MS
from logstore.client.read.level import Level
from logstore.client.read.point import After, PointInTime, when
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.client.wide.row import Column, WideRow
    from logstore.model.wide.selection import CellSelection


class ScanBounds(NamedTuple):
    """Rows of a scan, as the caller says it: a prefix, or from `start` to `end`, and how many at most."""

    prefix: Text | None = None
    start: Text | None = None
    end: Text | None = None
    limit: int | None = None
    reverse: bool = False
    keys_only: bool = False


def selected(columns: "Sequence[Column] | None", versions: int) -> "CellSelection":
    """The cells that a caller names. Raises UsageError."""
    return _selection()(columns, versions)


@cache
def _selection() -> "Callable[[object, int], CellSelection]":
    from logstore.model.wide.selection import selection_of  # noqa: PLC0415 - who reads no wide rows does without

    return selection_of


class WideReads(ABC):
    """Reads of a client, of rows that have cells (`table create --wide`).

    `columns`: which cells, a list of "family:qualifier", or "family:" for all of a family, or pairs of the two; None
    for all. `versions`: of each cell at most, the newest. A row without any such cell is not there. The other arguments
    are those of `get` and `scan`, and so are the errors; NotWide for a table whose rows have one value.
    """

    def get_row(
        self,
        table: str,
        key: Text,
        columns: "Sequence[Column] | None" = None,
        versions: int = 1,
        *,
        after: Position | str | None = None,
        as_of: PointInTime = None,
        consistency: Level | None = None,
        max_lag_ms: int | None = None,
        deadline_ms: int = DEADLINE_MS,
    ) -> "WideRow | None":
        """Read a wide row, or the cells of it that `columns` names; None where there is none of them."""
        cells, bound = selected(columns, versions), when(after, as_of, consistency, max_lag_ms)
        return self._wide_row(check_table(table), key, cells, bound, deadline_ms)

    def get_rows(
        self,
        table: str,
        keys: Sequence[Text],
        columns: "Sequence[Column] | None" = None,
        versions: int = 1,
        *,
        after: Position | str | None = None,
        as_of: PointInTime = None,
        consistency: Level | None = None,
        max_lag_ms: int | None = None,
        deadline_ms: int = DEADLINE_MS,
    ) -> "list[WideRow | None]":
        """Read wide rows in the order of `keys`, as `get_row` each."""
        cells, bound = selected(columns, versions), when(after, as_of, consistency, max_lag_ms)
        return self._wide_rows(check_table(table), keys, cells, bound, deadline_ms)

    def scan_rows(
        self,
        table: str,
        columns: "Sequence[Column] | None" = None,
        versions: int = 1,
        *,
        prefix: Text | None = None,
        start: Text | None = None,
        end: Text | None = None,
        limit: int | None = None,
        reverse: bool = False,
        after: Position | str | None = None,
        as_of: PointInTime = None,
        consistency: Level | None = None,
        max_lag_ms: int | None = None,
        deadline_ms: int = DEADLINE_MS,
    ) -> "Iterator[WideRow]":
        """Wide rows in key order, page by page as they are taken, as `scan`; those without such a cell are left out."""
        cells, bound = selected(columns, versions), when(after, as_of, consistency, max_lag_ms)
        rows = ScanBounds(prefix, start, end, limit, reverse)
        return self._wide_scan(check_table(table), rows, cells, bound, deadline_ms)

    @abstractmethod
    def _wide_row(
        self, table: str, key: Text, cells: "CellSelection", bound: After, deadline_ms: int
    ) -> "WideRow | None": ...

    @abstractmethod
    def _wide_rows(
        self, table: str, keys: Sequence[Text], cells: "CellSelection", bound: After, deadline_ms: int
    ) -> "list[WideRow | None]": ...

    @abstractmethod
    def _wide_scan(
        self, table: str, rows: ScanBounds, cells: "CellSelection", bound: After, deadline_ms: int
    ) -> "Iterator[WideRow]": ...
