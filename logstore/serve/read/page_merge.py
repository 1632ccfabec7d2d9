"""Page merge: parts of a table's partitions become one page of a scan."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from logstore.model.folding.sibling import size_bytes
from logstore.serve.read.encoding import EncodedRow
from logstore.serve.settings import MAX_PAGE_BYTES


class PagePart(NamedTuple):
    """Rows in order of the scan; `through`: the last key that was examined, None when there is nothing behind."""

    rows: list[EncodedRow]
    through: bytes | None
    positions: dict[int, int]  # partition -> next offset it was read at
    time_ms: int = 0  # the latest instant at which rows that may expire were seen


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
