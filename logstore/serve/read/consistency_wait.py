"""Consistency wait: until this reader has applied what a request must see, or the deadline, which is answered why.

What that is, a token says (`session`), the end of the log when a worker asked Kafka (`latest`: after the request had
come; `bounded`: not longer before than it allows), a barrier that a worker appended after the request had come
(`linearizable`), or a point of the past. An answer is never older; there is none instead.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from logstore.model.position import Position
from logstore.model.table import Table
from logstore.serve.read.as_of import position_of
from logstore.serve.read.consistency import LINEARIZABLE, Consistency
from logstore.serve.read.merged_read import FellBehind, Floor
from logstore.serve.state.catalog import Catalog
from logstore.serve.state.log_points import Place
from logstore.serve.state.partition import ServedPartition, next_offset_of, state_of
from logstore.serve.state.waiters import CLOCK, TABLES, Waiters
from logstore.serve.wire.problems import Problem

T = TypeVar("T")


class ConsistencyWait:
    """The consistency levels."""

    def __init__(self, catalog: Catalog, waiters: Waiters) -> None:
        self._catalog, self._waiters = catalog, waiters

    async def table(self, name: str, level: Consistency, deadline: float) -> Table:
        """The table, once every epoch of the token is known here; raises Problem for one of the table's past.

        A table that has just been made may be the one whose epoch is not known yet: it is missing only after that.
        `deadline` is loop time.
        """
        level.check(self._catalog.broker_clock)
        while True:
            unknown = self._unknown_epoch(name, level)
            if unknown is None:
                return _judged(self._catalog.table(name), level)
            if not await self._waiters.wait(TABLES, 0, deadline):
                raise Problem(
                    "consistency-timeout",
                    f"no table with the epoch {unknown} is known here after {level.deadline_ms:,} ms; the token may be "
                    "of another store",
                    epoch=unknown,
                )

    async def read(
        self, table: Table, partitions: Iterable[int], level: Consistency, deadline: float, read: Callable[[Floor], T]
    ) -> T:
        """Wait for what the token names, then `read`, which compares it inside its own reading.

        A view that began again in between is waited for again, until the deadline. Raises Problem.
        """
        wanted = list(partitions)
        while True:
            floor = await self.partitions(table, wanted, level, deadline)
            with contextlib.suppress(FellBehind):
                return read(floor)

    async def partitions(self, table: Table, partitions: Iterable[int], level: Consistency, deadline: float) -> Floor:
        """Wait until every one of these partitions has applied what the token names; returns the floor."""
        floor, wanted = dict[int, int](), list(partitions)
        with self.demanding(table, wanted, level):
            for partition in wanted:
                offset = await self._needed(table, partition, level, deadline)
                if offset is not None:
                    floor[partition] = offset
                    await self._one(table, partition, offset, level, deadline)
        return Floor(floor, level.instant_ms(self._catalog.broker_clock))

    @contextlib.contextmanager
    def demanding(self, table: Table, partitions: Iterable[int], level: Consistency) -> Iterator[None]:
        """Points of the logs that `level` needs are asked for inside the block, of all partitions at once."""
        points, kind = self._catalog.points, level.point
        if kind is None or self._catalog.reachable is False:
            yield
            return
        with contextlib.ExitStack() as stack:
            for partition in partitions:
                place = kind, table.epoch, partition
                if points.first(place, level.since_ns) is None:
                    stack.enter_context(points.wanted(place, level.since_ns))
            yield

    async def _needed(self, table: Table, partition: int, level: Consistency, deadline: float) -> int | None:
        """The next offset that must have been applied; None: any will do."""
        if level.as_of is None:
            token = level.floor.pieces.get((table.epoch, partition))
            if level.point is None:
                return token
            place = level.point, table.epoch, partition
            return max(await self._point(table, place, level, deadline), token or 0)
        if level.as_of.time_ms is None:
            return position_of(level.as_of, table.epoch, partition)
        return await self._behind_time(table, partition, level.as_of.time_ms, level, deadline)

    async def _point(self, table: Table, place: Place, level: Consistency, deadline: float) -> int:
        """The next offset of a point of the log that was asked for when `level` says, or later.

        Raises Problem: at once while the log does not answer.
        """
        points, partition = self._catalog.points, place[2]
        while (offset := points.first(place, level.since_ns)) is None:
            next_offset_of(self._catalog.locate(table, partition))
            why = "it does not answer" if self._catalog.reachable is False else points.failure(place, level.since_ns)
            if why is not None:
                raise Problem(
                    "log-unreachable", f"what the log of partition {partition} holds now cannot be told: {why}; the "
                    "level eventual still answers", partition=partition,
                )  # fmt: skip
            if not await self._waiters.wait(place, level.since_ns, deadline):
                raise self._untold(table, place, level)
        return offset

    def _untold(self, table: Table, place: Place, level: Consistency) -> Problem:
        partition = place[2]
        why = self._catalog.why_unheard(place[1:]) or f"its worker has not told the {place[0]} of its log"
        return Problem(
            "consistency-timeout", f"whether partition {partition} holds what the level {level.name} asks for is not "
            f"known after {level.deadline_ms:,} ms: {why}; wait longer (deadline_ms), read with less consistency, or "
            "look at `logstore status`", table=table.name, partition=partition,
        )  # fmt: skip

    async def _behind_time(
        self, table: Table, partition: int, time_ms: int, level: Consistency, deadline: float
    ) -> int:  # fmt: skip
        """A next offset at which all is applied that the log held at a time.

        Log time never falls, so a record that the broker gave a later time closes all before it; no other clock is
        asked. A worker appends one (`ticks`) where the table takes control records. Raises Problem by the deadline.
        """
        where = table.epoch, partition
        with contextlib.ExitStack() as stack:
            while (state := state_of(self._catalog.locate(table, partition))).log_time_ms <= time_ms:
                if self._catalog.reachable is False:
                    raise Problem(
                        "log-unreachable", f"what partition {partition} held then cannot be told: the log does not "
                        "answer; a token can be read, and an earlier time", partition=partition,
                    )  # fmt: skip
                if table.allow_control_records:
                    stack.enter_context(self._catalog.ticks.wanted(where, time_ms))
                if not await self._waiters.wait((CLOCK, *where), time_ms, deadline):
                    raise _not_closed(table, partition, level)
        return state.next_offset

    async def _one(self, table: Table, partition: int, offset: int, level: Consistency, deadline: float) -> None:
        while True:
            served = self._catalog.locate(table, partition)
            applied = next_offset_of(served, past=level.as_of is not None)
            if applied >= offset:
                return
            if self._catalog.reachable is False:
                short = f"{offset - applied:,} records short of what was asked for"
                detail = f"partition {partition} is {short} and the log does not answer"
                raise Problem(
                    "log-unreachable",
                    f"{detail}; the level eventual still does",
                    partition=partition,
                    asked=offset,
                    applied=applied,
                )
            if not await self._waiters.wait((table.epoch, partition), offset, deadline):
                raise _late(self._catalog.locate(table, partition), offset, level)

    def _unknown_epoch(self, name: str, level: Consistency) -> str | None:
        """An epoch of the token that is to be waited for; None: there is none, or nothing is to be waited for."""
        if self._catalog.tables is None or name in self._catalog.unreadable:  # which `Catalog.table` tells
            return None
        table = self._catalog.tables.get(name)
        for epoch, partition in level.floor.pieces:
            if table is not None and epoch in table.former_epochs:
                raise Problem(
                    "epoch-changed",
                    f"the token is of an earlier topic of {table.name!r}, which was created again since; drop the "
                    "token",
                    table=table.name, partition=partition, epoch=table.epoch,
                )  # fmt: skip
            if epoch not in self._catalog.epochs:
                return epoch
        return None


def _judged(table: Table, level: Consistency) -> Table:
    """The table, where it can be read so; raises Problem for one whose log takes no barriers."""
    if level.name == LINEARIZABLE and not table.allow_control_records:
        raise Problem(
            "bad-level", f"table {table.name!r} takes no control records (its topic was adopted without "
            "--allow-control-records), and linearizable needs a barrier in its log; read with the level latest",
            table=table.name,
        )  # fmt: skip
    return table


def deadline_of(level: Consistency) -> float:
    """The loop time at which a request that begins now must have ended."""
    return asyncio.get_running_loop().time() + level.deadline_ms / 1000


def answer_token(level: Consistency, epoch: str, positions: dict[int, int], time_ms: int = 0) -> str:
    """Token of the answer: the request's, merged with the position that was read, and when, where rows may expire."""
    read = Position({(epoch, partition): offset for partition, offset in positions.items()}, time_ms=time_ms)
    return (level.token | read).token


def _late(served: ServedPartition, offset: int, level: Consistency) -> Problem:
    applied = next_offset_of(served, past=level.as_of is not None)
    return Problem(
        "consistency-timeout",
        f"partition {served.partition} of {served.table!r} is at offset {applied:,}, {offset - applied:,} short of the "
        "one asked for, "
        f"after {level.deadline_ms:,} ms; wait longer (deadline_ms), read with less consistency, or look at "
        "`logstore status`",
        table=served.table, partition=served.partition, asked=offset, applied=applied,
    )  # fmt: skip


def _not_closed(table: Table, partition: int, level: Consistency) -> Problem:
    why = (
        "no record with a later time of the broker has come"
        if table.allow_control_records
        else "no record with a later time has come, and the table takes no control records that would show the time"
    )
    return Problem(
        "consistency-timeout",
        f"whether partition {partition} holds all that came before that time is not known after "
        f"{level.deadline_ms:,} ms: {why}; wait longer (deadline_ms), or read as of a token",
        table=table.name, partition=partition,
    )  # fmt: skip
