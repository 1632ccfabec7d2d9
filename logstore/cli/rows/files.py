"""Files of rows: CSV, JSON lines and Parquet, read as they are.

Nothing is changed unasked. What a row cannot hold is an error that names file, line and column before the row is
written.

    CSV        columns are text; an empty field is null
    JSON lines numbers keep their digits
    Parquet    what JSON has no form for is text: times in ISO 8601, decimals with their digits
"""

import csv
import gzip
import io
import json
import math
import re
import sys
import zlib
from codecs import getincrementaldecoder
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import unquote

from logstore.model.errors import UsageError

FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
COMPRESSED = (".gz", ".zst")
_FIELD_BYTES = 64 << 20
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)

Row = dict[str, Any]


class How(NamedTuple):
    """The way a file is to be read, as the caller chose."""

    kind: str
    encoding: str = "utf-8-sig"
    delimiter: str = ","
    null: str = ""  # the text that stands for null
    guess_types: bool = False
    empty_is_null: bool = True  # an empty field of CSV


class Number:
    """A JSON number with the digits it was written with."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __format__(self, spec: str) -> str:
        return format(float(self.text) if set(self.text) & set(".eE") else int(self.text), spec) if spec else self.text

    def __repr__(self) -> str:
        return self.text


class Place(NamedTuple):
    """A row and where it stands."""

    row: Row
    where: str


def kind_of(path: Path) -> str | None:
    """The format that a name says; None when it says none."""
    names = [suffix.lower() for suffix in path.suffixes]
    if names and names[-1] in COMPRESSED:
        names.pop()
    return "parquet" if path.is_dir() else FORMATS.get(names[-1]) if names else None


def rows(path: Path | None, how: How) -> Iterator[Place]:
    """The rows of a file, or of a folder of Parquet files; None is stdin. Raises UsageError."""
    if how.kind == "parquet":
        yield from _parquet(path, how)
        return
    name = str(path) if path is not None else "stdin"
    with _opened(path) as raw:
        text = io.TextIOWrapper(raw, encoding=how.encoding, newline="")
        try:
            yield from (_csv if how.kind == "csv" else _jsonl)(text, name, how)
        except UnicodeDecodeError as error:
            raise UsageError(_undecodable(path, name, how.encoding, error)) from error
        except (OSError, EOFError, zlib.error) as error:
            raise UsageError(f"{name}: cannot be read: {error}; is it whole?") from error


def _opened(path: Path | None) -> BinaryIO:
    if path is None:
        return sys.stdin.buffer
    if path.suffix.lower() == ".gz":
        return gzip.open(path)  # type: ignore[return-value]  # it reads bytes
    if path.suffix.lower() == ".zst":
        import pyarrow as pa  # noqa: PLC0415 - heavy, and for such a file only

        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    return path.open("rb")


def _csv(text: io.TextIOWrapper, name: str, how: How) -> Iterator[Place]:
    csv.field_size_limit(_FIELD_BYTES)
    reader = csv.reader(text, delimiter=how.delimiter, strict=True)
    value = guessed if how.guess_types else str
    nulls = ("", how.null) if how.empty_is_null else ()
    after = 0  # the last line of the row before
    try:
        header = next(reader, None)
        if not header:
            raise UsageError(f"{name} has no line with the names of its columns")
        if twice := sorted({column for column in header if header.count(column) > 1}):
            raise UsageError(f"{name}, line 1: the column {twice[0]!r} is there twice")
        after = reader.line_num
        for fields in reader:
            where, after = f"{name}, line {after + 1}", reader.line_num
            if not fields:
                continue
            if len(fields) != len(header):
                raise UsageError(f"{where}: {len(fields)} fields, the first line names {len(header)} columns")
            yield Place(
                {
                    column: None if field in nulls else value(field)
                    for column, field in zip(header, fields, strict=True)
                },
                where,
            )
    except csv.Error as error:
        raise UsageError(
            f"{name}, line {reader.line_num}: cannot be read as CSV: {error}; the row begins at line {after + 1}: is a "
            "quote not closed?"
        ) from error


def guessed(field: str) -> Any:
    """A number or truth value where the text is one of JSON's as it stands; else the text. `007` is no number there."""
    if _NUMBER.fullmatch(field) is not None:
        return Number(field)
    return {"true": True, "false": False}.get(field, field)


