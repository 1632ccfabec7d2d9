"""Rows of files become rows of a table: `logstore load`.

The rows of a file become rows of a table. The file is streamed: memory is bounded by the batch, not by the file.
"""

import codecs
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from string import Formatter
from typing import Any

import click
import orjson

from logstore.cli import options, show
from logstore.cli.rows import files
from logstore.cli.rows.files import FORMATS, How, Number, Place, Row
from logstore.client.store import Store
from logstore.model.errors import LogStoreError, UsageError
from logstore.model.position import Position
from logstore.node.node import need_bootstrap
from logstore.settings import Settings


@click.command()
@options.with_settings("bootstrap", "data_dir")
@click.argument("table")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, path_type=Path, allow_dash=True))
@click.option("--key", "template", required=True, help="How the key is made of columns: '{origin}/{carrier}{flight}'.")
@click.option("--value-columns", metavar="A,B", help="The value is a JSON object of these columns.  [default: of all]")
@click.option(
    "--format",
    "kind",
    type=click.Choice(sorted(set(FORMATS.values()))),
    help="What the file is.  [default: by its name]",
)
@click.option("--encoding", default="utf-8", show_default=True, help="Of CSV and JSON lines.")
@click.option("--delimiter", metavar="CHAR", help="Between the fields of a CSV file.  [default: , or a tab in .tsv]")
@click.option("--null", default="", metavar="TEXT", help="What stands for null, beside an empty field of CSV.")
@click.option(
    "--guess-types", is_flag=True, help="CSV: a field that is a number or truth value of JSON, as it stands, is one."
)
@click.option("--dry-run", is_flag=True, help="Read and check every row, and write nothing.")
@click.option(
    "--batch", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True, help="Rows in memory at a time."
)
@options.AS_JSON
def load(
    settings: Settings, table: str, path: Path, template: str, value_columns: str | None, kind: str | None,
    encoding: str, delimiter: str | None, null: str, guess_types: bool, dry_run: bool, batch: int, as_json: bool,
) -> None:  # fmt: skip
    """Write the rows of a CSV, JSON lines or Parquet file; returns when all are acknowledged.

    FILE may be compressed (.gz, .zst), a folder of Parquet files, or - for stdin. Columns of CSV are text, numbers of
    JSON keep their digits: no value is changed unasked. To run it again is safe: the same rows get the same values.
    """
    stdin = str(path) == "-"
    how = _how(path, kind, encoding, delimiter, null, guess_types=guess_types)
    columns = value_columns.split(",") if value_columns else None
    make_key, began_s = key_maker(template), time.monotonic()
    source = files.rows(None if stdin else path, how)
    pairs = ((make_key(place), _value(place, columns)) for place in source)
    with _bar(path) as advance:
        if dry_run:
            count = sum(1 for _ in pairs)
            click.echo(f"table {table}: {count:,} rows could be written; nothing was", err=as_json)
            return
        with Store(need_bootstrap(settings)) as store:
            count, position = _write(store, table, pairs, batch, advance)
    _summary(table, count, time.monotonic() - began_s, position, as_json=as_json)


def _how(path: Path, kind: str | None, encoding: str, delimiter: str | None, null: str, *, guess_types: bool) -> How:
    kind = kind or files.kind_of(path)
    if kind is None:
        raise UsageError(f"cannot tell what {path.name} is; give --format csv, jsonl or parquet")
    try:
        name = codecs.lookup(encoding).name
    except LookupError as error:
        raise UsageError(
            f"--encoding {encoding!r}: there is no such encoding, but utf-8, latin-1, cp1252, utf-16 ..."
        ) from error
    if delimiter is None:
        delimiter = "\t" if ".tsv" in path.suffixes else ","
    if len(delimiter) != 1:
        raise UsageError(f"--delimiter is one character, not {delimiter!r}")
    return How(kind, "utf-8-sig" if name == "utf-8" else name, delimiter, null, guess_types)


def _write(
    store: Store, table: str, pairs: Iterator[tuple[str, bytes]], batch: int, advance: Callable[[int], None]
) -> tuple[int, Position]:
    """Write batch by batch; an error, or Ctrl-C, says how many rows are in."""
    count, position = 0, Position()
    try:
        while some := list(islice(pairs, batch)):
            position |= store.put_many(table, some)
            count += len(some)
            advance(count)
    except (LogStoreError, KeyboardInterrupt) as error:
        error.add_note(f"{count:,} rows are in; to run it again is safe: rows that are there get the same value")
        raise
    return count, position


def key_maker(template: str) -> Callable[[Place], str]:
    """Function that makes a row's key. Raises UsageError for a template that names no column, or more than columns."""
    try:
        names = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise UsageError(f"--key {template!r}: {error}") from error
    if not names or any(not name or set(name) & set(".[]") for name in names):
        raise UsageError(
            f"--key {template!r}: name at least one column in braces, such as '{{id}}', and nothing but columns"
        )

    def make(place: Place) -> str:
        row, where = place
        missing = [name for name in names if row.get(name) is None]
        if missing:
            there = "has no value" if missing[0] in row else f"is no column; there are {', '.join(row)}"
            raise UsageError(f"{where}: --key: {missing[0]!r} {there} (row {_short(row)})")
        try:
            return template.format_map({name: _key_part(row[name]) for name in names})
        except (ValueError, TypeError) as error:
            guess = "; columns of CSV are text unless --guess-types" if "format code" in str(error) else ""
            raise UsageError(f"{where}: --key {template!r}: {error} (row {_short(row)}){guess}") from error

    return make


def _key_part(value: Any) -> Any:
    """Text of one key column, as the file has it."""
    return str(value).lower() if isinstance(value, bool) else value


def _value(place: Place, columns: list[str] | None) -> bytes:
    row, where = place
    if columns is not None:
        try:
            row = {name: row[name] for name in columns}
        except KeyError as error:
            raise UsageError(
                f"{where}: --value-columns: there is no column {error.args[0]!r}; there are {', '.join(row)}"
            ) from error
    try:
        return orjson.dumps(row, default=_plain)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: JSON cannot hold it: {error} (row {_short(row)})") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Number):
        return orjson.Fragment(value.text)
    return show.field(value) if isinstance(value, bytes) else str(value)


@contextmanager
def _bar(path: Path) -> Iterator[Callable[[int], None]]:
    """The number of rows written, on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _count: None
        return
    from rich.console import Console  # noqa: PLC0415 - only where somebody looks
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(path.name, total=None, rows=0)
        yield lambda count: progress.update(task, rows=count)


def _summary(table: str, count: int, seconds: float, position: Position, *, as_json: bool) -> None:
    rate = count / seconds if seconds > 0 else 0.0
    if as_json:
        show.as_json(
            {
                "table": table,
                "rows": count,
                "seconds": round(seconds, 3),
                "rows_per_s": round(rate),
                "token": position.token,
            }
        )
    else:
        click.echo(f"table {table}: {count:,} rows in {seconds:.1f} s, {rate:,.0f} rows/s")


def _short(row: Row) -> str:
    text = str(row)
    return text if len(text) <= 200 else text[:200] + " ..."
