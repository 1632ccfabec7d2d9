"""Peer page: the answer of another node to a part of a list, checked like a client's request before it is merged.

An announcement names the other node, and anybody who reaches Kafka can write one. So the answer is bounded while it
arrives, every field is of its kind, and what it was read from is the same table: the token names the epoch.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import msgpack

from logstore.model.errors import BadToken
from logstore.model.folding.sibling import Ends, Sibling, Siblings, ends_of
from logstore.model.hard_rows.rules import CELL_BYTES as ROW_CELL_BYTES
from logstore.model.position import Position
from logstore.model.table import MAX_ROW_BYTES, Table
from logstore.model.wide.cell import CELL_BYTES, RowCells, WideCell
from logstore.serve.read.encoding import EncodedRow, FoundKey, Held
from logstore.serve.read.page_merge import PagePart
from logstore.serve.read.parameters import cursor
from logstore.serve.read.parameters.scan_query import Query
from logstore.serve.settings import MAX_PAGE_BYTES
from logstore.serve.wire.problems import Problem

if TYPE_CHECKING:
    import httpx

_LEAST_SIBLINGS = 2
_CELL_FIELDS = ("family", "qualifier", "version", "timestamp", "value")
_FRAMING_BYTES = 4 << 20  # beside keys and values: names of fields, positions, the token, at most 1,000 rows


def most_bytes(table: Table, asked_bytes: int) -> int:
    """Bound of an answer's body: a page, one value that goes beyond it, the keys that were asked for."""
    row = (MAX_ROW_BYTES // ROW_CELL_BYTES) * CELL_BYTES if table.wide else table.max_value_bytes
    return MAX_PAGE_BYTES + row + asked_bytes + _FRAMING_BYTES


async def read_body(response: "httpx.Response", most: int) -> bytes:
    """The body as it arrives; raises Problem when there is more than `most` of it."""
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > most:
            raise _wrong(str(response.url), f"it has more than {most:,} bytes")
    return bytes(body)


class PeerPage:
    """Page of rows as another node answered it. Every method raises Problem where it is not what was asked for."""

    def __init__(self, url: str, table: Table, partitions: Collection[int], body: bytes) -> None:
        self._url, self._expiring = url, table.expiring
        try:
            page = msgpack.unpackb(body)
            self._page: dict[str, Any] = page if isinstance(page, dict) else {}
            self.positions = {int(p): offset for p, offset in self._page["positions"].items()}
            position = Position.parse(self._page["token"]) if self.positions else Position()
            token, self.time_ms = position.pieces, position.time_ms if table.expiring else 0
        except (ValueError, TypeError, LookupError, AttributeError, msgpack.UnpackException, BadToken) as error:
            raise _wrong(url, str(error)) from error
        if not self.positions.keys() <= set(partitions) or not all(map(_is_offset, self.positions.values())):
            raise _wrong(url, "its positions are not those of the partitions that were asked for")
        if any(token.get((table.epoch, p), -1) < offset for p, offset in self.positions.items()):
            raise Problem(
                "starting", f"{url} reads another {table.name!r} than this node: it was promoted over, or made "
                "again, and not every node knows yet; try again", table=table.name, owner=url,
            )  # fmt: skip

    def part(self, query: Query, partitions: Collection[int]) -> PagePart:
        """The part of a scan."""
        rows = [self._row(row, ends, query) for row, ends in self._with_ends("rows", with_ends=query.ends)]
        keys = [row.key for row in rows]
        if self.positions.keys() != set(partitions) or keys != sorted(set(keys), reverse=query.reverse):
            raise _wrong(self._url, "partitions are missing, or rows are out of order")
        following = self._page.get("cursor")
        if following is None:
            return PagePart(rows, None, self.positions, self.time_ms, rows[-1].key if rows else b"")
        if not isinstance(following, str):
            raise _wrong(self._url, "its cursor is none")
        return PagePart(rows, cursor.decode(following)[0], self.positions, self.time_ms)

    def keys(self, asked: Mapping[bytes, int]) -> dict[bytes, FoundKey]:
        """Results of a multi-get, of the keys that were asked for."""
        results = self._with_ends("results", with_ends=self._expiring)
        found = {row["key"]: self._found(row, ends, asked) for row, ends in results}
        left = {row["key"]: FoundKey(row["key"], asked[row["key"]], reason=row["reason"]) for row in self._left(asked)}
        if found.keys() | left.keys() != asked.keys():
            raise _wrong(self._url, "keys are missing")
        return {**found, **left}

    def _list(self, name: str) -> list[dict[str, Any]]:
        rows = self._page.get(name)
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and isinstance(row.get("key"), bytes) for row in rows
        ):
            raise _wrong(self._url, f"its {name} are none")
        return rows

    def _with_ends(self, name: str, *, with_ends: bool) -> list[tuple[dict[str, Any], Any]]:
        """Rows, and when what each of them holds ends, where that was asked for."""
        rows = self._list(name)
        ends = self._page.get("ends") if with_ends else [None] * len(rows)
        if not isinstance(ends, list) or len(ends) != len(rows):
            raise _wrong(self._url, "it does not tell when its rows end; nodes of one store are to run one build")
        return list(zip(rows, ends, strict=True))

    def _left(self, asked: Mapping[bytes, int]) -> list[dict[str, Any]]:
        rows = self._list("unprocessed")
        if not all(
            row["key"] in asked and isinstance(row.get("reason"), str) and len(row["reason"]) < 100 for row in rows
        ):
            raise _wrong(self._url, "its unprocessed keys are not those that were asked for")
        return rows

    def _held(self, row: dict[str, Any], ends: Any) -> tuple[Held | None, Ends]:
        """Content of a row, and when that ends."""
        held = self._value(row)
        if ends is None:
            return held, ()
        if not isinstance(ends, list) or len(ends) != _parts_of(held) or not all(map(_is_end, ends)):
            raise _wrong(self._url, f"the ends of row {row['key'][:60]!r} are none")
        given = ends_of(ends)
        return (RowCells(held.cells, given) if isinstance(held, RowCells) else held), given

    def _value(self, row: dict[str, Any]) -> Held | None:
        """The value of a row, or its siblings, or its cells; None where it has nothing."""
        value, found = row.get("value"), row.get("siblings")
        if "cells" in row:
            cells = _cells(row["cells"])
            if not cells:
                raise _wrong(self._url, f"the cells of row {row['key'][:60]!r} are none")
            return cells
        siblings = _siblings(found)
        if (found is not None and (value is not None or not siblings)) or not isinstance(value, bytes | None):
            raise _wrong(self._url, f"the value of row {row['key'][:60]!r} is none")
        return siblings or value

    def _row(self, row: dict[str, Any], given: Any, query: Query) -> EncodedRow:
        key, version, partition = row["key"], row.get("version"), row.get("partition")
        value, ends = self._held(row, given)
        inside = key >= query.start and (query.end is None or key < query.end)
        sound = (value is None) == query.keys_only and _is_offset(version)
        if version is None or not (inside and sound and _is_offset(partition) and partition in self.positions):
            raise _wrong(self._url, f"its row {key[:60]!r} is none of this scan")
        return EncodedRow(key, value, version, partition, ends)

    def _found(self, row: dict[str, Any], given: Any, asked: Mapping[bytes, int]) -> FoundKey:
        key, version = row["key"], row.get("version")
        value, ends = self._held(row, given)
        sound = version is None or _is_offset(version)
        if key not in asked or row.get("partition") != asked[key] or asked[key] not in self.positions or not sound:
            raise _wrong(self._url, f"its result {key[:60]!r} is none of this question")
        return FoundKey(key, asked[key], value, version, ends=ends)


