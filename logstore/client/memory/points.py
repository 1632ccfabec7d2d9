"""Points: how far into its partitions a read looks, by what it asks for. Nothing is ever waited for."""

from collections.abc import Callable, Mapping

from logstore.client.memory.partition import MemoryPartition
from logstore.client.read.level import LevelBound
from logstore.client.read.point import After, AsOfBound
from logstore.client.read.session_floor import SessionFloor
from logstore.model.errors import BadToken, ConsistencyTimeout, UsageError
from logstore.model.point_in_time import read_moment
from logstore.model.position import Position
from logstore.model.table import Table


def points_of(parts: list[MemoryPartition], bound: After, clock_ms: Callable[[], int]) -> dict[int, int]:
    """By partition, the offset before which a reading looks. Raises ConsistencyTimeout, BadToken, UsageError."""
    if isinstance(bound, AsOfBound):
        moment = read_moment(bound.text)
        if isinstance(moment, int):
            if moment > clock_ms():
                raise UsageError(f"as_of {bound.text} is still to come; leave as_of away to read what holds now")
            return {part.number: part.offset_at(moment) for part in parts}
        points = {part.number: _named(moment, part) for part in parts}
    else:
        points = {part.number: part.next_offset for part in parts}
        moment = floor_of(bound)
    for part in parts:
        asked = moment.pieces.get((part.table.epoch, part.number), 0)
        if asked > part.next_offset:
            raise ConsistencyTimeout(
                f"partition {part.number} of table {part.table.name} is {asked - part.next_offset:,} records short "
                "of the token"
            )
    return points


def instant_of(bound: After, clock_ms: Callable[[], int]) -> int:
    """The instant at which rows are seen: the clock's, or the time that was asked for."""
    if not isinstance(bound, AsOfBound):
        return clock_ms()
    moment = read_moment(bound.text)
    return moment if isinstance(moment, int) else 0


def floor_of(bound: Position | str | LevelBound | SessionFloor | None) -> Position:
    """Position that must have been written; every level is met by that, for what is written is read at once."""
    if isinstance(bound, LevelBound):
        bound = bound.floor or bound.token or None
    if isinstance(bound, SessionFloor):
        return bound.position
    return Position.parse(bound) if isinstance(bound, str) else bound or Position()


def token_of(table: Table, points: Mapping[int, int]) -> str:
    """Token of a read that saw so much of a table."""
    return Position({(table.epoch, number): offset for number, offset in points.items()}).token


def _named(position: Position, part: MemoryPartition) -> int:
    offset = position.pieces.get((part.table.epoch, part.number))
    if offset is None:
        raise BadToken(f"as_of names no position of partition {part.number}, which is read; it must name all")
    return offset
