"""AsyncWideReads: reads of wide rows, of every client for asyncio."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from logstore.client.checks import Text, check_table
from logstore.client.read.budget import DEADLINE_MS
from logstore.client.read.level import Level
from logstore.client.read.point import After, PointInTime, when
from logstore.client.wide.reads import ScanBounds, selected
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.client.wide.row import Column, WideRow
    from logstore.model.wide.selection import CellSelection


class AsyncWideReads(ABC):
    """Reads of a client, of rows that have cells (`table create --wide`).

    `columns`: which cells, a list of "family:qualifier", or "family:" for all of a family, or pairs of the two; None
    for all. `versions`: of each cell at most, the newest. A row without any such cell is not there. The other arguments
    are those of `get` and `scan`, and so are the errors; NotWide for a table whose rows have one value.
    """

    async def get_row(
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
        return await self._wide_row(check_table(table), key, cells, bound, deadline_ms)

    async def get_rows(
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
        return await self._wide_rows(check_table(table), keys, cells, bound, deadline_ms)

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
    ) -> "AsyncIterator[WideRow]":
        """Wide rows in key order, page by page as they are taken, as `scan`; those without such a cell are left out."""
        cells, bound = selected(columns, versions), when(after, as_of, consistency, max_lag_ms)
        rows = ScanBounds(prefix, start, end, limit, reverse)
        return self._wide_scan(check_table(table), rows, cells, bound, deadline_ms)

    @abstractmethod
    async def _wide_row(
        self, table: str, key: Text, cells: "CellSelection", bound: After, deadline_ms: int
    ) -> "WideRow | None": ...

    @abstractmethod
    async def _wide_rows(
        self, table: str, keys: Sequence[Text], cells: "CellSelection", bound: After, deadline_ms: int
    ) -> "list[WideRow | None]": ...

    @abstractmethod
    def _wide_scan(
        self, table: str, rows: ScanBounds, cells: "CellSelection", bound: After, deadline_ms: int
    ) -> "AsyncIterator[WideRow]": ...
