"""Levels of embedded reads: what the caller asks for, as readers of a node judge it."""

from logstore.client.read.level import LevelBound
from logstore.client.read.point import After, AsOfBound
from logstore.client.read.session_floor import SessionFloor
from logstore.model.position import Position
from logstore.serve.read.as_of import read_as_of
from logstore.serve.read.consistency import EVENTUAL, SESSION, Consistency
from logstore.serve.read.merged_read import Floor
from logstore.serve.state.broker_clock import BrokerClock, now_ms
from logstore.view.feed.log_records import clock_ns


def consistency_of(bound: After, deadline_ms: int) -> Consistency:
    """Consistency of a read that begins now. Raises BadToken, UsageError, Problem for a time to come."""
    if isinstance(bound, AsOfBound):
        return Consistency(deadline_ms=deadline_ms, as_of=read_as_of(bound.text))
    if isinstance(bound, LevelBound):
        token = Position.parse(bound.token) if bound.token else Position()
        since_ns = clock_ns() - (bound.max_lag_ms or 0) * 1_000_000
        return Consistency(bound.level, token, deadline_ms, None, since_ns, bound.max_lag_ms, now_ms())
    token = _position(bound)
    name = SESSION if token else EVENTUAL
    return Consistency(name, token, deadline_ms, clock_ms=now_ms())


def _position(bound: Position | str | SessionFloor | None) -> Position:
    if isinstance(bound, SessionFloor):
        return bound.position
    return Position.parse(bound) if isinstance(bound, str) else bound or Position()


def floor_of(level: Consistency, epoch: str, clock: BrokerClock) -> Floor | None:
    """Floor of a reading of a table's partitions, where nothing else has to be waited for; None where it has.

    Raises Problem for a token of a clock that is wrong.
    """
    if level.as_of is not None or level.point is not None:
        return None
    pieces = level.floor.pieces
    if any(piece_epoch != epoch for piece_epoch, _ in pieces):
        return None
    return Floor({partition: following for (_, partition), following in pieces.items()}, level.instant_ms(clock))
