"""Protocol: exchanges over pooled connections of an event loop."""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, cast

from logstore.client.transport.ahead import LoopAhead
from logstore.client.transport.answer import AnswerParser, HttpAnswer, Malformed
from logstore.client.transport.origin import Origin
from logstore.client.transport.stack import ConnectionStack
from logstore.log.after_fork import keep, renew_in_child
from logstore.model.errors import UsageError

if TYPE_CHECKING:
    from ssl import SSLContext


class LoopConnection(asyncio.Protocol):
    """A connection to a node, for one exchange at a time."""

    __slots__ = ("_answer", "_end", "_loop", "_parser", "_timer", "_transport", "lost", "reusable")

    def __init__(self) -> None:
        self._parser = AnswerParser()
        self._answer: asyncio.Future[HttpAnswer] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop, self._end = asyncio.get_running_loop(), 0.0
        self.lost = self.reusable = False

    async def exchange(self, request: bytes, end: float) -> HttpAnswer:
        """Send a request and read its answer until `end`, in the loop's time. Afterwards `reusable` counts.

        Raises OSError (TimeoutError is one), Malformed; then the connection is of no use any more.
        """
        answer = self.begin(request, end)
        try:
            return await answer
        finally:
            self._answer = None

    def begin(self, request: bytes, end: float) -> "asyncio.Future[HttpAnswer]":
        """Send a request, the first half of an exchange; the future is its answer. `finish` is the end."""
        self._parser.begun = False
        self.reusable, self._end = False, end
        answer: asyncio.Future[HttpAnswer] = self._loop.create_future()
        self._answer = answer
        self._transport.write(request)
        if self._timer is None or self._timer.when() > end:
            self._set_timer()
        return answer

    def finish(self) -> None:
        """End an exchange."""
        self._answer = None

    @property
    def answered(self) -> bool:
        """True when something of the last answer was read."""
        return self._parser.begun

    def close(self) -> None:
        """Close the connection, without waiting for anything."""
        self.lost = True
        self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop. What nobody asked for ends the connection."""
        answer = self._answer
        if answer is None or answer.done():
            self.close()
            return
        try:
            parser = self._parser
            whole = None if parser.begun else parser.at_once(data, monotonic())
            if whole is None and parser.feed(data):
                whole = parser.answer(monotonic())
            if whole is not None:
                self.reusable = parser.reusable
                answer.set_result(whole)
        except Malformed as error:
            answer.set_exception(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        self.lost = True
        self._fail(error if isinstance(error, OSError) else ConnectionResetError("the connection ended early"))

    def _set_timer(self) -> None:
        """Look again when the exchange must have ended; one timer sees many of them come and go."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._end, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if self._answer is None:
            return
        if self._loop.time() < self._end:
            self._set_timer()
        else:
            self._fail(TimeoutError("the deadline of the exchange has passed"))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


_Stack = ConnectionStack[LoopConnection, "asyncio.Future[LoopConnection | None]"]


class ProtocolPool:
    """Connections of one event loop to one node."""

    def __init__(self, origin: Origin, tls: "SSLContext | None") -> None:
        """Nothing is connected yet. `tls`: for an https origin; None: the certificates of the system count."""
        self.origin, self._tls, self._closed = origin, tls, False
        self.stack: _Stack = ConnectionStack()
        self.loop = asyncio.get_running_loop()
        renew_in_child(self)

    def after_fork(self) -> None:
        """Leave the connections to the parent; see `log.after_fork`."""
        keep(self.stack)
        self.stack = ConnectionStack()

    async def ask(self, request: bytes, end: float) -> HttpAnswer:
        """Send a request and read its answer, until `end` (monotonic seconds); as `SocketPool.ask`."""
        if asyncio.get_running_loop() is not self.loop:
            raise UsageError("this AsyncStore belongs to another event loop; make one in each")
        end += self.loop.time() - monotonic()  # uvloop counts from elsewhere
        connection = self.stack.take()
        if connection is None and not self.stack.may_open():
            connection = await self._free(end)
        try:
            if connection is not None and connection.lost:
                connection = None
            reused = connection is not None
            connection = connection or await self._connect(end)
            try:
                return await connection.exchange(request, end)
            except ConnectionError:
                if not reused or connection.answered:
                    raise
                connection.close()
                connection = None
            connection = await self._connect(end)
            return await connection.exchange(request, end)
        finally:
            self.give_back(connection)

    def send_ahead(self, request: bytes, end: float) -> LoopAhead | None:
        """Send a request whose answer is awaited later, as `SocketPool.send_ahead`."""
        connection = self.stack.take_ahead()
        if connection is None:
            return None
        if connection.lost:
            self.stack.lose()
            return None
        waiter = connection.begin(request, end + self.loop.time() - monotonic())
        return LoopAhead(self, connection, waiter, end)

    def give_back(self, connection: LoopConnection | None) -> None:
        """Let go of a connection (None: it is closed), which is closed unless it may have another exchange."""
        if connection is not None and (not connection.reusable or connection.lost or self._closed):
            connection.close()
            connection = None
        self._give_back(connection)

    def close(self) -> None:
        """Close the connections that are idle; those in use are closed as they come back. Requires: in their loop."""
        self._closed = True
        for connection in self.stack.drain():
            connection.close()

    async def _connect(self, end: float) -> LoopConnection:
        origin, tls = self.origin, None
        if origin.tls:
            if self._tls is None:
                from logstore.client.transport.tls import default_context  # noqa: PLC0415 - loads OpenSSL

                self._tls = default_context()
            tls = self._tls
        async with asyncio.timeout_at(end):
            return (await self.loop.create_connection(LoopConnection, origin.host, origin.port, ssl=tls))[1]

    async def _free(self, end: float) -> LoopConnection | None:
        """A connection that comes free, or None where one may be opened instead."""
        waiter: asyncio.Future[LoopConnection | None] = asyncio.get_running_loop().create_future()
        self.stack.waiting.append(waiter)
        try:
            async with asyncio.timeout_at(end):
                return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._give_back(waiter.result())
            raise

    def _give_back(self, mine: LoopConnection | None) -> None:
        while (waiter := self.stack.give_back(mine, monotonic())) is not None:
            if not waiter.done():
                waiter.set_result(mine)
                return
        if (overdue := self.stack.overdue(monotonic())) is not None:
            overdue.close()
