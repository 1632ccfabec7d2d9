"""Peer changes: another node's page of the change feed of one partition, checked before anybody has an event of it."""

from typing import Literal, NamedTuple

from msgspec import DecodeError, Struct
from msgspec.msgpack import Decoder

from logstore.model.changes.before import DELETED, CellsBefore
from logstore.model.changes.row_body import BeforeBody, CellBody, SiblingBody
from logstore.model.changes.row_change import RowChange
from logstore.model.errors import BadToken
from logstore.model.folding.sibling import Ends, Sibling, Value, ends_of
from logstore.model.position import Position
from logstore.model.table import Table
from logstore.model.wide.cell import RowCells, WideCell
from logstore.serve.wire.problems import Problem


class _PeerEvent(Struct):
    event: Literal["put", "delete"]
    key: bytes
    version: int
    partition: int
    timestamp: int
    value: bytes | None = None
    siblings: list[SiblingBody] | None = None
    cells: list[CellBody] | None = None
    expires: int | None = None
    before: list[BeforeBody] | None = None
    before_reason: str | None = None


class _PeerChangesPage(Struct):
    events: list[_PeerEvent]
    next: str
    live: bool


_decode = Decoder(_PeerChangesPage).decode


class PeerChanges(NamedTuple):
    """Changes of a partition, and the offset behind them."""

    changes: list[RowChange]
    following: int


def read_changes(url: str, table: Table, partition: int, start: int, body: bytes) -> PeerChanges:
    """Changes from `start` on, of a page that was asked for them. Raises Problem for what is no answer to that."""
    page = _page(url, body)
    following = _position(url, page).get((table.epoch, partition), -1)
    changes = [_change(url, one) for one in page.events]
    versions = [start, *(change.version for change in changes), following]
    if any(one.partition != partition for one in page.events) or versions != sorted(versions):
        raise _wrong(url, "its events are not those of the partition and the offsets that were asked for")
    if changes and changes[-1].version >= following:
        raise _wrong(url, "its point is not behind its events")
    return PeerChanges(changes, following)


def read_now(url: str, table: Table, partitions: list[int], body: bytes) -> dict[int, int]:
    """Partition -> where the feed of another node stands, of a page that was asked for it. Raises Problem."""
    position = _position(url, _page(url, body))
    try:
        return {partition: position[table.epoch, partition] for partition in partitions}
    except KeyError as error:
        raise _wrong(url, "it does not say where each partition stands") from error


def _page(url: str, body: bytes) -> _PeerChangesPage:
    try:
        return _decode(body)
    except (DecodeError, UnicodeDecodeError) as error:
        raise _wrong(url, str(error)) from error


def _position(url: str, page: _PeerChangesPage) -> dict[tuple[str, int], int]:
    try:
        return dict(Position.parse(page.next).pieces)
    except BadToken as error:
        raise _wrong(url, str(error)) from error


def _change(url: str, one: _PeerEvent) -> RowChange:
    held, ends = _held(one)
    if (held is None) != (one.event == "delete") or not one.key:
        raise _wrong(url, f"its change of {one.key[:60]!r} is none")
    return RowChange(one.version, one.key, held, one.timestamp, ends=ends, before=_before(one))


def _before(one: _PeerEvent) -> CellsBefore | None:
    if one.before:
        return tuple(each.cell for each in one.before)
    return () if one.before_reason == DELETED else None


def _held(one: _PeerEvent) -> tuple[Value | RowCells | None, Ends]:
    if one.siblings:
        ends = ends_of(each.expires for each in one.siblings)
        return tuple(Sibling(each.version, each.value) for each in one.siblings), ends
    if one.cells:
        ends = ends_of(each.expires for each in one.cells)
        cells = [WideCell(each.family, each.qualifier, each.version, each.timestamp, each.value) for each in one.cells]
        return RowCells(tuple(cells), ends), ends
    return one.value, ends_of([one.expires])


def _wrong(url: str, why: str) -> Problem:
    return Problem("starting", f"{url} answers with what are no changes: {why[:200]}; try again", owner=url)
