"""Page read: the part of a scan's page that partitions of one reader contribute.

It ends at its limit, at 8 MiB, or after MAX_EXAMINED entries, so that a long run of tombstones cannot hold up others.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import repeat
from typing import NamedTuple

from logstore.model.folding.sibling import size_bytes
from logstore.model.wide.cell import PackedCells, RowCells
from logstore.serve.read.as_of import AsOf
from logstore.serve.read.encoding import EncodedRow, Held
from logstore.serve.read.merged_read import Floor, merged
from logstore.serve.read.one_instant import last_end
from logstore.serve.read.page_merge import PagePart
from logstore.serve.read.parameters.scan_query import Query
from logstore.serve.settings import MAX_EXAMINED, MAX_EXAMINED_BYTES, MAX_PAGE_BYTES
from logstore.serve.state.partition import VIEW, Cell, ServedPartition

_ANY = Floor()
_new = tuple.__new__  # of a NamedTuple, without a frame of its own


def read_page(
    served: Sequence[ServedPartition], query: Query, as_of: AsOf | None = None, floor: Floor = _ANY
) -> PagePart:
    """Part of a page that these partitions contribute, each at one committed state, and all seen at one instant.

    Raises Problem when one has stopped.
    """
    with ExitStack() as stack:
        positions, sources, now_ms = {}, [], 0
        for one in served:
            merged_read = stack.enter_context(merged(one, as_of, floor))
            positions[one.partition], now_ms = merged_read.next_offset, max(now_ms, merged_read.now_ms)
            sources.append(zip(merged_read.scan(query.start, query.end, reverse=query.reverse), repeat(one.partition)))
        found = (
            heapq.merge(*sources, key=lambda item: item[0][0], reverse=query.reverse)
            if len(sources) > 1
            else _only(sources)
        )
        filled = _fill(((key, raw, partition) for (key, raw), partition in found), query, now_ms)
    return PagePart(filled.rows, filled.through, positions, now_ms, *filled[2:])


def _only(sources: "list[zip[tuple[tuple[bytes, bytes], int]]]") -> "Iterable[tuple[tuple[bytes, bytes], int]]":
    return sources[0] if sources else ()


class _Filled(NamedTuple):
    """Rows of a page, and how far it looked for them, as in a `PagePart`."""

    rows: list[EncodedRow]
    through: bytes | None
    last: bytes
    looked: float


def _fill(found: Iterator[tuple[bytes, bytes, int]], query: Query, now_ms: int) -> _Filled:
    rows: list[EncodedRow] = []
    size, examined, examined_bytes, last = 0, 0, 0, b""
    for examined, (key, raw, partition) in enumerate(found):
        if examined >= MAX_EXAMINED or examined_bytes > MAX_EXAMINED_BYTES:
            return _Filled(rows, last, last, 1.0)
        examined_bytes += len(raw)
        cell = Cell(raw, VIEW, now_ms)
        payload = cell.payload
        held: Held | None = payload
        ends = cell.ends
        if type(payload) is PackedCells:
            held = _selected(payload, query, now_ms)
            ends = held.ends if isinstance(held, RowCells) else ends
        if held is not None and cell.version is not None:
            size += len(key) + (0 if query.keys_only else size_bytes(held))
            if rows and (len(rows) >= query.limit or size > MAX_PAGE_BYTES):
                return _Filled(rows, last, last, 1.0)
            if query.keys_only:
                ends = last_end(held, ends)
            rows.append(_new(EncodedRow, (key, None if query.keys_only else held, cell.version, partition, ends)))
        last = key
    return _Filled(
        rows, None, last, max((examined + 1) / MAX_EXAMINED, examined_bytes / MAX_EXAMINED_BYTES) if last else 0.0
    )


def _selected(packed: PackedCells, query: Query, now_ms: int) -> Held | None:
    """The cells of a row that the query asks for; None where there is none of them."""
    if query.cells is None or (query.keys_only and not query.cells.columns):
        return packed  # there is a cell, and that is all that is asked
    found: RowCells = query.cells.of(packed, now_ms)
    return found or None
