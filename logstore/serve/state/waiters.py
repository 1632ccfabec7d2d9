"""Waiters: requests that wait until a partition reaches an offset.

Per partition a heap of (offset, future): what the feed says wakes those whose offset is reached, and a timer per waiter
ends it at its deadline. A waiter that is not woken costs nothing: nobody polls. Woken waiters look at the view itself;
the feed is only the bell.
"""

import asyncio
import heapq
import itertools
from collections.abc import Hashable

from logstore.serve.wire.problems import Problem

TABLES = "tables"  # the place to wait for a change of the definitions
CLOCK = "clock"  # (this, epoch, partition): to wait for anything that is applied there
_MANY = 64


class Waiters:
    """Waiting requests of a reader."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queues: dict[Hashable, _Queue] = {}
        self._order = itertools.count()
        self.closed = False
        self.count = 0

    async def wait(self, where: Hashable, offset: int, deadline: float) -> bool:
        """Wait until `reached` or `wake`: True; False at `deadline` (loop time). Raises Problem when too many wait."""
        if self.closed:
            raise Problem("overloaded", "this reader is stopping; ask again, another one answers")
        if self.count >= self._limit:
            raise Problem(
                "overloaded",
                f"{self.count:,} requests are waiting here already; try again, or on another node",
                status=429,
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        queue = self._queues.setdefault(where, _Queue())
        heapq.heappush(queue.heap, (offset, next(self._order), future))
        timer = loop.call_at(deadline, _expire, future)
        self.count += 1
        try:
            return await future
        finally:
            self.count -= 1
            timer.cancel()
            if not future.done() or future.cancelled() or not future.result():
                self._forget(where)

    def reached(self, where: Hashable, next_offset: int) -> None:
        """Wake everybody who waits at `where` for `next_offset` or less."""
        queue = self._queues.get(where)
        if queue is None:
            return
        heap = queue.heap
        while heap and heap[0][0] <= next_offset:
            _wake(heapq.heappop(heap)[2])
        if not heap:
            del self._queues[where]

    def wake(self, where: Hashable) -> None:
        """Let everybody who waits at `where` look again."""
        queue = self._queues.pop(where, None)
        for _, _, future in queue.heap if queue else ():
            _wake(future)

    def wake_all(self) -> None:
        """Let everybody look again."""
        for where in list(self._queues):
            self.wake(where)

    def close(self) -> None:
        """Refuse waiting from now on: requests that wait are told that the reader stops."""
        self.closed = True
        self.wake_all()

    def _forget(self, where: Hashable) -> None:
        """An expired waiter stays in its heap until half of it is dead."""
        queue = self._queues.get(where)
        if queue is None:
            return
        queue.dead += 1
        if queue.dead >= _MANY or queue.dead >= len(queue.heap):
            queue.heap = [item for item in queue.heap if not item[2].done()]
            heapq.heapify(queue.heap)
            queue.dead = 0
        if not queue.heap:
            del self._queues[where]


class _Queue:
    __slots__ = ("dead", "heap")

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, asyncio.Future[bool]]] = []
        self.dead = 0


def _wake(future: "asyncio.Future[bool]") -> None:
    if not future.done():
        future.set_result(True)


def _expire(future: "asyncio.Future[bool]") -> None:
    if not future.done():
        future.set_result(False)
