"""Text files: rows as CSV (RFC 4180, line ends of Unix) and as JSON lines, one row at a time."""

import csv
import io
from collections.abc import Iterable, Iterator

import orjson

from logstore import Row, WideRow
from logstore.cli import show
from logstore.cli.rows.columns import KEY, VALUE
from logstore.cli.rows.export.objects import Objects, field, same_columns
from logstore.model.errors import UsageError

_QUOTED = ("\r", "\ufeff")  # what Python's writer would leave bare, and a reader take for a line end or a mark


def csv_lines(rows: Iterable[Row], objects: Objects | None, *, delimiter: str, guess_types: bool) -> Iterator[bytes]:
    """Lines of a CSV file, the first with the names of the columns. Raises UsageError for what CSV cannot hold."""
    line = _Lines(delimiter)
    if objects is None:
        yield line.of([KEY, VALUE])
        for row in rows:
            yield line.of([_text(row, row.key, KEY), _text(row, row.value, VALUE)])
        return
    names: list[str] | None = None
    for place in map(objects.columns, rows):
        if names is None:
            names = list(place.row)
            yield line.of([_storable(name, name, place.where) for name in names])
        same_columns(place, names)
        fields = [field(value, name, place.where, guess_types=guess_types) for name, value in place.row.items()]
        yield line.of([_storable(text, name, place.where) for name, text in zip(names, fields, strict=True)])


def json_lines(rows: Iterable[Row], objects: Objects | None) -> Iterator[bytes]:
    """Lines of JSON: the values themselves, or objects of `key` and `value`."""
    for row in rows:
        if objects is None:
            yield orjson.dumps(
                {KEY: show.field(row.key), VALUE: show.field(row.value)}, option=orjson.OPT_APPEND_NEWLINE
            )
        else:
            objects.columns(row)
            yield row.value + b"\n"


def cell_lines(rows: Iterable[WideRow]) -> Iterator[bytes]:
    """Lines of JSON, one for each version of a cell of wide rows, newest first."""
    for row in rows:
        for cell in row.cells:
            line = {
                KEY: show.field(row.key), "family": cell.family, "qualifier": show.field(cell.qualifier),
                "version": cell.version, "timestamp": cell.timestamp_ms, VALUE: show.field(cell.value),
            }  # fmt: skip
            yield orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


class _Lines:
    """A writer of CSV that hands each line out."""

    def __init__(self, delimiter: str) -> None:
        self._buffer = io.StringIO(newline="")
        self._plain = csv.writer(self._buffer, delimiter=delimiter, lineterminator="\n")
        self._quoting = csv.writer(self._buffer, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def of(self, fields: list[str]) -> bytes:
        quote = any(mark in text for text in fields for mark in _QUOTED)
        (self._quoting if quote else self._plain).writerow(fields)
        line = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return line.encode()


def _text(row: Row, data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"row {row.key!r}, {name}: the bytes {error.object[error.start : error.end]!r} are no UTF-8, and CSV holds "
            "text: --format jsonl writes them in base64, --format parquet as they are"
        ) from error


def _storable(text: str, name: str, where: str) -> str:
    """The text; UTF-8 has no bytes for half of a pair, which JSON can name."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{where}, column {name!r}: UTF-8 cannot hold {text[:40]!r}; leave --key out") from error
    return text
