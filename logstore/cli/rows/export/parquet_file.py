"""Parquet file: rows as columns with types, a row group at a time.

Keys and values alone are two columns of bytes. Columns of JSON objects get the type that all their values have, which
is known after the last row: rows wait for it in a temporary file on the disk.

    JSON                                      Parquet
    null alone, text                          string
    true, false                               bool
    whole numbers                             int64
    other numbers, with the digits of a double  double
    {"base64": "..."}, with text beside it    binary
"""

import tempfile
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import orjson
import pyarrow as pa
from pyarrow import parquet

from logstore import Row
from logstore.cli.rows.columns import KEY, VALUE
from logstore.cli.rows.export.objects import Objects, same_columns
from logstore.cli.rows.files import Number, parsed
from logstore.model.errors import UsageError

GROUP_ROWS, GROUP_BYTES = 20_000, 32 << 20
_TYPES = {"null": pa.string(), "text": pa.string(), "bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(),
          "bytes": pa.binary()}  # fmt: skip
_BOTH = frozenset({"text", "bytes"})


def write_pairs(rows: Iterable[Row], out: IO[bytes]) -> None:
    """Write keys and values as they are."""
    schema = pa.schema([(KEY, pa.binary()), (VALUE, pa.binary())])
    groups = _groups(((row.key, row.value) for row in rows), lambda pair: len(pair[0]) + len(pair[1]))
    _write(schema, ([list(column) for column in zip(*group, strict=True)] for group in groups), out)


def write_columns(rows: Iterable[Row], objects: Objects, out: IO[bytes]) -> None:
    """Write the columns of JSON objects. Raises UsageError for what Parquet cannot hold."""
    with tempfile.TemporaryFile() as waiting:
        kinds = _spool(rows, objects, waiting)
        waiting.seek(0)
        schema = pa.schema([(name, _TYPES[kind]) for name, kind in kinds.items()])
        lines = _groups((line for line in waiting), len)
        _write(schema, (_columns(group, kinds) for group in lines), out)


def _spool(rows: Iterable[Row], objects: Objects, waiting: IO[bytes]) -> dict[str, str]:
    """Put the values aside, a line each; returns the kind of each column."""
    kinds: dict[str, str] = {}
    for row in rows:
        place = objects.columns(row)
        kinds = kinds or dict.fromkeys(place.row, "null")
        same_columns(place, list(kinds))
        for name, value in place.row.items():
            kinds[name] = _kind(kinds[name], value, f"{place.where}, column {name}")
        waiting.write(row.value + b"\n")  # JSON as load writes it has no line end inside
    return kinds


def _kind(before: str, value: Any, where: str) -> str:
    kind = _kind_of(value, where)
    if "null" in (before, kind):
        return kind if before == "null" else before
    if before != kind and {before, kind} != _BOTH:
        raise UsageError(f"{where}: {kind} after {before}, a column of Parquet has one type; --format jsonl holds both")
    return "bytes" if "bytes" in (before, kind) else kind


def _kind_of(value: Any, where: str) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Number):
        return _number_kind(value.text, where)
    if isinstance(value, dict) and value.keys() == {"base64"} and _is_bytes(value["base64"]):
        return "bytes"
    raise UsageError(f"{where}: lists and objects are not written to Parquet; --format jsonl holds them")


def _number_kind(text: str, where: str) -> str:
    if not set(text) & set(".eE"):
        if str(int(text)) == text and -(1 << 63) <= int(text) < 1 << 63:
            return "int"
    elif orjson.dumps(float(text)) == text.encode():
        return "float"
    raise UsageError(f"{where}: the digits of {text[:60]} are more than Parquet's numbers keep; --format jsonl does")


def _is_bytes(text: Any) -> bool:
    """True for what `load` writes of bytes: base64 of what is no text."""
    try:
        data = b64decode(text, validate=True)
        data.decode()
    except UnicodeDecodeError:
        return bool(b64encode(data).decode() == text)
    except (TypeError, ValueError):
        pass
    return False


def _columns(lines: list[bytes], kinds: dict[str, str]) -> list[list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in kinds}
    for line in lines:
        for name, value in parsed(line.decode()).items():
            columns[name].append(_cell(value, kinds[name]))
    return list(columns.values())


def _cell(value: Any, kind: str) -> Any:
    if isinstance(value, Number):
        return int(value.text) if kind == "int" else float(value.text)
    if kind == "bytes" and value is not None:
        return value.encode() if isinstance(value, str) else b64decode(value["base64"])
    return value


def _groups(items: Iterable[Any], size_of: Callable[[Any], int]) -> Iterator[list[Any]]:
    """Items of a row group each: so many, or so many bytes."""
    group: list[Any] = []
    size = 0
    for item in items:
        group.append(item)
        size += size_of(item)
        if len(group) >= GROUP_ROWS or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _write(schema: pa.Schema, groups: Iterable[list[list[Any]]], out: IO[bytes]) -> None:
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for columns in groups:
            arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
