"""SessionState: what sessions of both clients have in common: what they have seen, and how it is handed on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from logstore.client.conditional.outcome import Outcome
from logstore.client.read.level import Level
from logstore.client.read.session_floor import SessionFloor
from logstore.client.session.floors import SessionFloors
from logstore.model.errors import Unknown
from logstore.model.position import Position


class SessionState:
    """A session's store, and the floors of its tables."""

    _store: Any  # each client's own

    def __init__(self, store: Any, token: Position | str | None = None) -> None:
        """`token`: where an earlier session had come to. Raises BadToken."""
        self._store, self._tables = store, SessionFloors(token)

    def saw(self, seen: Position | str) -> None:
        """Take in a position or token: of a pipeline's write, of another session. Raises BadToken, UsageError."""
        self._tables.saw(seen)

    @property
    def position(self) -> Position:
        """Position of everything that this session has written and read."""
        return self._tables.position

    @property
    def token(self) -> str:
        """The position as text, for a session that goes on elsewhere; empty before anything was seen."""
        return self.position.token

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r}, token={self.token!r:.80})"

    def _wrote(self, table: str, position: Position) -> Position:
        self._tables.floor(table).rise(position)
        return position

    @contextmanager
    def _deciding(self, table: str) -> Iterator[Callable[[Outcome], Outcome]]:
        """A conditional write, also one of which only its place in the log is known: what reads see from then on."""

        def decided(outcome: Outcome) -> Outcome:
            self._wrote(table, outcome.position)
            return outcome

        try:
            yield decided
        except Unknown as error:
            if isinstance(error.position, Position):
                self._wrote(table, error.position)
            raise


def bound(floor: SessionFloor) -> Any:
    """The floor as a bound of a read: a store takes it for a position, and has it rise with the answer."""
    return floor


def level(consistency: Level | None, max_lag_ms: int | None, deadline_ms: int) -> dict[str, Any]:
    """Options of a read besides its bound."""
    return {"consistency": consistency, "max_lag_ms": max_lag_ms, "deadline_ms": deadline_ms}
