"""Rows of files become rows of a table: `logstore load`.

The file is streamed: memory is bounded by the batch, not by the file. `logstore.cli.rows.columns` says what becomes
of a row's columns; `logstore export` is the way back.
"""

import codecs
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import click

from logstore.cli import options, show
from logstore.cli.rows import files
from logstore.cli.rows.columns import Pair, as_it_is, key_maker, value_maker
from logstore.cli.rows.files import FORMATS, How, Place
from logstore.cli.rows.progress import rows_bar
from logstore.cli.rows.write_level import level_option
from logstore.cli.table_names import table_names
from logstore.client.store import Store
from logstore.client.write.level import WriteLevel, awaits_outcome
from logstore.extras import needing
from logstore.model.errors import UsageError
from logstore.model.position import Position
from logstore.node.addresses import need_bootstrap, need_url
from logstore.settings import Settings


@click.command()
@options.with_settings("bootstrap", "url", "data_dir")
@click.argument("table", shell_complete=table_names)
@click.argument("path", metavar="FILE", type=click.Path(exists=True, path_type=Path, allow_dash=True))
@click.option(
    "--key",
    "template",
    metavar="TEMPLATE",
    help="How the key is made of columns: '{origin}/{carrier}{flight}'.  [default: the file has the columns key and "
    "value, as `logstore export` writes it]",
)
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
@level_option("in wide tables")
@options.AS_JSON
@needing("parquet")
def load(
    settings: Settings, table: str, path: Path, template: str | None, value_columns: str | None, kind: str | None,
    encoding: str, delimiter: str | None, null: str, guess_types: bool, dry_run: bool, batch: int,
    level: WriteLevel | None, as_json: bool,
) -> None:  # fmt: skip
    """Write the rows of a CSV, JSON lines or Parquet file; returns when all are acknowledged, or as --level says.

    FILE may be compressed (.gz, .zst), a folder of Parquet files, or - for stdin. Columns of CSV are text, numbers of
    JSON keep their digits: no value is changed unasked. To run it again is safe: the same rows get the same values.
    """
    if template is None and (value_columns or guess_types or null):
        raise UsageError("--value-columns, --guess-types and --null go with --key, which makes rows of columns")
    stdin = str(path) == "-"
    how = _how(path, kind, encoding, delimiter, null, guess_types=guess_types)
    if template is None and how.kind == "csv":
        how = how._replace(empty_is_null=False)
    make, began_s = _pair_maker(template, value_columns), time.monotonic()
    places = files.rows(None if stdin else path, how)
    with rows_bar(path.name) as advance:
        if dry_run:
            count = sum(1 for _ in map(make, places))
            click.echo(f"table {table}: {count:,} rows could be written; nothing was", err=as_json)
            return
        with Store(need_bootstrap(settings), need_url(settings) if awaits_outcome(level) else None) as store:
            pairs = map(_within(store.tables.get(table).max_value_bytes, make), places)
            count, position = _write(store, table, pairs, batch, level, advance)
    _summary(table, count, time.monotonic() - began_s, position, as_json=as_json)


def _pair_maker(template: str | None, value_columns: str | None) -> Callable[[Place], Pair]:
    if template is None:
        return as_it_is
    make_key = key_maker(template)
    make_value = value_maker(value_columns.split(",") if value_columns else None)
    return lambda place: (make_key(place), make_value(place))


def _within(limit_bytes: int, make: Callable[[Place], Pair]) -> Callable[[Place], Pair]:
    def checked(place: Place) -> Pair:
        pair = make(place)
        if len(pair[1]) > limit_bytes:
            raise UsageError(f"{place.where}: the value has {len(pair[1]):,} bytes, the table takes {limit_bytes:,}")
        return pair

    return checked


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
    store: Store,
    table: str,
    pairs: Iterator[Pair],
    batch: int,
    level: WriteLevel | None,
    advance: Callable[[int], None],
) -> tuple[int, Position]:
    """Write batch by batch; an error, or Ctrl-C, says how many rows are in."""
    count, position = 0, Position()
    try:
        while some := list(islice(pairs, batch)):
            position |= store.put_many(table, some, level=level)
            count += len(some)
            advance(count)
    except (Exception, KeyboardInterrupt) as error:
        error.add_note(f"{count:,} rows are in; to run it again is safe: rows that are there get the same value")
        raise
    return count, position


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
