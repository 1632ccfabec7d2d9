"""Cell lines: wide rows as `get` and `scan` print them, a line each cell, or an object each row."""

from collections.abc import Sequence
from typing import Any

import orjson

from logstore.cli import options, show
from logstore.client.wide.row import WideRow
from logstore.model.errors import UsageError
from logstore.model.hard_rows.changes.cell_differences import column_name
from logstore.model.wide.cell import WideCell
from logstore.model.wide.columns import Column
from logstore.model.wide.selection import read_columns


def named_columns(text: str) -> tuple[Column, ...]:
    """Columns that `--columns` names, in the form of the read API. Raises UsageError."""
    try:
        return read_columns(options.key_bytes(text, "text"))
    except UsageError as error:
        raise UsageError(f"--columns: {error}") from error


def cell_line(cell: WideCell) -> bytes:
    """A cell: column, tab, version, tab, value."""
    return b"%b\t%d\t%b\n" % (column_name(cell[:2]).encode(), cell.version, cell.value)


def row_lines(row: WideRow, key_encoding: str, *, as_json: bool) -> bytes:
    """A row of a scan: the lines of its cells, each behind the key, or an object on a line."""
    if as_json:
        return orjson.dumps(row_document(row, key_encoding)) + b"\n"
    key = options.key_text(row.key, key_encoding)
    return b"".join(key + b"\t" + cell_line(cell) for cell in row.cells)


def row_document(row: WideRow, key_encoding: str, numbers: Sequence[int] | None = None) -> dict[str, Any]:
    """A row as an object, as the read API has it. `numbers`: of its cells, in the place of their values."""
    key = show.field(row.key) if key_encoding != "base64url" else options.key_text(row.key, key_encoding).decode()
    cells = [cell_document(cell) for cell in row.cells]
    for cell, number in zip(cells, numbers or (), strict=False):
        cell["value"] = number
    return {"key": key, "cells": cells, "version": row.version, "partition": row.partition}


def cell_document(cell: WideCell) -> dict[str, Any]:
    """A cell as an object, as the read API has it."""
    return {
        "family": cell.family, "qualifier": show.field(cell.qualifier), "version": cell.version,
        "timestamp": cell.timestamp_ms, "value": show.field(cell.value),
    }  # fmt: skip
