"""Protocol: uvicorn's HTTP/1.1 over httptools, with a short cut and with bounds.

What it adds: the fast path; limits on the request line (256 KiB), the headers (64 KiB) and the time a request may take
to arrive; errors of the parser as problem documents; a bound on connections. Timers are one sweep a second over all
connections, not one per request.

    idle       no request has begun; closed after idle_timeout_s
    arriving   a request has begun and is not complete; 408 after request_timeout_s (a body must keep a pace of
               PACE_BYTES_PER_S)
    answering  the application is at work
    (any)      aborted when the client has read nothing of an answer for STUCK_WRITE_S, its end included
    lingering  refused: what still comes in is thrown away for a moment, so that the client reads the answer before the
               connection ends

Requests that follow another on the same connection wait behind it, MAX_PIPELINED at most; what the client has sent
beyond that is not parsed before there is room. A request whose client has gone is cancelled, so that it waits for
nothing. An offer to upgrade to another protocol is ignored (RFC 9110, section 7.8): the request and its body are read
as if it had not been made.
"""

import asyncio
import logging
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from logstore.serve.fast_path import FastPath
from logstore.serve.settings import MAX_HEADER_BYTES, MAX_URL_BYTES, STUCK_WRITE_S, ReaderSettings
from logstore.serve.wire.head import body_bytes, framing, last_response, origin_form
from logstore.serve.wire.one_write import OneWrite
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import CLIENT_GONE

PACE_BYTES_PER_S = 16 * 1024
LINGER_S = 2.0
MAX_PIPELINED = 16  # requests that wait behind the one that is answered
HALF_CLOSED_S = 2.0  # a client that has ended its side is answered for so long; one that has hung up looks the same
_CHUNKED_PIECE = 1024  # bytes of a chunked body that are parsed at once
_PREFIX = b"GET /v1/tables/"
_SLACK = 4 * 1024  # method, version, line ends
_NO_METHODS = ((b"allow", b"GET, HEAD, POST"),)

log = logging.getLogger(__name__)


class Stall:
    """Time for which the client of a connection has read nothing of its answer. A slow reader gets it all."""

    __slots__ = ("_since_s", "_unsent")

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._unsent = 0  # bytes, at the last look

    def look(self, now_s: float, unsent_bytes: int, *, waits: bool) -> float:
        """Seconds since anything was read of what waits to be sent.

        0 unless it waits for the client alone (`waits`): so much that no more is taken, or the end of an answer.
        """
        if not waits:
            self._since_s = None
        elif self._since_s is None or unsent_bytes < self._unsent:
            self._since_s = now_s
        self._unsent = unsent_bytes
        return 0.0 if self._since_s is None else now_s - self._since_s


