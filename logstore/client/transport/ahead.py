"""Ahead: requests whose answer nobody waits for yet, blocking and for asyncio. Hints, all of them.

An answer that fails, is late or says anything but 200 is no answer: the same is asked again in the ordinary way, which
knows what to do about it. Few connections of a pool may be out for it, so that those who wait for an answer never lack
one; and whoever forgets an `Ahead` drops it, in whatever thread a generator happens to be collected, without a lock.
"""

from time import monotonic
from typing import TYPE_CHECKING

from logstore.client.transport.answer import HttpAnswer, Malformed
from logstore.log.after_fork import keep

if TYPE_CHECKING:
    import asyncio

    from logstore.client.transport.protocol import LoopConnection, ProtocolPool
    from logstore.client.transport.sockets import PlainSocket, SocketPool


class Ahead:
    """A request on its way over a blocking connection. Call `answer` once, or `drop`."""

    __slots__ = ("_connection", "_end", "_pool", "_stack")

    def __init__(self, pool: "SocketPool", connection: "PlainSocket", end: float) -> None:
        self._pool, self._stack, self._end = pool, pool.stack, end
        self._connection: PlainSocket | None = connection

    def answer(self) -> HttpAnswer | None:
        """The answer, waited for until its deadline; None: ask again."""
        connection, self._connection = self._connection, None
        assert connection is not None, "asked once"
        if self._stack is not self._pool.stack:  # a fork lies between: the parent reads it
            keep(connection)
            return None
        answer, reusable = None, False
        try:
            if monotonic() < self._end:
                answer, reusable = connection.receive(self._end)
        except (OSError, Malformed):  # asked again, where it is an error if it stays one
            answer = None
        finally:
            self._pool.give_back(self._stack, connection, reusable=reusable, ahead=True)
        return answer if answer is not None and answer.status == 200 else None

    def drop(self) -> None:
        """Forget the request, and the connection with it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self._stack.lose()


class LoopAhead:
    """A request on its way over a connection of an event loop; as `Ahead`."""

    __slots__ = ("_connection", "_end", "_pool", "_waiter")

    def __init__(
        self, pool: "ProtocolPool", connection: "LoopConnection", waiter: "asyncio.Future[HttpAnswer]", end: float
    ) -> None:
        """`waiter`: of the answer, for the request that was sent; `end` in monotonic seconds."""
        self._pool, self._waiter, self._end = pool, waiter, end
        self._connection: LoopConnection | None = connection
        waiter.add_done_callback(_seen)

    async def answer(self) -> HttpAnswer | None:
        """The answer, waited for until its deadline; None: ask again."""
        connection, self._connection = self._connection, None
        assert connection is not None, "asked once"
        answer = None
        try:
            if monotonic() < self._end:
                answer = await self._waiter
        except (OSError, Malformed):  # asked again, where it is an error if it stays one
            answer = None
        finally:
            connection.finish()
            self._pool.stack.ahead -= 1
            self._pool.give_back(connection)
        return answer if answer is not None and answer.status == 200 else None

    def drop(self) -> None:
        """Forget the request, and the connection with it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._waiter.cancel()
            connection.close()
            self._pool.stack.lose()


def _seen(waiter: "asyncio.Future[HttpAnswer]") -> None:
    """Look at an error that nobody may ask for, or asyncio would log it."""
    if not waiter.cancelled():
        waiter.exception()
