"""Consistency wait: until this reader has applied a token's position, or the deadline, which is answered with a reason.

Under `session` data is never stale.
"""

import asyncio
from collections.abc import Iterable

from logstore.model.position import Position
from logstore.model.table import Table
from logstore.serve.read.as_of import position_of
from logstore.serve.read.consistency import Consistency
from logstore.serve.state.catalog import Catalog
from logstore.serve.state.partition import ServedPartition, next_offset_of
from logstore.serve.state.waiters import ASKED, TABLES, Waiters
from logstore.serve.wire.problems import Problem

_SETTLED_MS = (
    500  # between the time that a broker gives a record and its being below the end that is told (KIP-32; replication)
)


class ConsistencyWait:
    """The consistency levels of this build."""

    def __init__(self, catalog: Catalog, waiters: Waiters) -> None:
        self._catalog, self._waiters = catalog, waiters

    async def table(self, name: str, level: Consistency, deadline: float) -> Table:
        """The table, once every epoch of the token is known here; raises Problem for one of the table's past.

        `deadline` is loop time.
        """
        while True:
            table = self._catalog.table(name)
            unknown = self._unknown_epoch(table, level)
            if unknown is None:
                return table
            if not await self._waiters.wait(TABLES, 0, deadline):
                raise Problem(
                    "consistency-timeout",
                    f"no table with the epoch {unknown} is known here after {level.deadline_ms:,} ms; the token may be "
                    "of another store",
                    epoch=unknown,
                )

    async def partitions(self, table: Table, partitions: Iterable[int], level: Consistency, deadline: float) -> None:
        """Return when every one of these partitions that is served here has applied what the token names."""
        for partition in partitions:
            offset = await self._needed(table, partition, level, deadline)
            if offset is not None:
                await self._one(table, partition, offset, level, deadline)

    async def _needed(self, table: Table, partition: int, level: Consistency, deadline: float) -> int | None:
        """The next offset that must have been applied; None: any will do."""
        if level.as_of is None:
            return level.floor.pieces.get((table.epoch, partition))
        if level.as_of.time_ms is None:
            return position_of(level.as_of, table.epoch, partition)
        served = self._catalog.served.get((table.epoch, partition))
        if served is None or served.reader is None or served.reader.state().log_time_ms > level.as_of.time_ms:
            return None
        return await self._end_since(table, partition, level.as_of.time_ms + _SETTLED_MS, level, deadline)

    async def _end_since(self, table: Table, partition: int, since_ms: int, level: Consistency, deadline: float) -> int:
        """The end of the log as Kafka told it after a time. Raises Problem when it tells none by the deadline."""
        where = table.epoch, partition
        while self._catalog.asked_ends[where][0] < since_ms:
            if self._catalog.reachable is False:
                raise Problem(
                    "log-unreachable", f"what partition {partition} held then cannot be told: the log does not answer; "
                    "a token can be read, and an earlier time", partition=partition,
                )  # fmt: skip
            if not await self._waiters.wait((ASKED, *where), since_ms, deadline):
                raise Problem(
                    "consistency-timeout", f"where the log of partition {partition} ended at that time is not known "
                    f"here after {level.deadline_ms:,} ms; wait longer (deadline_ms)",
                    table=table.name, partition=partition,
                )  # fmt: skip
        return self._catalog.asked_ends[where][1]

    async def _one(self, table: Table, partition: int, offset: int, level: Consistency, deadline: float) -> None:
        while True:
            served = self._catalog.locate(table, partition)
            applied = next_offset_of(served)
            if applied >= offset:
                return
            if self._catalog.reachable is False:
                short = f"{offset - applied:,} records short of the token"
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

    def _unknown_epoch(self, table: Table, level: Consistency) -> str | None:
        for epoch, partition in level.floor.pieces:
            if epoch in table.former_epochs:
                raise Problem(
                    "epoch-changed",
                    f"the token is of an earlier topic of {table.name!r}, which was created again since; drop the "
                    "token",
                    table=table.name, partition=partition, epoch=table.epoch,
                )  # fmt: skip
            if epoch not in self._catalog.epochs:
                return epoch
        return None


def deadline_of(level: Consistency) -> float:
    """The loop time at which a request that begins now must have ended."""
    return asyncio.get_running_loop().time() + level.deadline_ms / 1000


def answer_token(level: Consistency, epoch: str, positions: dict[int, int]) -> str:
    """Token of the answer: the request's, merged with the position that was read."""
    read = Position({(epoch, partition): offset for partition, offset in positions.items()})
    return (level.token | read).token


def _late(served: ServedPartition, offset: int, level: Consistency) -> Problem:
    applied = next_offset_of(served)
    return Problem(
        "consistency-timeout",
        f"partition {served.partition} of {served.table!r} is at offset {applied:,}, {offset - applied:,} short of the "
        "one asked for, "
        f"after {level.deadline_ms:,} ms; wait longer (deadline_ms), read with less consistency, or look at "
        "`logstore status`",
        table=served.table, partition=served.partition, asked=offset, applied=applied,
    )  # fmt: skip
