"""Stack: which connections to one node are idle, how many there may be, and who waits for one. Does no I/O."""

from collections import deque
from typing import Generic, TypeVar

MAX_CONNECTIONS = 100  # to one node, of one client
IDLE_S = 60.0  # after which a connection that nobody needed is closed

C = TypeVar("C")
W = TypeVar("W")


class ConnectionStack(Generic[C, W]):
    """A stack of idle connections (C), and a queue of those who wait (W), first come first served."""

    __slots__ = ("_idle", "_most", "_open", "waiting")

    def __init__(self, most: int = MAX_CONNECTIONS) -> None:
        self._idle: deque[tuple[C, float]] = deque()  # and since when, in monotonic seconds; the newest is last
        self._open, self._most = 0, most
        self.waiting: deque[W] = deque()

    def take(self) -> C | None:
        """The connection that was used last, or None."""
        return self._idle.pop()[0] if self._idle else None

    def may_open(self) -> bool:
        """True when there is room for another connection; it is taken by that."""
        if self._open >= self._most:
            return False
        self._open += 1
        return True

    def give_back(self, connection: C | None, now: float) -> W | None:
        """Let go of a connection (None: it is closed). Returns who has it now, or may open another one instead."""
        if self.waiting:
            return self.waiting.popleft()
        if connection is None:
            self._open -= 1
        else:
            self._idle.append((connection, now))
        return None

    def overdue(self, now: float) -> C | None:
        """A connection that nobody needed for a minute, to be closed; it is forgotten here."""
        if self._idle and self._idle[0][1] < now - IDLE_S:
            self._open -= 1
            return self._idle.popleft()[0]
        return None

    def drain(self) -> list[C]:
        """All idle connections, to be closed; they are forgotten here."""
        idle, self._idle = [connection for connection, _ in self._idle], deque()
        self._open -= len(idle)
        return idle
