"""Snapshot part of the change feed: the present rows, by the scan's own pages, before the tail.

The positions that the first page read each partition at are where the tail begins. Later pages wait for them, on
whatever node they are read: a row that changed between two pages is in the tail then, if a page has missed it.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

from logstore.model.changes.resume_point import START, ResumePoint
from logstore.model.changes.row_change import RowChange
from logstore.model.key import after_prefix
from logstore.model.position import Position
from logstore.model.table import Table
from logstore.serve.changes.chunk import Chunk
from logstore.serve.read.consistency import SESSION, Consistency
from logstore.serve.read.consistency_wait import ConsistencyWait
from logstore.serve.read.encoding import EncodedRow
from logstore.serve.read.merged_read import Floor
from logstore.serve.read.page_merge import PagePart, merge
from logstore.serve.read.page_read import read_page
from logstore.serve.read.parameters.cell_query import cells_of
from logstore.serve.read.parameters.scan_query import Query
from logstore.serve.read.peers.fan_out import FanOut
from logstore.serve.settings import MAX_PAGE_ROWS
from logstore.serve.state.catalog import Catalog
from logstore.serve.wire.request import Request


class SnapshotPart:
    """Pages of the snapshot part."""

    def __init__(self, catalog: Catalog, consistency_wait: ConsistencyWait, fan_out: FanOut) -> None:
        self._catalog, self._consistency_wait, self._fan_out = catalog, consistency_wait, fan_out

    async def page(
        self, request: Request, table: Table, partitions: Sequence[int], point: ResumePoint, prefix: bytes,
        deadline: float,
    ) -> tuple[list[Chunk], ResumePoint]:  # fmt: skip
        """Rows behind `point`, as changes, and the point behind them, which is in the tail when they were the last.

        Raises Problem.
        """
        query = Query(
            prefix, after_prefix(prefix), MAX_PAGE_ROWS, reverse=False, keys_only=False, partitions=None,
            cells=cells_of(table, None), ends=True,
        )  # fmt: skip
        level = Consistency()
        if point != START:
            query = query.behind(point.scanned or b"")
            level = Consistency(SESSION, point.position)
        here, elsewhere = self._fan_out.split(table, partitions, request)
        parts = await self._fan_out.scan(table, elsewhere, query, level, deadline) if elsewhere else []

        def read(floor: Floor) -> PagePart:
            return read_page([self._catalog.locate(table, p) for p in here], query, None, floor)

        parts.append(await self._consistency_wait.read(table, here, level, deadline, read))
        part = merge(parts, limit=query.limit, reverse=False)
        stood = Position({(table.epoch, partition): offset for partition, offset in part.positions.items()})
        return _chunks(part), ResumePoint(point.position or stood, part.through)


def _chunks(part: PagePart) -> list[Chunk]:
    """The rows in key order, those of one partition that follow each other together.

    `start` and `following` of the chunks say nothing here.
    """
    return [Chunk(partition, 0, 0, list(map(_change, rows))) for partition, rows in groupby(part.rows, _partition)]


def _change(row: EncodedRow) -> RowChange:
    return RowChange(row.version or 0, row.key, row.value, None, ends=row.ends)


_partition = attrgetter("partition")
