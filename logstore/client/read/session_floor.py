"""SessionFloor: what a session has seen of one table, which every read of it sees at least."""

from threading import Lock

from logstore.model.position import Position


class SessionFloor:
    """A position that rises with every answer and every write. Thread-safe."""

    __slots__ = ("_lock", "_position", "_token")

    def __init__(self, position: Position) -> None:
        self._lock, self._position, self._token = Lock(), position, position.token

    @property
    def token(self) -> str:
        """The position as text; empty before anything was seen."""
        return self._token

    @property
    def position(self) -> Position:
        """The position itself."""
        return self._position

    def rise(self, seen: Position | str) -> None:
        """Cover what an answer's token, or a write's position, says. Raises BadToken."""
        if seen == self._token:
            return
        with self._lock:
            self._position |= Position.parse(seen) if isinstance(seen, str) else seen
            self._token = self._position.token

    def fall(self) -> None:
        """Forget what was seen: the table has another log now."""
        with self._lock:
            self._position, self._token = Position(), ""