class Connections:
    """State that all connections of a reader share."""

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
    """Protocol of one connection."""

    shared: Connections  # set by `protocol_class`

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """A client is there."""
        super().connection_made(transport)
        self._arriving = self._in_body = self._lingering = False
        self._refusal: Problem | None = None
        self._since = self.loop.time()  # when this phase began
        self._received = self._header_bytes = 0  # of the request that is arriving
        self._body_left: int | None = None  # bytes of its body that are still to come; None: it comes in chunks
        self._upgrade_offered = self._rereading = False
        self._held = b""  # not parsed yet: enough requests wait
        self._ended_s: float | None = None  # when the client ended its side
        self._task: asyncio.Task[None] | None = None  # what answers the request that runs
        self._running: RequestResponseCycle | None = None
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
        self._held = b""
        self.pipeline.clear()
        if self._task is not None and self._running is not None and not self._task.done():
            self._running.disconnected = True
            scope: Any = self._running.scope
            scope[CLIENT_GONE] = True
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes came in: one simple request, or anything else."""
        if (
            data.startswith(_PREFIX)
            and not self._arriving
            and (self.cycle is None or self.cycle.response_complete)
            and not (self.pipeline or self._held or self.flow.write_paused or self._lingering)
            and not self.transport.is_closing()
        ):
            answer = self.shared.fast.answer(data, self.shared.default_head(self.server_state.default_headers))
            if answer is not None:
                self.server_state.total_requests += 1
                self._since = self.loop.time()
                self.transport.write(answer)
                return
        if self._held:
            self._held += data
        elif not self._lingering:
            self._feed(data)

    def eof_received(self) -> bool | None:  # type: ignore[override] # asyncio: true keeps the way out open
        """The client has said all it wants to say; what is complete is answered before the connection is closed."""
        if self._lingering or (not self._held and not self._unanswered()):
            return None
        self._ended_s = self.loop.time()
        if not self._held:
            self.cycle.keep_alive = False  # the newest request of the pipeline
        return True

    def _unanswered(self) -> bool:
        """True when a complete request has no answer yet, and no half of another one stands behind it."""
        return not (self._arriving or self.cycle is None or self.cycle.response_complete)

    def _feed(self, data: bytes) -> None:
        """Parse what came in, a request at a time, until enough of them wait."""
        at = 0
        while at < len(data) and not self._lingering and self._refusal is None and not self.transport.is_closing():
            if len(self.pipeline) >= MAX_PIPELINED:
                self._held = data[at:]
                self.flow.pause_reading()
                return
            end = self._piece_end(data, at)
            self._parse(data[at:end])
            at = end
        if self._ended_s is not None:
            self._close_behind_last()

    def _feed_held(self) -> None:
        """Go on with what was not parsed before there was room."""
        if self.transport.is_closing() or self._lingering:
            return
        data, self._held = self._held, b""
        self._feed(data)
        if not self._held and not self.pipeline:
            self.flow.resume_reading()

    def _piece_end(self, data: bytes, at: int) -> int:
        """End of the piece from `at` that holds the end of one request at most."""
        if self._arriving and self._in_body and self._body_left is not None:
            return min(at + max(self._body_left, 1), len(data))
        blank_line = data.find(b"\r\n\r\n", at)
        end = len(data) if blank_line < 0 else blank_line + 4
        return min(max(end, at + _CHUNKED_PIECE), len(data)) if self._arriving and self._in_body else end

    def _parse(self, data: bytes) -> None:
        self._received += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._ignore_upgrade(data[offer.args[0] :])
            return
        except httptools.HttpParserError as error:
            self.send_400_response(str(error) or "the request cannot be parsed")
            return
        if self._arriving and not self._in_body and self._received > len(self.url) + MAX_HEADER_BYTES + _SLACK:
            self._refuse(_headers_too_large())

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read the head once more without the offer, by a parser of its own, and go on with what follows it."""
        if self.scope["method"] == "CONNECT":
            self._refuse(Problem("method-not-allowed", "this is no proxy: it takes no CONNECT", headers=_NO_METHODS))
            return
        self.parser = _parser(self)
        self._upgrade_offered, self._rereading = False, True
        self._parse(framing(self.scope["method"], self.scope["http_version"], self.headers))
        if rest:
            self._feed(rest)

    def _close_behind_last(self) -> None:
        """The client has ended its side, and all that it sent is parsed."""
        if not self._unanswered():
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._rereading:
            return
        super().on_message_begin()
        self._arriving, self._in_body = True, False
        self._since = self.loop.time()
        self._received = self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        if self._rereading:
            return
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._refusal = Problem(
                "uri-too-long", f"a request line has at most {MAX_URL_BYTES:,} bytes", limit_bytes=MAX_URL_BYTES
            )
            raise self._refusal

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header of the request."""
        if self._rereading:
            return
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
        version, scope = self.parser.get_http_version(), self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        if self.parser.should_upgrade():  # the parser would take what follows for another protocol
            self._upgrade_offered = True
            return
        self._rereading = False
        self._check_head(version)
        self._in_body = True
        self._body_left = body_bytes(self.headers)
        path, _, query = origin_form(self.url).partition(b"?")
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

    def _check_head(self, version: str) -> None:
        """Refuse the connection (raises Problem) when the request's head is none (RFC 9112, section 3.2)."""
        if version == "1.1" and sum(name == b"host" for name, _ in self.headers) != 1:
            self._refusal = Problem("bad-request", "an HTTP/1.1 request has one Host header, not none and not several")
        elif len(self.pipeline) > 2 * MAX_PIPELINED:
            self._refusal = Problem(
                "overloaded", f"at most {MAX_PIPELINED} requests may wait on one connection; read answers first"
            )
        if self._refusal is not None:
            raise self._refusal

    def on_body(self, body: bytes) -> None:
        """A piece of the request's body."""
        if self._body_left is not None:
            self._body_left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here in full."""
        if self._upgrade_offered:
            return
        self._arriving = False
        self._since = self.loop.time()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is out: the next request of the pipeline, or idle. As uvicorn's own, without its timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._since = self.loop.time()
        if not self._held:
            self.flow.resume_reading()
        elif len(self.pipeline) < MAX_PIPELINED:
            self.loop.call_soon(self._feed_held)
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
        elif self._is_stuck(now) or (
            self._ended_s is not None and now - self._ended_s > HALF_CLOSED_S and not self._answering()
        ):
            self.transport.abort()
        elif self._arriving:
            if waited > settings.request_timeout_s + self._received / PACE_BYTES_PER_S and not self.flow.read_paused:
                self._give_up(settings.request_timeout_s)
        elif waited > settings.idle_timeout_s and self._has_answered():
            self.transport.close()

    def _is_stuck(self, now: float) -> bool:
        """True when the client reads nothing of an answer, whether more of it waits or this is all."""
        unsent = self.transport.get_write_buffer_size()
        waits = self.flow.write_paused or (unsent > 0 and self._has_answered())
        return self._stall.look(now, unsent, waits=waits) > STUCK_WRITE_S

    def _has_answered(self) -> bool:
        """True when no request is being answered; bytes of the last answer may be unsent."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def _answering(self) -> bool:
        """True when bytes of an answer are on their way."""
        return self.transport.get_write_buffer_size() > 0 or bool(self._running and self._running.response_started)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        self._task = task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

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
        defaults = self.shared.default_head(self.server_state.default_headers)
        self.transport.write(last_response(problem.answer(), defaults))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _new_cycle(self, *, keep_alive: bool) -> RequestResponseCycle:
        writes: Any = OneWrite(self.transport)

        def answered() -> None:
            writes.flush()
            self.on_response_complete()

        return RequestResponseCycle(
            scope=self.scope, transport=writes, flow=self.flow, logger=self.logger, access_logger=self.access_logger,
            access_log=False, default_headers=self.server_state.default_headers, message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue, keep_alive=keep_alive, on_response=answered,
        )  # fmt: skip


def _parser(protocol: ReaderProtocol) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
    return parser


def protocol_class(shared: Connections) -> type[ReaderProtocol]:
    """The protocol of one reader, for uvicorn's setting `http`."""
    attributes: dict[str, Any] = {"shared": shared, "__doc__": ReaderProtocol.__doc__}
    return type("BoundReaderProtocol", (ReaderProtocol,), attributes)


def _headers_too_large() -> Problem:
    return Problem(
        "headers-too-large",
        f"the headers of a request have at most {MAX_HEADER_BYTES:,} bytes",
        limit_bytes=MAX_HEADER_BYTES,
    )
