"""`logstore edit`: the cells of one wide row, all together or not at all."""

from typing import Any

import click

from logstore.cli import options
from logstore.cli.rows.conditional import decider, expected, print_outcome
from logstore.cli.table_names import table_names
from logstore.client.wide.row_edit import RowEdit
from logstore.model.errors import UsageError
from logstore.model.wide.columns import Column, unescaped_column
from logstore.settings import Settings

_CELL = "FAMILY:QUALIFIER"
_Named = tuple[str, ...]


@click.command()
@options.with_settings("bootstrap", "url", "data_dir")
@click.argument("table", shell_complete=table_names)
@click.argument("key")
@click.option("--del-row", is_flag=True, help="Delete all cells.")
@click.option("--del-family", "del_families", multiple=True, metavar="FAMILY", help="Delete the cells of a family.")
@click.option("--del", "deleted", multiple=True, metavar=_CELL, help="Delete a cell.")
@click.option("--set", "written", multiple=True, metavar=f"{_CELL}=VALUE", help="Give a cell a value.")
@click.option("--append", "appended", multiple=True, metavar=f"{_CELL}=MORE", help="Put bytes behind those of a cell.")
@click.option("--incr", "added", multiple=True, metavar=f"{_CELL}[=DELTA]", help="Add to a counter, 1 if not said.")
@click.option(
    "--if", "condition", metavar="CONDITION",
    help=f"Only if the row is absent, present or version:OFFSET, or a cell is: version:OFFSET@{_CELL}.",
)  # fmt: skip
@options.KEY_ENCODING
@options.AS_JSON
def edit(
    settings: Settings, table: str, key: str, del_row: bool, del_families: _Named, deleted: _Named, written: _Named,
    appended: _Named, added: _Named, condition: str | None, key_encoding: str, as_json: bool,
) -> int:  # fmt: skip
    """Edit the cells of a wide row, all together or not at all; exit status 1 when nothing was changed.

    \b
    Examples:
      logstore edit pages org.example/ --set content:html='<p>' --set anchor:org.other/=Example
      logstore edit pages org.example/ --del-family anchor --incr stats:fetches --if present

    What is deleted is deleted first, then cells are written, appended to and added to; of one kind in the order given.
    In a qualifier %XX stands for a byte: % , and = are %25, %2C and %3D.
    """  # noqa: D301 - click's \b keeps the lines
    change = RowEdit()
    if del_row:
        change.delete_row()
    for family in del_families:
        change.delete_family(family)
    for text in deleted:
        change.delete(*_cell(text, "--del"))
    for text in written:
        change.set(*_cell_and_value(text, "--set"))
    for text in appended:
        change.append(*_cell_and_value(text, "--append"))
    for text in added:
        change.incr(*_cell_and_delta(text))
    wanted = {} if condition is None else _expected(condition)
    with decider(settings) as store:
        outcome = store.edit(table, options.key_bytes(key, key_encoding), change, **wanted)
        return print_outcome(table, outcome, as_json=as_json)


def _cell(text: str, option: str) -> Column:
    try:
        return unescaped_column(options.key_bytes(text, "text"))
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from error


def _cell_and_value(text: str, option: str) -> tuple[str, bytes, bytes]:
    column, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{option} wants {_CELL}=VALUE, not {text[:80]!r}")
    return *_cell(column, option), options.key_bytes(value, "text")


def _cell_and_delta(text: str) -> tuple[str, bytes, int]:
    column, equals, delta = text.partition("=")
    try:
        return *_cell(column, "--incr"), int(delta) if equals else 1
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"--incr wants {_CELL}=DELTA, a whole number, not {text[:80]!r}") from error


def _expected(condition: str) -> dict[str, Any]:
    """Keyword arguments of `Store.edit` for the text of a condition. Raises UsageError."""
    if condition.startswith("value:"):
        raise UsageError("--if of an edit wants absent, present, or version:OFFSET of the row or @ a cell; no value")
    row, at, column = condition.partition("@")
    return {**expected(row), **({"column": _cell(column, "--if")} if at else {})}
