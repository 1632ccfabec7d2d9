"""Memory reads: rows of tables in memory, at the points that reads ask for."""

import heapq
from collections.abc import Iterator
from itertools import islice
from typing import Any

from logstore.client.memory.partition import MemoryPartition
from logstore.client.memory.points import instant_of, points_of, token_of
from logstore.client.memory.tables import MemoryTables
from logstore.client.memory.wide import check_cells, memory_row
from logstore.client.read.budget import Budget
from logstore.client.read.point import After
from logstore.client.read.scan_pages import ScanPages
from logstore.client.wide.reads import ScanBounds
from logstore.model.key import after_prefix, to_bytes
from logstore.model.wide.selection import CellSelection


class MemoryReads:
    """Reads of tables in memory; what was written is read at once."""

    def __init__(self, tables: MemoryTables) -> None:
        self._tables = tables

    def get(
        self, table: str, keys: list[bytes], bound: After, deadline_ms: int, source: str,
        cells: CellSelection | None = None,
    ) -> list[Any]:  # fmt: skip
        """Rows of keys, or None, as far as they are of those cells; `source` as readers say it."""
        Budget.of(deadline_ms)
        with self._tables.lock:
            self._tables.check_known(bound)
            parts = self._tables.partitions(table)
            check_cells(parts[0].table, cells)
            homes = list(map(parts.__getitem__, parts[0].table.partitioning.listed(keys)))
            upto = points_of(list({home.number: home for home in homes}.values()), bound, self._tables.clock_ms)
            token = token_of(parts[0].table, upto)
            now_ms = instant_of(bound, self._tables.clock_ms)
            found = [
                home.value_at(key, upto[home.number], now_ms, cells) for key, home in zip(keys, homes, strict=True)
            ]
        return [
            None if one is None else memory_row(key, *one, home.number, token, source)
            for key, home, one in zip(keys, homes, found, strict=True)
        ]

    def scan(
        self, table: str, rows: ScanBounds, bound: After, deadline_ms: int, cells: CellSelection | None
    ) -> Iterator[Any]:
        """Rows in order, as they are when the first one is taken. Raises UsageError at once."""
        ScanPages(**rows._asdict())
        Budget.of(deadline_ms)
        return self._scanned(table, rows, bound, cells)

    def _scanned(self, table: str, asked: ScanBounds, bound: After, cells: CellSelection | None) -> Iterator[Any]:
        with self._tables.lock:
            self._tables.check_known(bound)
            every, bounds = self._tables.partitions(table), _range(asked)
            parts = [every[number] for number in every[0].table.partitioning.touched(*bounds)]
            if not asked.keys_only:
                check_cells(every[0].table, cells)
            elif every[0].table.wide:
                cells = CellSelection()  # any will do
            upto = points_of(parts, bound, self._tables.clock_ms)
            token = token_of(parts[0].table, upto)
            now_ms = instant_of(bound, self._tables.clock_ms)
            merged = heapq.merge(*(_placed(part, bounds, upto[part.number], now_ms, cells) for part in parts))
            rows = [
                memory_row(key, b"" if asked.keys_only else value, version, number, token, "")
                for key, number, value, version in merged
            ]
        yield from islice(reversed(rows) if asked.reverse else rows, asked.limit)


def _range(rows: ScanBounds) -> tuple[bytes, bytes | None]:
    """First key of a scan, and the first behind it."""
    first = to_bytes(rows.prefix or rows.start or b"")
    return first, after_prefix(first) if rows.prefix else None if rows.end is None else to_bytes(rows.end)


def _placed(
    part: MemoryPartition, bounds: tuple[bytes, bytes | None], upto: int, now_ms: int, cells: CellSelection | None
) -> Iterator[tuple[bytes, int, Any, int]]:
    for key, value, version in part.rows(*bounds, upto, now_ms, cells):
        yield key, part.number, value, version
