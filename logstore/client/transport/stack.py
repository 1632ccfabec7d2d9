"""Stack: which connections to one node are idle, how many there may be, and who waits for one. Does no I/O."""

from collections import deque
from typing import Generic, TypeVar

MAX_CONNECTIONS = 100  # to one node, of one client
MAX_AHEAD = 8  # of them, out for an answer that nobody waits for yet
IDLE_S = 60.0  # after which a connection that nobody needed is closed

C = TypeVar("C")
W = TypeVar("W")


class ConnectionStack(Generic[C, W]):
    """A stack of idle connections (C), and a queue of those who wait (W), first come first served."""

    __slots__ = ("_idle", "_lost", "_most", "_open", "ahead", "waiting")

    def __init__(self, most: int = MAX_CONNECTIONS) -> None:
        self._idle: deque[tuple[C, float]] = deque()  # and since when, in monotonic seconds; the newest is last
        self._open, self._most, self.ahead = 0, most, 0
        self._lost: deque[None] = deque()  # of those ahead: closed, and not yet counted as such
        self.waiting: deque[W] = deque()

    def take(self) -> C | None:
        """The connection that was used last, or None."""
        return self._idle.pop()[0] if self._idle else None

    def may_open(self) -> bool:
        """True when there is room for another connection; it is taken by that."""
        self._settle()
        if self._open >= self._most:
            return False
        self._open += 1
        return True

    def take_ahead(self) -> C | None:
        """An idle connection for a request whose answer nobody waits for yet; `ahead` counts it.

        None when those who wait need them all, or too many are out already.
        """
        self._settle()
        if self.waiting or not self._idle or self.ahead >= MAX_AHEAD:
            return None
        self.ahead += 1
        return self._idle.pop()[0]

    def lose(self) -> None:
        """Let go of a connection that was ahead and is closed. Needs no lock: a generator may be collected anywhere."""
        self._lost.append(None)

    def _settle(self) -> None:
        while self._lost:
            self._lost.pop()
            self._open, self.ahead = self._open - 1, self.ahead - 1

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
