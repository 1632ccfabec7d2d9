"""Event stream: the changes of a subscription as server-sent events, with resumable ids.

    : comment                the beginning, and every _HEARTBEAT_S in which nothing came
    event: put | delete      a change; id: behind as many of them as were sent at once
    event: live              the snapshot part is over; what follows is the tail
    event: reset             the table is another topic now: drop the rows; a snapshot part follows
    event: end               why the stream ends, as a problem document; the last id is where to go on

A subscriber for whom nothing more can be written is not written for: it waits with _MOST_BYTES of changes at most, and
what comes meanwhile is in the ring for all. One that has been so slow that the ring has gone on is cut off; when it
comes back it reads from the log. One that reads nothing at all the connection cuts off (`logstore.serve.protocol`).
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator

from logstore.model.changes.resume_point import ResumePoint
from logstore.serve.changes.change_feed import ChangeFeed
from logstore.serve.changes.chunk import CUT_BYTES
from logstore.serve.changes.encoding import END, LIVE, RESET, event, events, with_id
from logstore.serve.changes.subscription import Batch, Subscription
from logstore.serve.settings import STUCK_WRITE_S
from logstore.serve.wire.problems import Problem

_HEARTBEAT_S = 15.0
_SLOW_S = 1.0  # of one sending
_MOST_BYTES = 2 * CUT_BYTES  # of a batch: so much is kept from the ring's end for each slow subscriber
_BEGIN = b": changes; the last id is where to go on\nretry: 1000\n\n"
_HEARTBEAT = b": heartbeat\n"


class EventStream:
    """The stream of one subscriber."""

    def __init__(self, subscription: Subscription, feed: ChangeFeed, *, before: bool = False) -> None:
        """`before`: its events say what their rows were before."""
        self._subscription, self._feed, self._before = subscription, feed, before
        self._first: Batch | None = None
        self._point = ResumePoint()

    async def begin(self, point: ResumePoint) -> None:
        """Take the first batch, so that what cannot be answered is an error and no stream. Raises Problem."""
        self._point = point
        self._first = await self._batch(0.0)

    async def events(self) -> AsyncGenerator[bytes]:
        """Pieces of the stream."""
        try:
            with self._feed.subscribed():
                yield _BEGIN
                while True:
                    async for piece in self._next():
                        yield piece
        except Problem as problem:
            yield event(END, {"event": END, **problem.document()}) + b"\n"

    async def _batch(self, wait_s: float) -> Batch:
        return await self._subscription.next(self._point, wait_s, _MOST_BYTES)

    async def _next(self) -> AsyncGenerator[bytes]:
        """Pieces of the next batch; raises Problem at the end of the stream."""
        batch, self._first = self._first or await self._batch(_HEARTBEAT_S), None
        was_scanning, self._point = self._point.scanned is not None, batch.point
        slowest_s, clock = 0.0, asyncio.get_running_loop().time
        for piece in self._pieces(batch, was_scanning=was_scanning):
            began_s = clock()
            try:
                yield piece
            except GeneratorExit:
                self._feed.cut_off += clock() - began_s > STUCK_WRITE_S  # else the client has gone by itself
                raise
            slowest_s = max(slowest_s, clock() - began_s)
        self._feed.events += sum(len(chunk.changes) for chunk in batch.chunks)
        if slowest_s > _SLOW_S and not was_scanning and not self._feed.holds(batch.point):
            self._feed.cut_off += 1
            raise Problem(
                "overloaded", "this stream was read so slowly that it has fallen behind what is kept for all; read "
                "faster, or fewer rows (prefix), and go on from the last id",
            )  # fmt: skip

    def _pieces(self, batch: Batch, *, was_scanning: bool) -> Iterator[bytes]:
        """The text of a batch, whose last event has its id."""
        last = None
        for text in self._texts(batch, was_scanning=was_scanning):
            if last is not None:
                yield last + b"\n"
            last = text
        yield with_id(last or _HEARTBEAT, batch.point)

    def _texts(self, batch: Batch, *, was_scanning: bool) -> Iterator[bytes]:
        """The text of each chunk, drawn when it is sent, and of what follows them."""
        for chunk in batch.chunks:
            if chunk.changes:
                yield events(chunk, before=self._before)
        if batch.reset is not None:
            yield event(RESET, {"event": RESET, "epoch": batch.reset})
        elif was_scanning and batch.point.scanned is None:
            yield event(LIVE, {"event": LIVE})
