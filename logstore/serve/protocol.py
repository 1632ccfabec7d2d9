"""Protocol: uvicorn's HTTP/1.1 over httptools, with a short cut and with bounds.

What it adds: the fast path; limits on the request line (256 KiB), the headers (64 KiB) and the time a request may take
to arrive; errors of the parser as problem documents; a bound on connections. Timers are one sweep a second over all
connections, not one per request.

    idle       no request has begun; closed after idle_timeout_s
    arriving   a request has begun and is not complete; 408 after request_timeout_s (a body must keep a pace of
               PACE_BYTES_PER_S)
    answering  the application is at work
    lingering  refused: what still comes in is thrown away for a moment, so that the client reads the answer before the
               connection ends
"""

import asyncio
import http
import logging
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from logstore.serve.fast_path import FastPath
from logstore.serve.settings import MAX_HEADER_BYTES, MAX_URL_BYTES, ReaderSettings
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import new_request_id
from logstore.serve.wire.response import Response

PACE_BYTES_PER_S = 16 * 1024
LINGER_S = 2.0
_STUCK_WRITE_S = 30.0
_PREFIX = b"GET /v1/tables/"
_SLACK = 4 * 1024  # method, version, line ends

log = logging.getLogger(__name__)


class Stall:
    """How long the client of one connection has read nothing of its answer. One that reads slowly gets it all."""

    __slots__ = ("_since_s", "_unsent")

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._unsent = 0  # bytes, at the last look

    def look(self, now_s: float, unsent_bytes: int, *, full: bool) -> float:
        """Seconds since anything was read of what waits to be sent.

        0 unless so much waits that no more is taken (`full`).
        """
        if not full:
            self._since_s = None
        elif self._since_s is None or unsent_bytes < self._unsent:
            self._since_s = now_s
        self._unsent = unsent_bytes
        return 0.0 if self._since_s is None else now_s - self._since_s


