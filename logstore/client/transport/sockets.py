"""Sockets: blocking exchanges over pooled connections. Thread-safe, and safe across a fork.

A socket never blocks by itself; every wait ends with the exchange, whatever the server does meanwhile: a read waits by
the socket's own time limit, everything else by a `poll`.
"""

import os
import select
import socket
import threading
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

from logstore.client.transport.ahead import Ahead
from logstore.client.transport.answer import AnswerParser, HttpAnswer
from logstore.client.transport.origin import Origin
from logstore.client.transport.resolve import connected
from logstore.client.transport.stack import ConnectionStack
from logstore.log.after_fork import keep, renew_in_child

if TYPE_CHECKING:
    from ssl import SSLContext

READ_BYTES = 64 * 1024
_READABLE, _WRITABLE = select.POLLIN, select.POLLOUT
_LATE = "the deadline of the exchange has passed"
_LOOK_S = 1.0  # between two looks for connections that are overdue, while there are none
_ABOUT_S = 0.001  # a limit that is so near to the right one is left as it is: to set it is a system call


class PlainSocket:
    """A connection to a node, for one exchange at a time."""

    __slots__ = ("_limit_s", "_parser", "_poll", "_sock", "_taken", "_waits_for")

    def __init__(self, sock: socket.socket) -> None:
        """Requires: `sock` is connected; it is closed with this."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self._sock, self._parser, self._poll = sock, AnswerParser(), select.poll()
        self._waits_for, self._limit_s, self._taken = _READABLE, 0.0, False
        self._poll.register(sock, _READABLE)

    def exchange(self, request: bytes, end: float) -> tuple[HttpAnswer, bool]:
        """Send a request and read its answer until `end` (monotonic seconds); True: it may have another one.

        Raises OSError (TimeoutError is one), Malformed; then the connection is of no use any more.
        """
        self._parser.begun = False
        self._taken = self._send(request, end)
        return self.receive(end)

    def send(self, request: bytes, end: float) -> None:
        """Send a request, the first half of an exchange. Raises OSError."""
        self._parser.begun = False
        self._taken = self._send(request, end)

    def receive(self, end: float) -> tuple[HttpAnswer, bool]:
        """Read the answer, the second half of an exchange; raises as that."""
        parser = self._parser
        data = self._read(end)
        answer = parser.at_once(data, monotonic())
        if answer is not None:  # as nearly every row
            return answer, self._taken
        while data:
            if parser.feed(data):
                return parser.answer(monotonic()), self._taken and parser.reusable
            data = self._read(end)
        raise ConnectionResetError("the connection ended before the answer was whole")

    @property
    def answered(self) -> bool:
        """True when something of the last answer was read."""
        return self._parser.begun

    def quiet(self) -> bool:
        """True while the server neither says anything unasked nor has closed the connection."""
        if self._waits_for != _READABLE:
            self._watch(_READABLE)
        return not self._poll.poll(0)

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def _send(self, request: bytes, end: float) -> bool:
        """False when the server answers before it has everything."""
        rest: memoryview | bytes = request
        while True:
            try:
                sent = os.write(self._sock.fileno(), rest)  # `send` of a socket with a time limit polls before it
            except BlockingIOError:
                if self._wait_for(_READABLE | _WRITABLE, end) & _READABLE:
                    return False
                continue
            except ConnectionError:
                if self._poll.poll(0):  # it may have answered before it closed the connection
                    return False
                raise
            if sent == len(rest):
                return True
            rest = memoryview(rest)[sent:]

    def _read(self, end: float) -> bytes:
        left_s = end - monotonic()
        if not -_ABOUT_S < left_s - self._limit_s < _ABOUT_S:
            if left_s <= 0:
                raise TimeoutError(_LATE)
            self._sock.settimeout(left_s)
            self._limit_s = left_s
        try:
            return self._sock.recv(READ_BYTES)
        except TimeoutError:
            raise TimeoutError(_LATE) from None

    def _watch(self, events: int) -> None:
        if events != self._waits_for:
            self._poll.modify(self._sock, events)
            self._waits_for = events

    def _wait_for(self, events: int, end: float) -> int:
        """Wait for one of `events`, or the end of the connection. Raises TimeoutError after `end`."""
        self._watch(events)
        left_ms = (end - monotonic()) * 1000
        ready = self._poll.poll(left_ms + 1) if left_ms > 0 else None
        if not ready:
            raise TimeoutError(_LATE)
        return ready[0][1]


_Stack = ConnectionStack[PlainSocket, SimpleQueue[PlainSocket | None]]


class SocketPool:
    """Connections to one node. Thread-safe."""

    def __init__(self, origin: Origin, tls: "SSLContext | None") -> None:
        """Nothing is connected yet. `tls`: for an https origin; None: the certificates of the system count."""
        self.origin, self._tls, self._closed = origin, tls, False
        self._renew()
        renew_in_child(self)

    def _renew(self) -> None:
        self._lock, self._look_s = threading.Lock(), 0.0  # when a connection may be overdue next
        self.stack: _Stack = ConnectionStack()

    def after_fork(self) -> None:
        """Leave the connections to the parent; see `log.after_fork`."""
        keep(self.stack)
        self._renew()

    def ask(self, request: bytes, end: float) -> HttpAnswer:
        """Send a request and read its answer, until `end` (monotonic seconds).

        A connection that was kept alive may have been closed meanwhile: then a new one is asked, once, if nothing of an
        answer was read. Requires: the request may be sent twice. Raises OSError (TimeoutError is one), Malformed.
        """
        stack, reusable = self.stack, False
        with self._lock:
            connection = stack.take()
        if connection is None:
            connection = self._room(end)
        try:
            if connection is not None and not connection.quiet():
                connection.close()
                connection = None
            reused = connection is not None
            connection = connection or self._connect(end)
            try:
                answer, reusable = connection.exchange(request, end)
            except ConnectionError:
                if not reused or connection.answered:
                    raise
                connection.close()
                connection = self._connect(end)
                answer, reusable = connection.exchange(request, end)
            return answer
        finally:
            self.give_back(stack, connection, reusable=reusable)

    def send_ahead(self, request: bytes, end: float) -> Ahead | None:
        """Send a request, until `end`, whose answer is read later. None where that is not to be had at once.

        Requires: as of `ask`.
        """
        stack = self.stack
        with self._lock:
            connection = stack.take_ahead()
        if connection is None:
            return None
        try:
            if connection.quiet():
                connection.send(request, end)
                return Ahead(self, connection, end)
        except OSError:  # it is asked again, over another connection
            pass
        connection.close()
        stack.lose()
        return None

    def close(self) -> None:
        """Close the connections that are idle; those in use are closed as they come back."""
        with self._lock:
            self._closed, idle = True, self.stack.drain()
        for connection in idle:
            connection.close()

    def _connect(self, end: float) -> PlainSocket:
        sock = connected(self.origin, end)
        try:
            if not self.origin.tls:
                return PlainSocket(sock)
            from logstore.client.transport.tls import TlsSocket, default_context  # noqa: PLC0415 - loads OpenSSL

            self._tls = self._tls or default_context()
            return TlsSocket(sock, self._tls, self.origin.host, end)
        except BaseException:
            sock.close()
            raise

    def _room(self, end: float) -> PlainSocket | None:
        """Room for an exchange: a connection, or None where one may be opened. Raises TimeoutError."""
        with self._lock:
            connection = self.stack.take()
            if connection is not None or self.stack.may_open():
                return connection
            waiter: SimpleQueue[PlainSocket | None] = SimpleQueue()
            self.stack.waiting.append(waiter)
        try:
            return waiter.get(timeout=max(end - monotonic(), 0.0))
        except Empty:
            with self._lock:
                if waiter in self.stack.waiting:
                    self.stack.waiting.remove(waiter)
                    raise TimeoutError("no connection came free before the deadline") from None
            return waiter.get()  # it came just then

    def give_back(self, stack: _Stack, connection: PlainSocket | None, *, reusable: bool, ahead: bool = False) -> None:
        """Let go of a connection (None: it is closed), which is closed unless it may have another exchange."""
        if connection is not None and (not reusable or self._closed):
            connection.close()
            connection = None
        now, overdue = monotonic(), None
        with self._lock:
            stack.ahead -= ahead
            waiter = stack.give_back(connection, now)
            if waiter is not None:
                waiter.put(connection)
            if now > self._look_s:
                overdue = stack.overdue(now)
                self._look_s = now if overdue else now + _LOOK_S
        if overdue is not None:
            overdue.close()
