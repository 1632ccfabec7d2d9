"""Past changes: what is older than the rings, read from the log on threads, few at a time.

The stretches read last are kept: who asks for the same one, as all do that were cut off together, finds it, and shares
the text of its chunks.
"""

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from logstore.model.changes.row_change import changes_of, without_skipped
from logstore.model.errors import LogStoreError, LogTruncated, LogUnreachable
from logstore.model.folding.fold import FoldRules
from logstore.model.hard_rows.rules import rules_of
from logstore.model.table import Table
from logstore.serve.changes.chunk import Chunk, cut
from logstore.serve.wire.problems import Problem

if TYPE_CHECKING:
    from logstore.log.read.past_records import PastRecords

_MOST_READS = 2  # at once
_MOST_STRETCHES = 16  # of those read last
_STRETCH_CHANGES, _STRETCH_BYTES = 5_000, 1 << 20


class PastChanges:
    """Chunks from the log."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap, self._reads = bootstrap, asyncio.Semaphore(_MOST_READS)
        self._newest: OrderedDict[tuple[str, int, int], list[Chunk]] = OrderedDict()

    async def read(self, table: Table, partition: int, start: int, end: int) -> list[Chunk]:
        """Chunks from `start` on, at least one, which end at `end` at the latest. Raises Problem."""
        found = self._find(table, partition, start)
        if found is None:
            async with self._reads:
                found = self._find(table, partition, start)  # another may have read it meanwhile
                if found is None:
                    found = await self._read(table, partition, range(start, end))
        return [chunk.from_offset(start).below(end) for chunk in found if start < chunk.following and chunk.start < end]

    def _find(self, table: Table, partition: int, start: int) -> list[Chunk] | None:
        for (epoch, p, first), chunks in self._newest.items():
            if (epoch, p) == (table.epoch, partition) and first <= start < chunks[-1].following:
                return chunks
        return None

    async def _read(self, table: Table, partition: int, reach: range) -> list[Chunk]:
        from logstore.log.read.past_records import read_past  # noqa: PLC0415 - loads Kafka's client

        try:
            past = await asyncio.to_thread(
                read_past, self._bootstrap, table, partition, reach, _STRETCH_CHANGES, _STRETCH_BYTES
            )
        except LogTruncated as error:
            raise not_retained(table, partition, reach.start, str(error)) from error
        except LogStoreError as error:
            raise unreadable(table, partition, error) from error
        chunks = list(cut(_stretch(table, partition, reach.start, past)))
        self._newest[table.epoch, partition, reach.start] = chunks
        while len(self._newest) > _MOST_STRETCHES:
            self._newest.popitem(last=False)
        return chunks


def not_retained(table: Table, partition: int, offset: int, why: str) -> Problem:
    """The answer to who wants what the log does not hold any more."""
    return Problem(
        "not-retained", f"changes from offset {offset:,} of partition {partition} of {table.name!r} on cannot be told: "
        f"{why}; begin again with since=beginning, a snapshot of the rows and then what follows, and drop the rows "
        f"it does not bring; `logstore changes {table.name} --from ID --from-archive` reads those "
        f"from the archive; `logstore batch restore {table.name}` brings back what the table held earlier",
        table=table.name, partition=partition, offset=offset,
    )  # fmt: skip


def unreadable(table: Table, partition: int, error: LogStoreError) -> Problem:
    """The answer while the log cannot be read."""
    word = "log-unreachable" if isinstance(error, LogUnreachable) else "partition-stopped"
    return Problem(word, str(error), table=table.name, partition=partition)


def _stretch(table: Table, partition: int, start: int, past: "PastRecords") -> Chunk:
    rules = FoldRules.of(table, partition)
    hard = rules_of(table, partition) if table.conditional else None
    changes = without_skipped(changes_of(past.records, rules, hard), table.skips.get(partition, ()))
    return Chunk(partition, start, past.following, changes)
