"""`logstore load`: rows of a file become rows of a table.

The file is streamed: memory is bounded by the batch, not by the file.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Formatter
from typing import Any, BinaryIO

import click
import orjson

from logstore.cli import options, show
from logstore.client.store import Store
from logstore.model.errors import UsageError
from logstore.model.position import Position
from logstore.node.node import need_bootstrap
from logstore.settings import Settings

FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_LINE_BYTES = 64 << 20

Row = dict[str, Any]


@click.command()
@options.with_settings("bootstrap", "data_dir")
@click.argument("table")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--key", "template", required=True, help="How the key is made of columns: '{origin}/{carrier}{flight:04d}'."
)
@click.option("--value-columns", metavar="A,B", help="The value is a JSON object of these columns.  [default: of all]")
@click.option(
    "--format",
    "kind",
    type=click.Choice(sorted(set(FORMATS.values()))),
    help="What the file is.  [default: by its name]",
)
@click.option("--as-text", is_flag=True, help="CSV: take every column as text, guess no types.")
@click.option(
    "--batch", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True, help="Rows in memory at a time."
)
@options.AS_JSON
def load(
    settings: Settings, table: str, path: Path, template: str, value_columns: str | None, kind: str | None,
    as_text: bool, batch: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Write the rows of a CSV, JSON lines or Parquet file; returns when all are acknowledged."""
    kind = kind or FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"cannot tell what {path.name} is; give --format csv, jsonl or parquet")
    columns = value_columns.split(",") if value_columns else None
    make_key, began_s, count = key_maker(template), time.monotonic(), 0
    with Store(need_bootstrap(settings)) as store, path.open("rb") as file, _bar(path) as advance:
        position = Position()
        for rows in READERS[kind](file, batch, as_text):
            position |= store.put_many(table, [(make_key(row), _value(row, columns)) for row in rows])
            count += len(rows)
            advance(file.tell(), count)
    _summary(table, count, time.monotonic() - began_s, position, as_json=as_json)


def key_maker(template: str) -> Callable[[Row], str]:
    """Function that makes a row's key. Raises UsageError for a template that names no column, or more than columns."""
    try:
        names = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise UsageError(f"--key {template!r}: {error}") from error
    if not names or any(not name or set(name) & set(".[]") for name in names):
        raise UsageError(
            f"--key {template!r}: name at least one column in braces, such as '{{id}}', and nothing but columns"
        )

    def make(row: Row) -> str:
        missing = [name for name in names if row.get(name) is None]
        if missing:
            there = "has no value" if missing[0] in row else f"is no column; there are {', '.join(row)}"
            raise UsageError(f"--key: {missing[0]!r} {there} (row {_short(row)})")
        try:
            return template.format_map(row)
        except (ValueError, TypeError) as error:
            raise UsageError(f"--key {template!r}: {error} (row {_short(row)})") from error

    return make


def _value(row: Row, columns: list[str] | None) -> bytes:
    if columns is not None:
        try:
            row = {name: row[name] for name in columns}
        except KeyError as error:
            raise UsageError(
                f"--value-columns: there is no column {error.args[0]!r}; there are {', '.join(row)}"
            ) from error
    return orjson.dumps(row, default=_plain)


def _plain(value: Any) -> Any:
    return show.field(value) if isinstance(value, bytes) else str(value)


def _csv(file: BinaryIO, batch: int, as_text: bool) -> Iterator[list[Row]]:
    import pyarrow as pa  # noqa: PLC0415 - heavy, and for this command only
    from pyarrow import csv  # noqa: PLC0415

    def convert() -> Any:
        if not as_text:
            return csv.ConvertOptions(strings_can_be_null=True)
        header = file.readline().decode("utf-8-sig")
        file.seek(0)
        names = pa.csv.read_csv(pa.BufferReader(header.encode() + b"\n")).column_names
        return csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))

    with _explained("CSV", "if a column changes its type on the way, add --as-text"):
        reader = csv.open_csv(file, convert_options=convert())
        for chunk in reader:
            for start in range(0, chunk.num_rows, batch):
                yield chunk.slice(start, batch).to_pylist()


def _parquet(file: BinaryIO, batch: int, _as_text: bool) -> Iterator[list[Row]]:
    from pyarrow import parquet  # noqa: PLC0415 - heavy, and for this command only

    with _explained("Parquet", "is it whole?"):
        for chunk in parquet.ParquetFile(file).iter_batches(batch):
            yield chunk.to_pylist()


def _jsonl(file: BinaryIO, batch: int, _as_text: bool) -> Iterator[list[Row]]:
    rows: list[Row] = []
    number = 0
    while line := file.readline(_LINE_BYTES):
        number += 1
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise UsageError(f"line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise UsageError(f"line {number} is no JSON object")
        rows.append(row)
        if len(rows) >= batch:
            yield rows
            rows = []
    if rows:
        yield rows


READERS: dict[str, Callable[[BinaryIO, int, bool], Iterator[list[Row]]]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "parquet": _parquet,
}


@contextmanager
def _explained(kind: str, hint: str) -> Iterator[None]:
    import pyarrow as pa  # noqa: PLC0415 - heavy, and for this command only

    try:
        yield
    except pa.ArrowInvalid as error:
        raise UsageError(f"the file cannot be read as {kind}: {error}; {hint}") from error


@contextmanager
def _bar(path: Path) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, where that is a terminal; the function given takes bytes read and rows written."""
    if not sys.stderr.isatty():
        yield lambda _read, _count: None
        return
    from rich.console import Console  # noqa: PLC0415 - only where somebody looks
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(path.name, total=max(1, path.stat().st_size), rows=0)
        yield lambda read, count: progress.update(task, completed=read, rows=count)


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
