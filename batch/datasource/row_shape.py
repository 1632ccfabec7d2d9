"""Row shape: how a reading gives the rows of a state: of one value each, or the cells of rows that hold several.

    shape     a line of the frame               columns
    (none)    a row of one value                key, value, version, timestamp, partition
    cells     a value of a cell, or a sibling   key, family, qualifier, version, timestamp, value, partition
    rows      a row                             key, version, timestamp, partition, families:
                                                family -> [(qualifier, version, timestamp, value)...]

Values of a cell come newest first, as many as `versions` says, siblings oldest first; a row of one value is a cell of
the family and qualifier "".
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from logstore.model.errors import UsageError
from logstore.model.folding.entry import Entry
from logstore.model.hard_rows.packed import unpack_row
from logstore.model.hard_rows.row import CellState

BATCH_ROWS, BATCH_BYTES = 10_000, 16 << 20
TIME = pa.timestamp("us", tz="UTC")
SHAPES = ("cells", "rows")
OPTIONS = ("shape", "versions", "families")
ALL_VERSIONS = 1 << 31
ROWS = pa.schema(
    [("key", pa.binary()), ("value", pa.binary()), ("version", pa.int64()), ("timestamp", TIME),
     ("partition", pa.int32())]
)  # fmt: skip
_CELLS = pa.schema(
    [("key", pa.binary()), ("family", pa.string()), ("qualifier", pa.binary()), ("version", pa.int64()),
     ("timestamp", TIME), ("value", pa.binary()), ("partition", pa.int32())]
)  # fmt: skip
_VALUE = pa.struct([("qualifier", pa.binary()), ("version", pa.int64()), ("timestamp", TIME), ("value", pa.binary())])
_VALUE_FIELDS = [field.name for field in _VALUE]
_FAMILIES = pa.schema(
    [("key", pa.binary()), ("version", pa.int64()), ("timestamp", TIME), ("partition", pa.int32()),
     ("families", pa.map_(pa.string(), pa.list_(_VALUE)))]
)  # fmt: skip
_DDL = {
    None: "key binary, value binary, version bigint, timestamp timestamp, partition int",
    "cells": "key binary, family string, qualifier binary, version bigint, timestamp timestamp, value binary, "
    "partition int",
    "rows": "key binary, version bigint, timestamp timestamp, partition int, families map<string, array<struct<"
    "qualifier: binary, version: bigint, timestamp: timestamp, value: binary>>>",
}
_ARROW = {None: ROWS, "cells": _CELLS, "rows": _FAMILIES}


Line = tuple[Any, ...]


class RowShape(NamedTuple):
    """RowShape of the lines, as the options say it."""

    kind: str | None = None  # None: rows of one value
    versions: int = 1  # of each cell, the newest ones
    families: frozenset[str] | None = None  # those that are wanted; None: all

    @property
    def ddl(self) -> str:
        """The columns, as Spark writes them."""
        return _DDL[self.kind]

    @property
    def schema(self) -> pa.Schema:
        """The columns, as Arrow has them."""
        return _ARROW[self.kind]

    def batches(self, partition: int, entries: Iterable[tuple[bytes, bytes]]) -> Iterator[pa.RecordBatch]:
        """The lines of (key, encoded entry) in bounded batches. Raises Corrupted."""
        held: list[Line] = []
        size = 0
        for key, raw in entries:
            held += self._lines(partition, key, Entry.decode(raw))
            size += len(key) + len(raw)
            if len(held) >= BATCH_ROWS or size >= BATCH_BYTES:
                yield from _bounded(held, self.schema)
                held, size = [], 0
        yield from _bounded(held, self.schema)

    def _lines(self, partition: int, key: bytes, entry: Entry) -> list[Line]:
        time_us = entry.timestamp_ms * 1_000
        if self.kind is None:
            return [(key, entry.payload, entry.version, time_us, partition)]
        cells = [
            (family, qualifier, one.version, one.timestamp_ms * 1_000, one.payload)
            for (family, qualifier), cell in sorted(unpack_row(entry).cells.items())
            if self.families is None or family in self.families
            for one in self._values(cell)
        ]
        if self.kind == "cells":
            return [(key, *cell, partition) for cell in cells]
        families: dict[str, list[dict[str, Any]]] = {}
        for family, *value in cells:
            families.setdefault(family, []).append(dict(zip(_VALUE_FIELDS, value, strict=True)))
        return [(key, entry.version, time_us, partition, list(families.items()))] if families else []

    def _values(self, cell: CellState) -> Iterable[Entry]:
        return (*cell.members, *cell.older[: self.versions - 1])


def shape_of(options: Mapping[str, str], kind: str) -> RowShape:
    """The shape that the options of a reading of this kind say. Raises UsageError."""
    named = [name for name in OPTIONS if name in options]
    if not named:
        return RowShape()
    if kind == "changes":
        raise UsageError(f"{named[0]} goes with snapshot and as_of: changes are records, of whatever they say")
    if options.get("shape") not in SHAPES:
        raise UsageError(f'{named[0]} goes with .option("shape", "cells"), a line a value, or "rows", a line a row')
    families = options.get("families")
    wanted = None if families is None else frozenset(families.split(","))
    return RowShape(options["shape"], _versions(options.get("versions", "1")), wanted)


def _versions(text: str) -> int:
    if text == "all":
        return ALL_VERSIONS
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < ALL_VERSIONS):
        raise UsageError(f"versions is 1 or more, or all, not {text[:80]!r}")
    return int(text)


def _bounded(lines: list[Line], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(lines), BATCH_ROWS):
        columns = zip(*lines[start : start + BATCH_ROWS], strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
