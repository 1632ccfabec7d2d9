"""Show: output of commands.

Results go to stdout, all else to stderr; tables are drawn for terminals, tab-separated elsewhere.
"""

import base64
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_TIMES = {"created_ms"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def as_json(document: Any) -> None:
    """Print one JSON document on a line."""
    import orjson  # noqa: PLC0415 - who prints none does without

    raw(orjson.dumps(document, default=str) + b"\n")


def raw(data: bytes) -> None:
    """Print bytes as they are."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def value(data: bytes) -> None:
    """Print a value as it is; at a terminal a line end follows, so that the prompt begins a line."""
    raw(data + b"\n" if sys.stdout.isatty() and not data.endswith(b"\n") else data)


def field(data: bytes) -> Any:
    """Bytes in a JSON document.

    A string when they are UTF-8, else {"base64": "..."}, padded (as the read API has it).
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def warn(text: str) -> None:
    """Say something that is not the result."""
    click.echo(f"logstore: {text}", err=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows as a table, drawn or tab-separated."""
    texts = [[_cell(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for line in [list(columns), *texts]:
            click.echo("\t".join(line))
        return
    from rich.console import Console  # noqa: PLC0415 - only where somebody looks
    from rich.table import Table  # noqa: PLC0415 - only who needs it waits for its import

    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for line in texts:
        drawn.add_row(*(cell.replace("[", "\\[") for cell in line))
    Console().print(drawn)


def fields(document: Mapping[str, Any]) -> None:
    """Print the fields of a document as a table of two columns; times are for people, as JSON they are milliseconds."""
    rows = [_as_time(key, value) if key in _TIMES else (key, value) for key, value in document.items()]
    table(("what", "value"), [(key, _plain(value)) for key, value in rows])


def _plain(value: Any) -> Any:
    """A field's value for people: what is empty is nothing, what has parts is JSON."""
    import orjson  # noqa: PLC0415 - who prints none does without

    if isinstance(value, (dict, list, tuple)):
        return orjson.dumps(value, default=str).decode() if value else None
    return value if isinstance(value, (int, str)) or value is None else str(value)


def _as_time(key: str, time_ms: int) -> tuple[str, str]:
    """A field of a time: its name without the unit, and RFC 3339 in UTC."""
    return key.removesuffix("_ms"), time_text(time_ms)


def time_text(time_ms: int) -> str:
    """A time for people: RFC 3339 in UTC; one that no calendar has, in milliseconds."""
    try:
        text = (_EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec="milliseconds")
    except OverflowError:
        return f"{time_ms} ms"
    return text.replace("+00:00", "Z")


def _cell(cell: Any) -> str:
    if cell is None or cell == "":
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
