"""Counters on the command line: 8 bytes, big-endian and signed, printed as the numbers that they are."""

from typing import TYPE_CHECKING, NamedTuple

import click

from logstore.cli import show
from logstore.cli.rows.conditional import outcome_document
from logstore.model.errors import LogStoreError, WideTable

if TYPE_CHECKING:
    from logstore.client.conditional.outcome import Outcome
    from logstore.client.store import Store
    from logstore.client.wide.row import WideRow

_COUNTER_BYTES = 8
_OF_VALUE = ":"  # in a wide table a plain increment acts on the cell without family and qualifier


def number_of(value: bytes, what: str) -> int:
    """The number that a counter stands at. Raises LogStoreError for a value that is none; `what` has it."""
    if len(value) != _COUNTER_BYTES:
        raise LogStoreError(f"{what} is no counter: it has {len(value):,} bytes, not {_COUNTER_BYTES}")
    return int.from_bytes(value, signed=True)


def numbers_of(row: "WideRow") -> list[int]:
    """The numbers in the cells of a wide row. Raises LogStoreError for a cell that is no counter."""
    from logstore.model.hard_rows.changes.cell_differences import column_name  # noqa: PLC0415 - of wide rows alone

    return [number_of(cell.value, f"cell {column_name(cell[:2])}") for cell in row.cells]


class Count(NamedTuple):
    """Number that a counter stands at, as it was read behind an increment."""

    number: int | None = None  # None: it could not be read
    version: int | None = None  # the offset of the increment that made it this one
    why: str = ""

    def is_of(self, outcome: "Outcome") -> bool:
        """True when it is what this very increment made of it."""
        return self.number is not None and self.version == outcome.version


def read_count(store: "Store", table: str, key: bytes, outcome: "Outcome") -> Count:
    """The number of a counter, the increment among it. An increment that has been applied never fails for this."""
    try:
        try:
            row = store.get(table, key, after=outcome.token)
            found = None if row is None else (row.value, row.version)
        except WideTable:
            cells = store.get_row(table, key, [_OF_VALUE], after=outcome.token)
            found = None if cells is None else (cells.cells[0].value, cells.cells[0].version)
        if found is None:
            return Count(why="the row has been deleted since")
        return Count(number_of(found[0], "what was written since"), found[1])
    except LogStoreError as error:
        return Count(why=str(error))


def print_count(table: str, outcome: "Outcome", count: Count, *, as_json: bool) -> None:
    """Print what became of an increment that was applied: the number that it made, or where it is."""
    if as_json:
        show.as_json({**outcome_document(table, outcome), "value": count.number, "value_version": count.version})
        return
    if count.number is None:
        click.echo(f"partition {outcome.partition}, offset {outcome.version}")
        show.warn(f"counted; the number could not be read: {count.why}")
        return
    click.echo(str(count.number))
    if not count.is_of(outcome):
        show.warn("others have changed it since: the number holds that, too")
