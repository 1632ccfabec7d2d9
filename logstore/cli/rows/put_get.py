"""`logstore put`, `get`, `delete`, `scan`: rows, one by one and in order."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from logstore.cli import options, show
from logstore.cli.rows import conditional
from logstore.cli.rows.counted import number_of, numbers_of
from logstore.cli.rows.write_level import level_option
from logstore.cli.table_names import table_names
from logstore.client.read.level import Level
from logstore.client.write.level import WriteLevel, awaits_outcome
from logstore.log.write.limits import DELIVERY_TIMEOUT_S
from logstore.model.errors import LogStoreError, UsageError, WideTable
from logstore.model.position import Position
from logstore.node.addresses import need_bootstrap, need_url
from logstore.settings import Settings

if TYPE_CHECKING:
    from logstore.client.read.row import Row, SiblingRow
    from logstore.client.store import Store
    from logstore.client.wide.row import WideRow
    from logstore.model.wide.columns import Column

_COLUMNS = click.option(
    "--columns", metavar="FAMILY:[QUALIFIER],...", help="Of a wide table: these cells; FAMILY: for all of a family."
)
_VERSIONS = click.option("--versions", type=click.IntRange(1), help="Of a wide table: versions of each cell, at most.")
SEEN = click.option(
    "--seen",
    type=click.IntRange(-1),
    metavar="VERSION",
    help="The version of the row that was read before, -1: there was none; values that are newer stay beside this one. "
    "In tables created with --siblings.",
)


@click.command()
@options.with_settings("bootstrap", "url", "data_dir")
@click.argument("table", shell_complete=table_names)
@click.argument("key")
@click.argument("value", required=False)
@click.option(
    "--file", "path", type=click.Path(dir_okay=False, path_type=Path), help="The value is this file's content."
)
@click.option(
    "--header", "headers", multiple=True, metavar="NAME=VALUE", help="A header of the record; may be repeated."
)
@conditional.CONDITION
@click.option(
    "--ttl",
    metavar="TIME",
    help="The row is gone again after it, such as 90s or 7d; in tables created with --expiring.",
)
@SEEN
@level_option("with --seen, and in wide tables")
@options.KEY_ENCODING
@options.AS_JSON
def put(
    settings: Settings,
    table: str,
    key: str,
    value: str | None,
    path: Path | None,
    headers: tuple[str, ...],
    condition: str | None,
    ttl: str | None,
    seen: int | None,
    level: WriteLevel | None,
    key_encoding: str,
    as_json: bool,
) -> int:
    """Write one row and wait until it is safe in the log.

    VALUE - reads standard input; put -- before what begins with a dash. With --if also until it is decided: exit status
    1 when the row is not so.
    """
    content, row_key = _value(value, path), options.key_bytes(key, key_encoding)
    named = {name: text.encode() for name, text in options.pairs(headers, "--header").items()} or None
    ttl_s = None if ttl is None else options.duration_ms(ttl, "--ttl") / 1000
    if condition is not None:
        _check_alone(seen)
        _check_no_level(level)
        expected = conditional.expected(condition)
        with conditional.decider(settings) as store:
            outcome = store.put_if(table, row_key, content, headers=named, ttl_s=ttl_s, **expected)
            return conditional.print_outcome(table, outcome, as_json=as_json)
    with _writer(settings, level) as store:
        position = store.put(table, row_key, content, headers=named, ttl_s=ttl_s, seen=seen, level=level)
    return _written(table, position, as_json=as_json)


@click.command()
@options.with_settings("bootstrap", "url", "data_dir")
@click.argument("table", shell_complete=table_names)
@click.argument("key")
@conditional.CONDITION
@SEEN
@level_option("with --seen, and in wide tables")
@options.KEY_ENCODING
@options.AS_JSON
def delete(
    settings: Settings,
    table: str,
    key: str,
    condition: str | None,
    seen: int | None,
    level: WriteLevel | None,
    key_encoding: str,
    as_json: bool,
) -> int:  # fmt: skip
    """Delete one row and wait until that is safe in the log; with --if also until it is decided."""
    row_key = options.key_bytes(key, key_encoding)
    if condition is not None:
        _check_alone(seen)
        _check_no_level(level)
        expected = conditional.expected(condition)
        with conditional.decider(settings) as store:
            return conditional.print_outcome(table, store.delete_if(table, row_key, **expected), as_json=as_json)
    with _writer(settings, level) as store:
        position = store.delete(table, row_key, seen=seen, level=level)
    return _written(table, position, as_json=as_json)


@click.command()
@options.with_settings("url", "data_dir", "deadline_ms")
@click.argument("table", shell_complete=table_names)
@click.argument("key")
@click.option("--token", help="See at least what this token says (`put --json` prints one).")
@options.AS_OF
@options.CONSISTENCY
@options.MAX_LAG_MS
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the value to this file.")
@click.option("--counter", is_flag=True, help="Print what `incr` has counted as a number; of a wide row each cell.")
@_COLUMNS
@_VERSIONS
@options.KEY_ENCODING
@options.AS_JSON
def get(
    settings: Settings,
    table: str,
    key: str,
    token: str | None,
    as_of: str | None,
    consistency: Level | None,
    max_lag_ms: int | None,
    output: Path | None,
    counter: bool,
    columns: str | None,
    versions: int | None,
    key_encoding: str,
    as_json: bool,
) -> None:
    """Print one row's value, its bytes and nothing else; of a wide row a line a cell: column, version, value.

    Exit status 1 when there is no such row, or several values stand side by side: --json prints those.
    """
    from logstore.client.read.row import Row, SiblingRow  # noqa: PLC0415 - help does without
    from logstore.client.store import Store  # noqa: PLC0415 - help does without

    row_key = options.key_bytes(key, key_encoding)
    bound: dict[str, Any] = {
        "after": token, "as_of": as_of, "consistency": consistency, "max_lag_ms": max_lag_ms,
        "deadline_ms": settings.deadline_ms,
    }  # fmt: skip
    with Store(url=need_url(settings)) as store:
        row: Row | WideRow | None  # the first one of a table tells which
        try:
            if columns is not None or versions is not None:
                row = store.get_row(table, row_key, _named(columns), versions or 1, **bound)
            else:
                row = store.get(table, row_key, **bound)
        except WideTable:
            row = store.get_row(table, row_key, **bound)
    if row is not None and not isinstance(row, Row):
        _print_wide(row, output, key_encoding, counter=counter, as_json=as_json)
        return
    if row is None:
        raise LogStoreError(f"there is no row {key!r} in table {table!r}")
    if isinstance(row, SiblingRow) and not as_json:
        raise LogStoreError(_side_by_side(key, row))
    document = _document(row) if as_json else {}
    if counter and not isinstance(row, SiblingRow):
        number = number_of(row.value, f"row {row.key!r}")
        row, document = row._replace(value=b"%d" % number), {**document, "value": number}
    if output is not None:
        _write_file(output, row.value)
    if as_json:
        show.as_json({**document, "token": row.token, "source": row.source})
    elif output is None:
        show.value(row.value)


@click.command()
@options.with_settings("url", "data_dir", "deadline_ms")
@click.argument("table", shell_complete=table_names)
@click.option("--prefix", help="Only keys that begin with this.")
@click.option("--start", help="From this key on.")
@click.option("--end", help="Up to this key, without it.")
@click.option("--limit", type=click.IntRange(1), help="Rows at most.  [default: all]")
@click.option("--reverse", is_flag=True, help="From the end downwards.")
@click.option("--keys-only", is_flag=True, help="Leave the values out.")
@_COLUMNS
@_VERSIONS
@click.option("--token", help="See at least what this token says.")
@options.AS_OF
@options.CONSISTENCY
@options.MAX_LAG_MS
@options.KEY_ENCODING
@options.AS_JSON
def scan(
    settings: Settings, table: str, prefix: str | None, start: str | None, end: str | None, limit: int | None,
    reverse: bool,
    keys_only: bool, columns: str | None, versions: int | None, token: str | None, as_of: str | None,
    consistency: Level | None, max_lag_ms: int | None, key_encoding: str, as_json: bool,
) -> None:  # fmt: skip
    """Print rows in key order: key, tab, value; with --json one JSON object a line.

    Of a row of several values that stand side by side each one has a line; and of a wide row each cell, with its column
    and version.
    """
    named, of_cells = _named(columns), columns is not None or versions is not None
    if of_cells and keys_only:
        raise UsageError("--keys-only leaves cells out: give it, or --columns and --versions")
    from logstore.client.store import Store  # noqa: PLC0415 - help does without

    first, begin, last = (
        None if text is None else options.key_bytes(text, key_encoding) for text in (prefix, start, end)
    )
    asked: dict[str, Any] = {
        "prefix": first, "start": begin, "end": last, "limit": limit, "reverse": reverse, "after": token,
        "as_of": as_of, "consistency": consistency, "max_lag_ms": max_lag_ms, "deadline_ms": settings.deadline_ms,
    }  # fmt: skip
    with Store(url=need_url(settings)) as store:
        try:
            if not of_cells:
                for row in store.scan(table, keys_only=keys_only, **asked):
                    sys.stdout.buffer.write(_line(row, key_encoding, keys_only=keys_only, as_json=as_json))
        except WideTable:
            of_cells = True
        if of_cells:
            from logstore.cli.rows.wide.cell_lines import row_lines  # noqa: PLC0415 - as of `_named`

            for wide in store.scan_rows(table, named, versions or 1, **asked):
                sys.stdout.buffer.write(row_lines(wide, key_encoding, as_json=as_json))
        sys.stdout.buffer.flush()


def _named(columns: str | None) -> "tuple[Column, ...] | None":
    """Columns that the option names; None for all. Raises UsageError."""
    if columns is None:
        return None
    from logstore.cli.rows.wide.cell_lines import named_columns  # noqa: PLC0415 - who reads values does without

    return named_columns(columns)


def _print_wide(row: "WideRow", output: Path | None, key_encoding: str, *, counter: bool, as_json: bool) -> None:
    from logstore.cli.rows.wide.cell_lines import cell_line, row_document  # noqa: PLC0415 - as of `_named`

    if output is not None:
        raise UsageError("--output is for rows of one value; of a wide row --json prints every cell whole")
    numbers = numbers_of(row) if counter else None
    if as_json:
        show.as_json({**row_document(row, key_encoding, numbers), "token": row.token, "source": row.source})
        return
    cells = row.cells
    if numbers is not None:
        cells = tuple(cell._replace(value=b"%d" % number) for cell, number in zip(row.cells, numbers, strict=True))
    show.raw(b"".join(map(cell_line, cells)))


def _side_by_side(key: str, row: "SiblingRow") -> str:
    """Message about a row of several values, none of which may be taken for the one."""
    values = "\n".join(f"  version {one.version}: {show.field(one.value)}" for one in row.siblings)
    return (
        f"row {key!r} has {len(row.siblings)} values side by side:\n{values}\nmerge them, and put the result with "
        f"--seen {row.version}; --json prints them whole"
    )


def _line(row: "Row", key_encoding: str, *, keys_only: bool, as_json: bool) -> bytes:
    if as_json:
        document = _document(row)
        if keys_only:
            del document["value"]
        if key_encoding == "base64url":
            document["key"] = options.key_text(row.key, key_encoding).decode()
        import orjson  # noqa: PLC0415 - as of `show`

        return orjson.dumps(document) + b"\n"
    key = options.key_text(row.key, key_encoding)
    if keys_only:
        return key + b"\n"
    return b"".join(key + b"\t" + one.value + b"\n" for one in row.siblings)


def _document(row: "Row") -> dict[str, object]:
    return {
        "key": show.field(row.key),
        **_values(row),
        "version": row.version,
        "partition": row.partition,
    }


def _values(row: "Row") -> dict[str, object]:
    from logstore.client.read.row import SiblingRow  # noqa: PLC0415 - help does without

    if isinstance(row, SiblingRow):
        return {"siblings": [{"version": one.version, "value": show.field(one.value)} for one in row.siblings]}
    return {"value": show.field(row.value)}


def _check_alone(seen: int | None) -> None:
    if seen is not None:
        raise UsageError("--if refuses the write when the row has changed, --seen keeps both values: give one of them")


def _value(value: str | None, path: Path | None) -> bytes:
    if (value is None) == (path is None):
        raise UsageError("give the value once: as VALUE, as - for standard input, or with --file")
    if path is not None:
        return options.read_file(path)
    return sys.stdin.buffer.read() if value == "-" else options.key_bytes(value or "", "text")


@contextmanager
def _writer(settings: Settings, level: WriteLevel | None) -> "Iterator[Store]":
    """A store to write one row to: nothing is worth waiting for in company."""
    from logstore.client.store import Store  # noqa: PLC0415 - help does without

    url = need_url(settings) if awaits_outcome(level) else None
    with Store(need_bootstrap(settings), url, linger_ms=0, delivery_timeout_s=DELIVERY_TIMEOUT_S) as store:
        yield store


def _check_no_level(level: WriteLevel | None) -> None:
    """Raise UsageError for a level of a write that the log decides: its outcome is known where it has been applied."""
    if level not in (None, "all"):
        raise UsageError("a write with --if is in all replicas and applied when its outcome is told: leave --level out")


def _written(table: str, position: Position, *, as_json: bool) -> int:
    if as_json:
        show.as_json(
            {"table": table, "partition": position.partition, "offset": position.offset, "token": position.token}
        )
    else:
        click.echo(f"partition {position.partition}, offset {position.offset}")
    return 0


def _write_file(path: Path, value: bytes) -> None:
    try:
        path.write_bytes(value)
    except OSError as error:
        raise LogStoreError(f"cannot write {path}: {error.strerror}") from error