def _jsonl(text: io.TextIOWrapper, name: str, how: How) -> Iterator[Place]:
    for number, line in enumerate(text, 1):
        where = f"{name}, line {number}"
        if not line.strip():
            continue
        try:
            row = parsed(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{where}, column {error.colno}: is not JSON: {error.msg}") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{where}: {error}") from error
        if not isinstance(row, dict):
            raise UsageError(f"{where} is no JSON object")
        if how.null:
            row = {column: None if value == how.null else value for column, value in row.items()}
        yield Place(row, where)


def parsed(text: str) -> Any:
    """JSON whose numbers keep their digits. Raises ValueError (JSONDecodeError), RecursionError."""
    return json.loads(
        text, parse_int=Number, parse_float=Number, parse_constant=_no_constant, object_pairs_hook=_object
    )


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> Row:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise ValueError(f"the name {twice!r} is there twice")
    return found


def _parquet(path: Path | None, how: How) -> Iterator[Place]:
    if path is None:
        raise UsageError("Parquet is read from a file, not from stdin: its table of contents stands at the end")
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"there is no .parquet file in {path}")
    for file in files:
        partition = _partition(file.relative_to(path).parent if path.is_dir() else Path())
        yield from _parquet_file(file, partition, how)


def _partition(folder: Path) -> Row:
    """The columns that folders stand for: NAME=VALUE, as Hive and Spark write them. Their values are text."""
    pairs = (part.partition("=") for part in folder.parts)
    return {
        unquote(name): None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
        for name, is_pair, value in pairs
        if is_pair
    }


def _parquet_file(file: Path, partition: Row, how: How) -> Iterator[Place]:
    import pyarrow as pa  # noqa: PLC0415 - heavy, and for this format only
    from pyarrow import parquet  # noqa: PLC0415 - only who needs it waits for its import

    number = 0
    try:
        for batch in parquet.ParquetFile(file).iter_batches(1_000, use_threads=False):
            columns = {
                name: _plain_column(batch.column(i))
                for i, name in enumerate(batch.schema.names)
                if name not in partition
            }
            for values in zip(*columns.values(), strict=True) if columns else ((),) * batch.num_rows:
                number += 1
                where = f"{file}, row {number}"
                row = {name: _finite(value, name, where, how) for name, value in zip(columns, values, strict=True)}
                yield Place(row | partition, where)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{file}, near row {number + 1}: cannot be read as Parquet: {error}; is it whole?") from error


def _plain_column(column: Any) -> list[Any]:
    """The values of a column. Nanoseconds, which Python's times have not, are text in ISO 8601."""
    import pyarrow as pa  # noqa: PLC0415 - only who needs it waits for its import
    from pyarrow import compute  # noqa: PLC0415 - only who needs it waits for its import

    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        text = compute.replace_substring(column.cast(pa.string()), " ", "T", max_replacements=1)
        return list(text.to_pylist())
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return list(column.cast(pa.string()).to_pylist())
    if pa.types.is_duration(kind):
        return [None if value is None else f"{value} {kind.unit}" for value in column.cast(pa.int64()).to_pylist()]
    return list(column.to_pylist())


def _finite(value: Any, name: str, where: str, how: How) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        if str(value) == how.null.lower():
            return None
        raise UsageError(f"{where}, column {name}: JSON has no {value}; --null {value} makes it null")
    return None if how.null and value == how.null else value


def _undecodable(path: Path | None, name: str, encoding: str, error: UnicodeDecodeError) -> str:
    """The message for bytes that are no text; finds their line and column, which the decoder does not know."""
    where = _find(path, encoding) if path is not None else ""
    hint = "say what it is: --encoding latin-1, cp1252, utf-16 ..."
    wrong, said = error.object[error.start : error.end], encoding.removesuffix("-sig")
    return f"{name}{where}: the bytes {wrong!r} are no {said}; {hint}"


def _find(path: Path, encoding: str) -> str:
    decoder = getincrementaldecoder(encoding)()
    line, column = 1, 1
    with _opened(path) as file:
        while chunk := file.read(1 << 16):
            try:
                text = decoder.decode(chunk)
            except UnicodeDecodeError as error:
                text = error.object[: error.start].decode(encoding, "replace")
                line, column = _moved(line, column, text)
                return f", line {line}, column {column}"
            line, column = _moved(line, column, text)
    return ""


def _moved(line: int, column: int, text: str) -> tuple[int, int]:
    ends = text.count("\n")
    return line + ends, len(text) - text.rfind("\n") if ends else column + len(text)
