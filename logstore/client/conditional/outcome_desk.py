"""OutcomeDesk: asks readers what became of writes that are in the log, of many at once.

Of one partition one request is under way at most, and whatever is acknowledged meanwhile is asked for by the next
(group commit: DeWitt et al. 1984). Who finds nobody asking may ask by itself (`lead`); for all others a few threads
ask, which end when nothing is left to do.
"""

import heapq
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from time import monotonic
from typing import Any, NamedTuple, Protocol

from logstore.client.conditional.outcome import Outcome
from logstore.client.lazily import CLOSED
from logstore.model.errors import LogStoreError, ServerError, UsageError

log = logging.getLogger(__name__)

MOST_ASKED = 1_000  # of one request
_MOST_THREADS = 32  # each waits for one partition: those that stand still must not hold up the others
_IDLE_S = 2.0  # a thread that has nothing to do for so long ends

Answer = Outcome | LogStoreError | None  # None: the record has no outcome


class AskedPlace(NamedTuple):
    """A partition of a table's log."""

    table: str
    epoch: str
    partition: int


class LoggedWrite(Protocol):
    """A write that is in the log, of which a reader is to tell something."""

    place: AskedPlace
    offset: int
    end_s: float  # monotonic seconds; later nobody waits for it

    def resolve(self, outcome: Answer) -> None:
        """Take the answer, or the error for which it cannot be told."""


class UndecidedWrite(LoggedWrite, Protocol):
    """A conditional write that is in the log, whose outcome is to be learnt."""

    @property
    def key(self) -> bytes:
        """Key of the row."""

    @property
    def id(self) -> bytes:
        """The mutation id."""


Ask = Callable[[Sequence[Any], float], Sequence[Answer]]  # of writes of one partition, all of the kind it asks about


class OutcomeDesk:
    """Desk of a client; thread-safe. `ask` tells outcomes of a partition by a time; raises LogStoreError."""

    def __init__(self, ask: Ask) -> None:
        self._ask, self._order = ask, count()
        self._changed = threading.Condition()
        self._queues: dict[AskedPlace, deque[LoggedWrite]] = {}  # of the partitions where somebody asks, or is about to
        self._ready: deque[AskedPlace] = deque()  # where nobody asks yet
        self._resting: list[tuple[float, int, Callable[[], None]]] = []  # a heap, by when
        self._threads = self._idle = 0
        self._closed = False

    def want(self, write: LoggedWrite) -> None:
        """Have the outcome told to the write, on another thread. Never waits."""
        with self._changed:
            closed = self._closed
            queue = self._queues.get(write.place)
            if queue is not None:
                queue.append(write)
            elif not closed:
                self._queues[write.place] = deque([write])
                self._make_ready(write.place)
        if closed and queue is None:
            write.resolve(UsageError(CLOSED))

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call on another thread after a while; at once when the desk is closed."""
        with self._changed:
            heapq.heappush(self._resting, (0.0 if self._closed else monotonic() + seconds, next(self._order), call))
            self._hire()

    @contextmanager
    def lead(self, place: AskedPlace) -> Iterator[bool]:
        """True: nobody asks there, and others wait until the block has ended, in which the caller asks by itself."""
        with self._changed:
            leads = place not in self._queues and not self._closed
            if leads:
                self._queues[place] = deque()
        try:
            yield leads
        finally:
            if leads:
                self._hand_over(place)

    def close(self) -> None:
        """Ask no more: every write that waits is told so."""
        with self._changed:
            self._closed = True
            self._resting = [(0.0, number, call) for _, number, call in self._resting]
            if self._resting or self._ready:
                self._hire()
            self._changed.notify_all()

    def _hand_over(self, place: AskedPlace) -> None:
        with self._changed:
            if self._queues[place]:
                self._make_ready(place)
            else:
                del self._queues[place]

    def _make_ready(self, place: AskedPlace) -> None:
        self._ready.append(place)
        self._hire()

    def _hire(self) -> None:
        """Have a thread look, another one where all are busy. Requires: the lock is held."""
        if self._idle >= max(len(self._ready), 1) or self._threads == _MOST_THREADS:
            self._changed.notify()
            return
        self._threads += 1
        threading.Thread(target=self._run, name="logstore-outcomes", daemon=True).start()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            job()

    def _next(self) -> Callable[[], None] | None:
        """Take what is to be done now; None when there has been nothing for a while."""
        idle_until_s = monotonic() + _IDLE_S
        with self._changed:
            while True:
                now_s = monotonic()
                if self._resting and self._resting[0][0] <= now_s:
                    return heapq.heappop(self._resting)[2]
                if self._ready:
                    place = self._ready.popleft()
                    return lambda: self._serve(place)
                until_s = self._resting[0][0] if self._resting else idle_until_s
                if now_s >= until_s:
                    self._threads -= 1
                    return None
                self._idle += 1
                self._changed.wait(until_s - now_s)
                self._idle -= 1

    def _serve(self, place: AskedPlace) -> None:
        with self._changed:
            queue, closed = self._queues[place], self._closed
            some = [queue.popleft() for _ in range(min(len(queue), MOST_ASKED))]
        try:
            found = [UsageError(CLOSED)] * len(some) if closed else self._asked(some)
        finally:
            self._hand_over(place)
        for write, answer in zip(some, found, strict=True):
            write.resolve(answer)

    def _asked(self, some: Sequence[LoggedWrite]) -> Sequence[Answer]:
        try:
            return self._ask(some, min(write.end_s for write in some))
        except LogStoreError as error:
            return [error] * len(some)
        except Exception as error:  # a fault of ours: those who wait are told, and the thread goes on
            log.exception("outcomes could not be asked for")
            return [ServerError(f"the outcome could not be asked for: {error!r:.200}", 0, {})] * len(some)