def _parts_of(held: Held | None) -> int:
    """Number of what may end by itself in a row: its value, or the row whose key alone is known; siblings; cells."""
    if isinstance(held, RowCells):
        return len(held.cells)
    return len(held) if isinstance(held, tuple) else 1


def _siblings(found: object) -> Siblings:
    """Siblings of a row; none where they are not as they should be."""
    if not isinstance(found, list) or len(found) < _LEAST_SIBLINGS or not all(map(_is_sibling, found)):
        return ()
    return tuple(Sibling(one["version"], one["value"]) for one in found)


def _cells(found: object) -> RowCells:
    """Cells of a row; none where they are not as they should be."""
    if not isinstance(found, list) or not all(map(_is_cell, found)):
        return RowCells(())
    return RowCells(tuple(WideCell(*map(one.get, _CELL_FIELDS)) for one in found))


def _is_cell(one: object) -> bool:
    if not isinstance(one, dict) or not (_is_offset(one.get("version")) and _is_offset(one.get("timestamp"))):
        return False
    named = isinstance(one.get("family"), str) and isinstance(one.get("qualifier"), bytes)
    return named and isinstance(one.get("value"), bytes)


def _is_sibling(one: object) -> bool:
    return isinstance(one, dict) and _is_offset(one.get("version")) and isinstance(one.get("value"), bytes)


def _is_end(found: object) -> bool:
    return found is None or _is_offset(found)


def _is_offset(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0


def _wrong(url: str, why: str) -> Problem:
    return Problem("starting", f"{url} answers with what is no page of rows: {why[:200]}; try again", owner=url)
