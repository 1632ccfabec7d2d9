"""Archived changes: those that the log has let go of, folded from the archive, for the change feed."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from logstore.client.changes.changes import ChangeEvent, PollPoint, event_of
from logstore.client.history.opening import ArchiveChoice
from logstore.client.history.sources import Sources
from logstore.client.history.span import KeyPlace
from logstore.model.changes.resume_point import ResumePoint
from logstore.model.changes.row_change import RowChange, changes_of, of_prefix, without_skipped
from logstore.model.errors import NotRetained, SetupError
from logstore.model.folding.fold import FoldRules, Records
from logstore.model.position import Position
from logstore.model.table import Table

if TYPE_CHECKING:
    from logstore.snapshot.archive.index import ArchiveIndex


class ArchivedPage(NamedTuple):
    """Changes of a partition, and the id behind them."""

    events: list[ChangeEvent]
    following: str


class ArchivedChanges:
    """The archive of one table. It is read only behind an id that the log does not hold any more."""

    def __init__(self, bootstrap: str, define: Callable[[], Table], storage: str | None) -> None:
        self._bootstrap, self._define, self._choice = bootstrap, define, ArchiveChoice(True, storage)

    def behind(self, asked: PollPoint, refused: NotRetained) -> Iterator[ArchivedPage]:
        """Pages behind a point, of every partition whose changes the log lacks there, up to where the archive reaches.

        Raises `refused` where the archive has none of them, or its reason; LogUnreachable, StorageUnreachable,
        Corrupted, SetupError.
        """
        table = self._define()
        point = _point(asked.id, table, refused)
        index = self._choice.open(table, self._bootstrap)
        if index is None:
            raise SetupError("nothing says where the archive is; name its storage (storage=, --storage)") from refused
        at = point.offsets(table.epoch, range(table.partitions))
        lacking = [(p, reach) for p in at if (reach := self._reach(table, p, at[p], index, refused)) is not None]
        if not lacking:
            raise refused
        return self._pages(table, index, at, lacking, asked)

    def _reach(
        self, table: Table, partition: int, start: int, index: "ArchiveIndex", refused: NotRetained
    ) -> int | None:
        """The offset up to which the archive tells a partition; None: the log has it from `start` on."""
        sources = Sources(KeyPlace(self._bootstrap, table, partition, b""), index)
        if start >= sources.log.start:
            return None
        if sources.missing is not None and sources.missing[1] >= start:
            first, last = sources.missing
            refused.add_note(f"offsets {first:,} to {last:,} of partition {partition} are not archived either")
            raise refused
        return sources.reach

    def _pages(
        self, table: Table, index: "ArchiveIndex", at: dict[int, int], lacking: list[tuple[int, int]], asked: PollPoint
    ) -> Iterator[ArchivedPage]:
        for partition, reach in lacking:
            start = at[partition]
            if table.conditional:
                from logstore.client.changes.archived_decisions import decided_runs  # noqa: PLC0415 - loads LMDB

                runs = decided_runs(table, partition, _records(table, index, partition, 0, reach), start)
            else:
                runs = _plain_runs(table, partition, _records(table, index, partition, start, reach))
            for changes, at[partition] in runs:
                wanted = of_prefix(changes, asked.prefix)
                yield ArchivedPage([event_of(one, partition, before=asked.before) for one in wanted], _id(table, at))
            at[partition] = reach
        yield ArchivedPage([], _id(table, at))


def _records(table: Table, index: "ArchiveIndex", partition: int, start: int, reach: int) -> Iterator[Records]:
    from logstore.snapshot.archive.segment_records import records_from  # noqa: PLC0415 - loads Arrow

    for segment in index.covering(partition, start, reach):
        yield from records_from(segment, index.storage, table.skips.get(partition, []), start)


def _plain_runs(table: Table, partition: int, runs: Iterable[Records]) -> Iterator[tuple[list[RowChange], int]]:
    rules, skips = FoldRules.of(table, partition), table.skips.get(partition, [])
    for records in runs:
        yield without_skipped(changes_of(records, rules), skips), records.offsets[-1] + 1


def _point(since: str, table: Table, refused: NotRetained) -> ResumePoint:
    """The point of an id. Raises `refused` with the reason why the archive does not help."""
    if ":" in since:
        refused.add_note("the archive is read from an id or a token on, not from a time")
        raise refused
    if table.conditional and table.base_snapshot is not None:
        refused.add_note(
            f"{table.name!r} was restored: what its rows were then is in no archive of its own, and decides what later "
            "records did; begin with since=beginning"
        )
        raise refused
    point = ResumePoint.parse(since)
    if not any(epoch == table.epoch for epoch, _ in point.position.pieces):
        raise refused
    return point


def _id(table: Table, at: dict[int, int]) -> str:
    return Position({(table.epoch, partition): offset for partition, offset in at.items()}).token