class Connections:
    """What all connections of a reader share."""

    def __init__(self, settings: ReaderSettings, fast: FastPath) -> None:
        self.settings, self.fast = settings, fast
        self.open: set[ReaderProtocol] = set()
        self._defaults: list[tuple[bytes, bytes]] | None = None
        self._default_head = ""

    def default_head(self, defaults: list[tuple[bytes, bytes]]) -> str:
        """The headers that uvicorn puts into every answer, which change once a second."""
        if defaults is not self._defaults:
            self._defaults = defaults
            self._default_head = b"".join(b"%b: %b\r\n" % pair for pair in defaults).decode("latin-1")
        return self._default_head

    async def sweep(self) -> None:
        """End what takes too long, once a second, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            now = loop.time()
            for connection in list(self.open):
                try:
                    connection.check_time(now)
                except Exception:  # one connection must not end the watch over all others
                    log.exception("a connection could not be ended")
                    connection.transport.abort()


class ReaderProtocol(HttpToolsProtocol):
    """One connection."""

    shared: Connections  # set by `protocol_class`

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """A client is there."""
        super().connection_made(transport)
        self._arriving = self._in_body = self._lingering = False
        self._refusal: Problem | None = None
        self._since = self.loop.time()  # when this phase began
        self._received = self._header_bytes = 0  # of the request that is arriving
        self._stall = Stall()
        self.shared.open.add(self)
        if len(self.shared.open) > self.shared.settings.max_connections:
            self._refuse(
                Problem(
                    "overloaded",
                    f"{self.shared.settings.max_connections:,} connections are open here already; try again",
                )
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self.shared.open.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came in: one simple request, or anything else."""
        if (
            data.startswith(_PREFIX)
            and not self._arriving
            and (self.cycle is None or self.cycle.response_complete)
            and not (self.pipeline or self.flow.write_paused or self._lingering or self.transport.is_closing())
        ):
            answer = self.shared.fast.answer(data, self.shared.default_head(self.server_state.default_headers))
            if answer is not None:
                self.server_state.total_requests += 1
                self._since = self.loop.time()
                self.transport.write(answer)
                return
        if not self._lingering:
            self._feed(data)

    def eof_received(self) -> bool | None:  # type: ignore[override] # asyncio: true keeps the way out open
        """The client has said all it wants to say; what is complete is answered before the connection is closed."""
        if self._lingering or self._arriving or self.cycle is None or self.cycle.response_complete:
            return None
        self.cycle.keep_alive = False  # the newest request of the pipeline
        return True

    def _feed(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        if self._arriving and not self._in_body and self._received > len(self.url) + MAX_HEADER_BYTES + _SLACK:
            self._refuse(_headers_too_large())

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._arriving, self._in_body = True, False
        self._since = self.loop.time()
        self._received = self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._refusal = Problem(
                "uri-too-long", f"a request line has at most {MAX_URL_BYTES:,} bytes", limit_bytes=MAX_URL_BYTES
            )
            raise self._refusal

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refusal = _headers_too_large()
            raise self._refusal

    def on_headers_complete(self) -> None:
        """The head is complete: start the application, or queue the request behind the one that runs.

        As uvicorn's own, but the target is split here: its URL parser counts in 16 bits and an encoded key may be
        longer.
        """
        self._in_body = True
        version, scope = self.parser.get_http_version(), self.scope
        path, _, query = _target(self.url).partition(b"?")
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["raw_path"], scope["query_string"] = path.partition(b"#")[0], query.partition(b"#")[0]
        scope["path"] = scope["raw_path"].decode("latin-1")
        running, self.cycle = (
            self.cycle,
            self._new_cycle(keep_alive=version != "1.0" and self.parser.should_keep_alive()),
        )
        if running is None or running.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_message_complete(self) -> None:
        """The request is here in full."""
        self._arriving = False
        self._since = self.loop.time()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is out: the next request of the pipeline, or idle. As uvicorn's own, without its timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._since = self.loop.time()
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._refuse(self._refusal)

    def send_400_response(self, msg: str) -> None:
        """The parser gave up: refuse, behind the answers that are still due."""
        problem = self._refusal or Problem("bad-request", f"not HTTP: {msg}")
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not self._in_body:  # a pipelined request is broken: those before it are answered first
                self._refusal = problem
                self.flow.pause_reading()
                return
            cycle.disconnected = True  # this request is broken in its body: nobody waits for its answer
            cycle.message_event.set()
        self._refuse(problem)

    def check_time(self, now: float) -> None:
        """End this connection when it takes too long."""
        waited, settings = now - self._since, self.shared.settings
        if self._lingering:
            if waited > LINGER_S:
                self.transport.abort()
        elif (
            self._stall.look(now, self.transport.get_write_buffer_size(), full=self.flow.write_paused) > _STUCK_WRITE_S
        ):
            self.transport.abort()
        elif self._arriving:
            if waited > settings.request_timeout_s + self._received / PACE_BYTES_PER_S and not self.flow.read_paused:
                self._give_up(settings.request_timeout_s)
        elif waited > settings.idle_timeout_s and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()

    def _give_up(self, limit_s: float) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._refuse(Problem("request-timeout", f"the request was not complete after {limit_s:g} s; send it faster"))

    def _refuse(self, problem: Problem) -> None:
        """Answer and hang up, without cutting the answer off while the client still sends."""
        if self.transport.is_closing() or self._lingering:
            return
        self._lingering, self._since = True, self.loop.time()
        self.flow.resume_reading()
        self.transport.write(_whole(problem.answer(), self.shared.default_head(self.server_state.default_headers)))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _new_cycle(self, *, keep_alive: bool) -> RequestResponseCycle:
        return RequestResponseCycle(
            scope=self.scope, transport=self.transport, flow=self.flow, logger=self.logger,
            access_logger=self.access_logger,
            access_log=False, default_headers=self.server_state.default_headers, message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue, keep_alive=keep_alive, on_response=self.on_response_complete,
        )  # fmt: skip


def protocol_class(shared: Connections) -> type[ReaderProtocol]:
    """The protocol of one reader, for uvicorn's setting `http`."""
    attributes: dict[str, Any] = {"shared": shared, "__doc__": ReaderProtocol.__doc__}
    return type("BoundReaderProtocol", (ReaderProtocol,), attributes)


def _target(url: bytes) -> bytes:
    """The origin form of a request's target (RFC 9112, section 3.2).

    `http://host/path` names the same page as `/path`.
    """
    if url.startswith(b"/"):
        return url
    scheme, colon, rest = url.partition(b"://")
    if colon and scheme.lower() in (b"http", b"https"):
        return b"/" + rest.partition(b"/")[2]
    return b"/" + url


def _headers_too_large() -> Problem:
    return Problem(
        "headers-too-large",
        f"the headers of a request have at most {MAX_HEADER_BYTES:,} bytes",
        limit_bytes=MAX_HEADER_BYTES,
    )


def _whole(answer: Response, default_head: str) -> bytes:
    head = b"".join(b"%b: %b\r\n" % pair for pair in answer.headers)
    phrase = http.HTTPStatus(answer.status).phrase.encode()
    tail = b"x-request-id: %b\r\nconnection: close\r\n\r\n" % new_request_id().encode()
    return b"HTTP/1.1 %d %b\r\n%b%b%b%b" % (
        answer.status,
        phrase,
        default_head.encode("latin-1"),
        head,
        tail,
        answer.body,
    )
