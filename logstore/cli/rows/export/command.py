"""`logstore export`: the rows of a table as a file, which `logstore load` makes the same rows of.

Rows are streamed: memory is bounded by a page of the read API, and by a row group of Parquet.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Generic, NamedTuple, TypeVar

import click

from logstore import Row, Store
from logstore.cli import options, show
from logstore.cli.rows.export.objects import Objects
from logstore.cli.rows.export.output import output
from logstore.cli.rows.export.text_files import cell_lines, csv_lines, json_lines
from logstore.cli.rows.files import COMPRESSED, FORMATS, kind_of
from logstore.cli.rows.progress import rows_bar
from logstore.cli.table_names import table_names
from logstore.extras import needing
from logstore.model.errors import UsageError
from logstore.model.table import MAX_VERSIONS
from logstore.node.addresses import need_url
from logstore.settings import Settings

T = TypeVar("T")
_SAY_EVERY = 1_000  # rows


class Form(NamedTuple):
    """Shape of the exported file."""

    kind: str
    objects: Objects | None  # None: the columns are `key` and `value`
    delimiter: str
    guess_types: bool


@click.command()
@options.with_settings("url", "data_dir", "deadline_ms")
@click.argument("table", shell_complete=table_names)
@click.option(
    "--format",
    "kind",
    type=click.Choice(sorted(set(FORMATS.values()))),
    help="What the file is to be.  [default: by the name of --out, else jsonl]",
)
@click.option(
    "--key",
    "template",
    metavar="TEMPLATE",
    help="That of load: columns of the JSON values, from which load makes the keys again.  [default: the columns key "
    "and value]",
)
@click.option("--guess-types", is_flag=True, help="CSV with --key: numbers and truth values as they stand, as at load.")
@click.option("--delimiter", metavar="CHAR", help="Between the fields of a CSV file.  [default: , or a tab in .tsv]")
@click.option("--cells", is_flag=True, help="Of a wide table: a line of JSON for each cell; load does not read it.")
@click.option(
    "--versions",
    type=click.IntRange(1, MAX_VERSIONS),
    default=1,
    help="With --cells: how many of each cell, the newest.",
)
@click.option("--prefix", help="Only keys that begin with this.")
@options.KEY_ENCODING
@click.option("--token", help="See at least what this token says (`load --json` prints one).")
@options.AS_OF
@click.option(
    "--out", metavar="FILE|-", default="-", help="Where to, compressed if it ends in .gz or .zst.  [default: stdout]"
)
@options.AS_JSON
@needing("parquet")
def export(
    settings: Settings, table: str, kind: str | None, template: str | None, guess_types: bool, delimiter: str | None,
    cells: bool, versions: int, prefix: str | None, key_encoding: str, token: str | None, as_of: str | None, out: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Write the rows of a table to a file; `load` makes the same rows of it.

    \b
    Examples:
      logstore export users --out users.jsonl                  logstore load users users.jsonl
      logstore export users --out users.csv --key '{id}'       logstore load users users.csv --key '{id}'
      logstore export pages --cells --versions 3

    What the format cannot hold is refused, never changed. A file is there whole or not at all. Writes that come in
    meanwhile may or may not be in it; --as-of says at which point.
    """  # noqa: D301 - click's \b keeps the lines
    path = None if out == "-" else Path(out)
    form = _form(path, kind, template, delimiter, guess_types=guess_types)
    if cells and (form.kind != "jsonl" or template is not None):
        raise UsageError("--cells writes JSON lines: leave --format, --key and a name of another kind out")
    if path is None and as_json:
        raise UsageError("--json describes a file that was written; with the rows on stdout leave it out")
    began_s = time.monotonic()
    bound = None if prefix is None else options.key_bytes(prefix, key_encoding)
    to_screen = path is None and sys.stdout.isatty()
    with Store(url=need_url(settings)) as store, rows_bar(table, hidden=to_screen) as advance:
        where: Any = {"prefix": bound, "after": token, "as_of": as_of, "deadline_ms": settings.deadline_ms}
        with output(path) as stream:
            if cells:
                wide = Counted(store.scan_rows(table, versions=versions, **where), advance)
                stream.writelines(cell_lines(wide))
                count = wide.count
            else:
                rows = Counted(store.scan(table, **where), advance)
                _write(rows, form, stream)
                count = rows.count
    _summary(table, count, path, time.monotonic() - began_s, as_json=as_json)


class Counted(Generic[T]):
    """Rows, counted as they pass."""

    def __init__(self, rows: Iterable[T], advance: Callable[[int], None]) -> None:
        self._rows, self._advance = rows, advance
        self.count = 0

    def __iter__(self) -> Iterator[T]:
        for row in self._rows:
            yield row
            self.count += 1
            if self.count % _SAY_EVERY == 0:
                self._advance(self.count)
        self._advance(self.count)


def _form(
    path: Path | None, kind: str | None, template: str | None, delimiter: str | None, *, guess_types: bool
) -> Form:
    kind = kind or ("jsonl" if path is None else kind_of(path))
    if kind is None:
        raise UsageError(f"cannot tell what {path} is to be; give --format csv, jsonl or parquet")
    if kind == "parquet" and path is not None and path.suffix.lower() in COMPRESSED:
        raise UsageError("Parquet is compressed inside; leave the .gz or .zst out")
    if kind == "parquet" and path is None and sys.stdout.isatty():
        raise UsageError("Parquet is not for a terminal; give --out FILE, or --format csv or jsonl")
    if kind != "csv" and delimiter is not None:
        raise UsageError("--delimiter goes with --format csv")
    if guess_types and (kind != "csv" or template is None):
        raise UsageError("--guess-types goes with --format csv and --key: the other formats have types of their own")
    if delimiter is None:
        delimiter = "\t" if path is not None and ".tsv" in path.suffixes else ","
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise UsageError(f"--delimiter is one character, and neither a quote nor a line end, not {delimiter!r}")
    return Form(kind, None if template is None else Objects(template), delimiter, guess_types)


def _write(rows: Iterable[Row], form: Form, out: IO[bytes]) -> None:
    if form.kind == "parquet":
        from logstore.cli.rows.export import parquet_file  # noqa: PLC0415 - heavy, and for this format only

        if form.objects is None:
            parquet_file.write_pairs(rows, out)
        else:
            parquet_file.write_columns(rows, form.objects, out)
    elif form.kind == "csv":
        out.writelines(csv_lines(rows, form.objects, delimiter=form.delimiter, guess_types=form.guess_types))
    else:
        out.writelines(json_lines(rows, form.objects))


def _summary(table: str, count: int, path: Path | None, seconds: float, *, as_json: bool) -> None:
    if as_json:
        show.as_json({"table": table, "rows": count, "file": str(path), "seconds": round(seconds, 3)})
    elif path is not None:
        click.echo(f"table {table}: {count:,} rows in {path}, in {seconds:.1f} s")
