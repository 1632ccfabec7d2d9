"""Reads of a replica: rows, many rows and pages, at once where nothing has to be waited for, else by the follower."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from functools import partial
from typing import TypeVar

from logstore.client.read.row import Row, row_of
from logstore.model.errors import EpochChanged, WideTable
from logstore.model.table import Table
from logstore.model.wide.cell import RowCells
from logstore.replica.follower import Follower
from logstore.replica.levels import floor_of
from logstore.replica.published import PublishedTable
from logstore.replica.view import ReplicaView
from logstore.serve.read.as_of import AsOf
from logstore.serve.read.consistency import EVENTUAL, Consistency
from logstore.serve.read.consistency_wait import answer_token
from logstore.serve.read.merged_read import FellBehind, Floor, MergedRead, merged, read_cell
from logstore.serve.read.page_merge import PagePart
from logstore.serve.read.page_read import read_page
from logstore.serve.read.parameters.scan_query import Query
from logstore.serve.settings import MAX_PAGE_ROWS
from logstore.serve.state.partition import ServedPartition
from logstore.serve.wire.problems import Problem

T = TypeVar("T")
Locate = Callable[[int], ServedPartition]


def read_row(follower: Follower, name: str, key: bytes, level: Consistency) -> Row | None:
    """The row of a key. Raises Problem, LogStoreError."""

    def read(table: Table, locate: Locate, as_of: AsOf | None, floor: Floor) -> Row | None:
        place = table.partitioning.of(key)
        next_offset, cell = read_cell(locate(place), key, as_of, floor)
        if cell.payload is None or cell.version is None:
            return None
        token = answer_token(level, table.epoch, {place: next_offset}, cell.seen_ms)
        return row_of(key, cell.payload, cell.version, place, token, cell.source)

    return _read(follower, name, level, lambda table: (table.partitioning.of(key),), read)


def read_many(follower: Follower, name: str, keys: Sequence[bytes], level: Consistency) -> list[Row | None]:
    """Rows of as many keys as one answer has, every partition at one committed state. Raises as `read_row`."""

    def read(table: Table, locate: Locate, as_of: AsOf | None, floor: Floor) -> list[Row | None]:
        places = table.partitioning.listed(keys)
        with ExitStack() as stack:
            readings: dict[int, MergedRead] = {}
            for place in dict.fromkeys(places):
                readings[place] = stack.enter_context(merged(locate(place), as_of, floor))
            seen_ms = max((one.now_ms for one in readings.values()), default=0)
            for one in readings.values():  # all are seen at the one instant that the token names
                one.now_ms = seen_ms
            cells = [readings[place].cell(key) for key, place in zip(keys, places, strict=True)]
        token = answer_token(level, table.epoch, {p: one.next_offset for p, one in readings.items()}, seen_ms)
        return [
            None if cell.payload is None else row_of(key, cell.payload, cell.version or 0, place, token)
            for key, place, cell in zip(keys, places, cells, strict=True)
        ]

    def of(table: Table) -> Sequence[int]:
        return sorted(set(table.partitioning.listed(keys)))

    return _read(follower, name, level, of, read)


def read_rows(
    follower: Follower, name: str, query: Query, limit: int | None, level_of: Callable[[], Consistency]
) -> Iterator[Row]:
    """Rows of a range, page by page, each at a level that is asked for with it. Raises as `read_row`."""
    rest, epoch = query, None
    while limit is None or limit > 0:
        level = level_of()
        asked = rest._replace(limit=MAX_PAGE_ROWS if limit is None else min(limit, MAX_PAGE_ROWS))

        def leg(table: Table, asked: Query = asked) -> Sequence[int]:
            return table.partitioning.legs(asked.start, asked.end, reverse=asked.reverse)[0]

        def read(
            table: Table, locate: Locate, as_of: AsOf | None, floor: Floor, asked: Query = asked
        ) -> tuple[Table, PagePart]:
            return table, read_page([locate(p) for p in leg(table, asked)], asked, as_of, floor)

        table, page = _read(follower, name, level, leg, read)
        if epoch not in (None, table.epoch):
            raise EpochChanged(f"table {name} has another log since this scan began; begin it anew")
        epoch = table.epoch
        token = answer_token(level, epoch, page.positions, page.time_ms)
        for key, value, version, partition, _ in page.rows:
            assert not isinstance(value, RowCells), "wide tables are refused"
            yield row_of(key, value or b"", version or 0, partition, token)
        following = rest.behind(page.through) if page.through is not None else _next_leg(table, rest)
        if following is None:
            return
        rest, limit = following, None if limit is None else limit - len(page.rows)


def _next_leg(table: Table, query: Query) -> Query | None:
    """The rest of a scan behind its first leg; None: that was all."""
    legs = table.partitioning.legs(query.start, query.end, reverse=query.reverse)
    if len(legs) == 1:
        return None
    start, end = table.partitioning.bounds(legs[0][0])
    return query._replace(end=start) if query.reverse else query._replace(start=end or b"")


def open_view(follower: Follower, name: str, level: Consistency) -> ReplicaView:
    """A table to be read in place, once what `level` asks for is there. Raises Problem, LogStoreError."""
    if level.name == EVENTUAL and name in follower.catalog.published:
        table = follower.catalog.published[name].table
        floor = Floor(time_ms=level.instant_ms(follower.catalog.broker_clock))
    else:
        table, floor = follower.call(partial(_reached, name, level), level.deadline_ms)

    async def located(_: Follower, __: float, place: int) -> ServedPartition:
        served = follower.catalog.locate(table, place)
        served.open()
        return copy(served)

    def locate(place: int) -> ServedPartition:
        known = follower.catalog.published.get(name)
        found = known.partitions[place] if known is not None and known.table.epoch == table.epoch else None
        return follower.call(partial(located, place=place), level.deadline_ms) if found is None else found.served

    return ReplicaView(_of_values(table), locate, floor, name)


async def _reached(name: str, level: Consistency, follower: Follower, deadline: float) -> tuple[Table, Floor]:
    table = await follower.wait.table(name, level, deadline)
    named = [partition for epoch, partition in level.floor.pieces if epoch == table.epoch]
    wanted = named if level.point is None else range(table.partitions)
    return table, await follower.wait.partitions(table, wanted, level, deadline)


def _read(
    follower: Follower, name: str, level: Consistency, partitions: Callable[[Table], Sequence[int]],
    read: Callable[[Table, Locate, AsOf | None, Floor], T],
) -> T:  # fmt: skip
    """Read these partitions here and now if that can be, else by the follower, who waits for what is missing."""
    known = follower.catalog.published.get(name)
    floor = None if known is None else floor_of(level, known.table.epoch, follower.catalog.broker_clock)
    if known is not None and floor is not None:
        try:
            return read(_of_values(known.table), _locate(known), None, floor)
        except (FellBehind, _NotHere, Problem):
            pass  # the follower waits for what is missing, or tells in full why there is nothing

    async def work(_: Follower, deadline: float) -> T:
        table = _of_values(await follower.wait.table(name, level, deadline))
        return await follower.wait.read(
            table, partitions(table), level, deadline,
            lambda floor: read(table, lambda place: follower.catalog.locate(table, place), level.as_of, floor),
        )  # fmt: skip

    return follower.call(work, level.deadline_ms)


def _of_values(table: Table) -> Table:
    """The table; raises WideTable for one whose rows have cells, which are read from a node's HTTP alone."""
    if table.wide:
        raise WideTable(table.name)
    return table


class _NotHere(Exception):
    """A partition that has to be asked for."""


def _locate(known: PublishedTable) -> Locate:
    def locate(place: int) -> ServedPartition:
        found = known.partitions[place]
        if found is None:
            raise _NotHere
        return found.served

    return locate
