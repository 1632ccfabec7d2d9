"""Page merge: parts of a table's partitions become one page of a scan.

Parts of one leg (`logstore.model.partitioning`) are merged; those of the next leg come behind them.
"""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from logstore.model.folding.sibling import size_bytes
from logstore.serve.read.encoding import EncodedRow
from logstore.serve.read.parameters.scan_query import Query
from logstore.serve.settings import MAX_PAGE_BYTES


class PagePart(NamedTuple):
    """Rows in order of the scan; `through`: the last key that was examined, None when there is nothing behind."""

    rows: list[EncodedRow]
    through: bytes | None
    positions: dict[int, int]  # partition -> next offset it was read at
    time_ms: int = 0  # the latest instant at which rows that may expire were seen
    last: bytes = b""  # the last key that was examined; empty: none was
    looked: float = 0.0  # share of what a page may examine


def merge(parts: Sequence[PagePart], *, limit: int, reverse: bool) -> PagePart:
    """Merge parts into a page: as far as every part has looked, at most `limit` rows and MAX_PAGE_BYTES, at least one.

    Requires: no key is in two parts.
    """
    if len(parts) == 1:
        return parts[0]
    positions = {partition: offset for part in parts for partition, offset in part.positions.items()}
    ends = [part.through for part in parts if part.through is not None]
    through = None if not ends else max(ends) if reverse else min(ends)
    rows = [
        row
        for row in heapq.merge(*(part.rows for part in parts), key=_key, reverse=reverse)
        if _covered(row.key, through, reverse)
    ]
    fitting = _fitting(rows, limit)
    following = rows[fitting - 1].key if fitting < len(rows) else through
    return PagePart(rows[:fitting], following, positions, max(part.time_ms for part in parts))


class PageOfLegs:
    """A page that grows leg by leg. Requires: each leg lies behind those before it, and the page was not full."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._parts: list[PagePart] = []
        self._rows, self._bytes, self._looked = 0, 0, 0.0

    @property
    def rest(self) -> Query:
        """Query of the next leg."""
        return self._query._replace(limit=self._query.limit - self._rows)

    @property
    def is_full(self) -> bool:
        """True when the next leg belongs to another page."""
        return (
            any(part.through is not None for part in self._parts)
            or self._rows >= self._query.limit
            or self._bytes >= MAX_PAGE_BYTES
            or self._looked >= 1
        )

    def take(self, parts: Sequence[PagePart]) -> None:
        """Add the parts of the next leg."""
        leg = merge(parts, limit=self.rest.limit, reverse=self._query.reverse)
        self._parts.append(leg)
        self._rows += len(leg.rows)
        self._bytes += sum(len(row.key) + size_bytes(row.value) for row in leg.rows)
        self._looked += leg.looked

    def page(self, *, is_last: bool) -> PagePart:
        """The page. `is_last`: no leg follows."""
        page = merge(self._parts, limit=self._query.limit, reverse=self._query.reverse)
        if is_last or page.through is not None:
            return page
        return page._replace(through=next(part.last for part in reversed(self._parts) if part.last))


def _key(row: EncodedRow) -> bytes:
    return row.key


def _covered(key: bytes, through: bytes | None, reverse: bool) -> bool:
    return through is None or (key >= through if reverse else key <= through)


def _fitting(rows: list[EncodedRow], limit: int) -> int:
    size = 0
    for count, row in enumerate(rows[:limit]):
        size += len(row.key) + size_bytes(row.value)
        if count and size > MAX_PAGE_BYTES:
            return count
    return min(len(rows), limit)
