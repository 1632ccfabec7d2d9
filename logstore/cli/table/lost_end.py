"""Lost end: what a partition's log lost when it was cut back and written to again, and what still holds it.

The leader epochs of the log tell where it went on: whoever has applied a record of an earlier epoch behind that place
has applied what is gone now.
"""

from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import click

from logstore.cli import show
from logstore.log.read.leader_epochs import epoch_starts
from logstore.log.tables.registry import Registry
from logstore.log.tables.repairs import Copies
from logstore.model.errors import LogStoreError, UsageError
from logstore.model.folding.entry import CELLS, TOMBSTONE, VALUE, Entry
from logstore.model.hard_rows.changes.cell_differences import column_name
from logstore.model.hard_rows.packed import unpack_row
from logstore.model.record_identity import AppliedPosition
from logstore.model.safe_path import below
from logstore.model.table import Table
from logstore.snapshot.repository import Repository
from logstore.snapshot.storage import Storage
from logstore.snapshot.verdicts import AUDITOR, FROM_LOG, REFUSE, Verdict
from logstore.view import paths
from logstore.view.feed.view_records import STOPPED
from logstore.view.positions import AppliedPositions, position_name
from logstore.view.reader import ViewReader

_MOST_LISTED = 20  # rows


class LostRow(NamedTuple):
    """A row, or one of its values, that the view on this machine still has from a record that was lost."""

    key: bytes
    version: int
    value: bytes | None  # None: it was deleted
    cell: str | None = None  # of a row of a wide table

    def document(self) -> dict[str, Any]:
        """Document to be printed as JSON."""
        of_cell = {} if self.cell is None else {"cell": self.cell}
        value = None if self.value is None else show.field(self.value)
        return {"key": show.field(self.key), **of_cell, "version": self.version, "value": value}


class HeldElsewhere(NamedTuple):
    """A node's view of the partition: where it stands, and how it says it is."""

    url: str
    applied: int
    state: str


class LostEnd(NamedTuple):
    """Loss of one partition, as far as it is known."""

    table: Table
    partition: int
    starts: list[tuple[int, int]]  # (offset, leader epoch) where the log went on
    start_of_new: int  # the first offset that may have been lost
    applied: int  # the first offset behind those that may have been lost
    copies: Copies
    rows: list[LostRow]
    views: list[HeldElsewhere]  # of any node, that reach behind what was lost

    def document(self) -> dict[str, Any]:
        """Document to be printed as JSON."""
        return {
            "table": self.table.name, "partition": self.partition, "lost": [self.start_of_new, self.applied],
            "epochs": [list(start) for start in self.starts], "archived": self.copies.archived,
            "snapshot": self.copies.cut, "views": [view._asdict() for view in self.views],
            "rows": [row.document() for row in self.rows],
        }  # fmt: skip

    def tell(self) -> None:
        """Loss of the partition, in words for a person."""
        where = f"{self.table.name}/{self.partition}"
        click.echo(
            f"{where}: offsets {self.start_of_new:,} to {self.applied - 1:,} were acknowledged, and the log has other "
            "records there now, or none"
        )
        reach = min(self.copies.reach, self.applied)
        if reach > self.start_of_new:
            at = f"{self.table.epoch}-{self.partition}-{reach}"
            click.echo(
                f"  archive or snapshots hold those below {reach:,}: `logstore batch restore {self.table.name} --at "
                f"{at} --as {self.table.name}_lost` makes a table of them; do that first"
            )
        click.echo(f"  the view on this machine holds {len(self.rows):,} rows of them")
        for row in self.rows[:_MOST_LISTED]:
            what = "deleted" if row.value is None else f"{len(row.value):,} bytes"
            cell = "" if row.cell is None else f"  {row.cell}"
            click.echo(f"    {row.version:,}  {show.field(row.key)}{cell}  {what}")
        for view in self.views:
            click.echo(
                f"  the view of {view.url} ({view.state}) holds what was written below {view.applied:,}: this command, "
                "on that machine with its --data-dir, shows the rows"
            )
        if len(self.rows) > _MOST_LISTED:
            click.echo(f"    ... and {len(self.rows) - _MOST_LISTED:,} more (--json lists all, with values)")


def examine(
    data_dir: Path, registry: Registry, table: Table, partition: int, copies: Copies, views: list[HeldElsewhere]
) -> LostEnd:
    """Find out; `views` says where nodes stand.

    Raises UsageError where nothing that is known contradicts the log, LogUnreachable.
    """
    found = epoch_starts(registry.bootstrap, registry.admin, table.topic, partition)
    stood = _stood(data_dir, table, partition)
    applied = max(copies.reach, copies.applied, stood.next_offset if stood else 0, *(view.applied for view in views))
    epoch = stood.leader_epoch if stood else -1
    later = [(at, number) for at, number in found if number > epoch and at < applied]
    if not later:
        raise UsageError(
            f"the log of {table.name}/{partition} lost nothing that is known here: no leader epoch begins below offset "
            f"{applied:,} that is later than {epoch}; run this on the machine whose node says so (--data-dir)"
        )
    first = later[0][0] if stood else later[-1][0]
    holding = [view for view in views if view.applied > first and view.state == STOPPED]
    return LostEnd(table, partition, later, first, applied, copies, _rows(data_dir, table, partition, first), holding)


def refuse_snapshots(storage: Storage, table: Table, partition: int) -> list[str]:
    """Refuse every snapshot that holds what the log lost: nobody begins from it, continues it or reads it any more.

    Requires: the loss is in the table's definition. Returns their names. Raises StorageUnreachable, Corrupted.
    """
    repository = Repository(storage, table.topic, table.epoch)
    refused = []
    for name in repository.candidates(table.base_snapshot):
        part = repository.manifest(name).parts[partition]
        if table.is_void(partition, part.cut, part.leader_epoch):
            word = Verdict(REFUSE, part.digest, part.entries, part.cut, "of records that the log lost", FROM_LOG)
            repository.verdicts(table.base_snapshot).say(name, AUDITOR, {partition: word})
            refused.append(name)
    return refused


def _stood(data_dir: Path, table: Table, partition: int) -> AppliedPosition | None:
    """Position to which the node on this machine had followed the log."""
    return AppliedPositions(data_dir).of(position_name(table.name, table.epoch, partition))


def _rows(data_dir: Path, table: Table, partition: int, first: int) -> list[LostRow]:
    """Rows that the view on this machine has from offset `first` on, as long as it was not begun again since."""
    directory = paths.partition_dir(data_dir, table.name, table.epoch, partition)
    if not directory.is_dir():
        return []
    try:
        with (
            closing(ViewReader.open(below(directory, str(paths.newest_generation(directory))))) as view,
            view.reading() as reading,
        ):
            return [row for key, raw in reading.scan() for row in lost_rows(key, Entry.decode(raw), first)]
    except LogStoreError as error:
        show.warn(f"warning: the view on this machine cannot be read: {error}")
        return []


def lost_rows(key: bytes, entry: Entry, first: int) -> list[LostRow]:
    """Rows of an entry, each value of one of several, from records at `first` or behind. Raises Corrupted."""
    if entry.version < first:
        return []
    if entry.kind in (VALUE, TOMBSTONE):
        return [LostRow(key, entry.version, None if entry.kind == TOMBSTONE else entry.payload)]
    found = [
        LostRow(key, one.version, one.payload, column_name(column) if entry.kind == CELLS else None)
        for column, cell in unpack_row(entry).cells.items()
        for one in (*cell.members, *cell.older)
        if one.version >= first
    ]
    return found or [LostRow(key, entry.version, None)]  # it took values away, and left others
