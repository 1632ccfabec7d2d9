"""Floors of a session: what it has seen, table by table; a read of one needs nothing of what others hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from logstore.client.checks import check_table
from logstore.client.read.session_floor import SessionFloor
from logstore.model.errors import EpochChanged, UsageError
from logstore.model.position import Position


class SessionFloors:
    """Floors of a session's tables. Thread-safe."""

    def __init__(self, token: Position | str | None) -> None:
        """`token`: of an earlier session, or of a write. Raises BadToken, UsageError."""
        self._lock, self._floors = Lock(), dict[str, SessionFloor]()
        self._start = Position() if token is None else _position(token)

    def floor(self, table: str) -> SessionFloor:
        """The floor of a table's reads."""
        check_table(table)
        with self._lock:
            found = self._floors.get(table)
            if found is None:
                found = self._floors[table] = SessionFloor(self._start)
            return found

    def saw(self, seen: Position | str) -> None:
        """Cover a position of whatever tables. Raises BadToken, UsageError."""
        position = _position(seen)
        with self._lock:
            self._start |= position
            for floor in self._floors.values():
                floor.rise(position)

    @property
    def position(self) -> Position:
        """Position of everything that was seen."""
        with self._lock:
            return self._start.merge([floor.position for floor in self._floors.values()])

    @contextmanager
    def reading(self, table: str) -> Iterator[SessionFloor]:
        """The floor of a read; a table that turns out to have another log by now is begun anew."""
        floor = self.floor(table)
        try:
            yield floor
        except EpochChanged:
            floor.fall()
            raise


def _position(seen: Position | str) -> Position:
    if isinstance(seen, Position):
        return seen
    if not isinstance(seen, str):
        raise UsageError(f"a session has seen a position or a token, not {type(seen).__name__}")
    return Position.parse(seen) if seen else Position()
