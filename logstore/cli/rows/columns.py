"""Columns and rows: how the columns of a file become the key and the value of a row, for `load` and `export` alike.

    with --key       key = the template, filled with columns; value = a JSON object of the columns, in their order
    without          the file has the columns `key` and `value`, and they are the row's, byte for byte

The second form holds every table. A text stands for its UTF-8 bytes, {"base64": "..."} for bytes that are none.
"""

import binascii
from base64 import b64decode
from collections.abc import Callable
from string import Formatter
from typing import Any

import orjson

from logstore.cli import show
from logstore.cli.rows.files import Number, Place, Row
from logstore.model.errors import BadKey, UsageError
from logstore.model.key import check_key

KEY, VALUE = "key", "value"
Pair = tuple[bytes, bytes]


def key_maker(template: str) -> Callable[[Place], bytes]:
    """Function that makes a row's key. Raises UsageError for a template that names no column, or more than columns."""
    try:
        parts = [*Formatter().parse(template)]
    except ValueError as error:
        raise UsageError(f"--key {template!r}: {error}") from error
    names = [name for _, name, _, _ in parts if name is not None]
    if not all(names) or not names or any(conversion or "{" in (spec or "") for _, _, spec, conversion in parts):
        raise UsageError(
            f"--key {template!r}: name at least one column in braces, such as '{{id}}', and nothing but columns"
        )

    def make(place: Place) -> bytes:
        row, where = place
        missing = [name for name in names if row.get(name) is None]
        if missing:
            there = "has no value" if missing[0] in row else f"is no column; there are {', '.join(row)}"
            raise UsageError(f"{where}: --key: {missing[0]!r} {there} (row {short(row)})")
        try:
            texts = [
                text + ("" if name is None else format(_key_part(row[name], name), spec or ""))
                for text, name, spec, _ in parts
            ]
            key = "".join(texts).encode()
        except (ValueError, TypeError) as error:
            guess = "; columns of CSV are text unless --guess-types" if "format code" in str(error) else ""
            raise UsageError(f"{where}: --key {template!r}: {error} (row {short(row)}){guess}") from error
        return _checked(key, where)

    return make


def value_maker(columns: list[str] | None) -> Callable[[Place], bytes]:
    """Function that makes a row's value: the JSON object of these columns, or of all."""

    def make(place: Place) -> bytes:
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
            raise UsageError(f"{where}: JSON cannot hold it: {error} (row {short(row)})") from error

    return make


def as_it_is(place: Place) -> Pair:
    """Key and value of a row that stand in the file as such. Raises UsageError for a file of other columns."""
    row, where = place
    if row.keys() != {KEY, VALUE}:
        first = next(iter(row), "id")
        raise UsageError(
            f"{where}: the columns are {', '.join(row)[:200]}: say with --key how the key is made of them, such as "
            f"--key '{{{first}}}'; without it a file has the columns key and value, as `logstore export` writes them"
        )
    return _checked(_bytes(row[KEY], KEY, where), where), _bytes(row[VALUE], VALUE, where)


def short(row: Row) -> str:
    """A row in a message."""
    text = str(row)
    return text if len(text) <= 200 else text[:200] + " ..."


def _checked(key: bytes, where: str) -> bytes:
    try:
        check_key(key)
    except BadKey as error:
        raise UsageError(f"{where}: {error}") from error
    return key


def _bytes(value: Any, name: str, where: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{where}, column {name}: {error}") from error
    if isinstance(value, dict) and value.keys() == {"base64"} and isinstance(value["base64"], str):
        try:
            return b64decode(value["base64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise UsageError(f"{where}, column {name}: not base64: {error}") from error
    raise UsageError(f'{where}, column {name}: wants a text or {{"base64": "..."}}, not {str(value)[:80]}')


def _key_part(value: Any, name: str) -> Any:
    """Text of one key column, as the file has it."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"the bytes of column {name!r} are no UTF-8: {value[:40]!r}") from error
    return str(value).lower() if isinstance(value, bool) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Number):
        return orjson.Fragment(value.text)
    return show.field(value) if isinstance(value, bytes) else str(value)
