"""Answer: an HTTP/1.1 answer as its bytes arrive (llhttp parses it), bounded and whole, or none at all.

The heads that a reader gives to a plain read of a row, to one of a wide row, and to lists in columns, are recognised by
a regular expression instead, in a third of the time, when they arrive in one piece; whatever differs by one byte goes
the way of all others.
Of their headers those are taken that a reader of lists or rows looks at.

Refused besides what llhttp refuses: an answer whose end only the end of the connection tells, since one that was cut
off looks the same; codings of the body, which nobody asked for; and bytes behind an answer, since nothing else was
asked for.
"""

import re
from typing import TYPE_CHECKING, NamedTuple

from logstore.model.key import MAX_MAX_VALUE_BYTES
from logstore.model.position import MAX_TOKEN_BYTES

if TYPE_CHECKING:
    from httptools import HttpResponseParser

MAX_HEAD_BYTES = MAX_TOKEN_BYTES + 32 * 1024  # of an answer: the longest token, and other headers
MAX_BODY_BYTES = MAX_MAX_VALUE_BYTES + 32 * 1024 * 1024  # the longest value, and a page of 8 MiB in its framing
_MAX_WIRE_BYTES = 2 * MAX_BODY_BYTES  # chunks carry framing of their own, and trailers
_new = tuple.__new__  # of a NamedTuple, without a frame of its own
_WITHOUT_BODY = (204, 304)
_TOO_MUCH = "more bytes follow it than it announces"
_ROW_HEADERS = (
    b"date", b"content-type", b"content-length", b"etag", b"ls-partition", b"ls-version", b"ls-applied", b"ls-lag",
    b"ls-source", b"ls-token", b"x-request-id",
)  # fmt: skip
_WIDE_HEADERS = *_ROW_HEADERS[:-1], b"vary", b"x-request-id"
_LIST_HEADERS = b"date", b"content-type", b"content-length", b"vary", b"ls-source", b"ls-token", b"x-request-id"
_PASSED_OVER = frozenset({b"date", b"etag", b"ls-applied", b"ls-lag", b"vary", b"x-request-id"})


class KnownHead:
    """A head of these headers. No other name, so no other framing and no other coding."""

    def __init__(self, every: tuple[bytes, ...]) -> None:
        self.match = re.compile(rb"HTTP/1\.1 200 OK\r\n" + b"".join(_line(name) for name in every) + rb"\r\n").match
        self.names = tuple(name for name in every if name not in _PASSED_OVER)
        self.length_at = self.names.index(b"content-length") + 1


def _line(name: bytes) -> bytes:
    if name == b"content-length":
        return name + rb": ([0-9]{1,9})\r\n"
    value = rb"[!-~]++(?: [!-~]++)*+"
    return b"%b: %b\r\n" % (name, value if name in _PASSED_OVER else rb"(%b)" % value)


ROW_HEAD, WIDE_HEAD, LIST_HEAD = KnownHead(_ROW_HEADERS), KnownHead(_WIDE_HEADERS), KnownHead(_LIST_HEADERS)
_KNOWN = ROW_HEAD, WIDE_HEAD, LIST_HEAD


class Malformed(Exception):
    """Bytes that are no answer; the message says what is wrong with them."""


class HttpAnswer(NamedTuple):
    """An HTTP answer. Header names are lower case; the values of one that came twice are joined by a comma."""

    status: int
    headers: dict[bytes, bytes]
    content: bytes
    now: float  # monotonic seconds


class AnswerParser:
    """The answers of one connection, one at a time: `feed` it until it says that the answer is whole.

    `begun`: something of the answer was read; whoever wants the next answer sets it to False. `reusable`: the
    connection may have another request, once the answer is whole.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_done",
        "_expected",
        "_headers",
        "_http",
        "_in_body",
        "_left",
        "_status",
        "_wire_bytes",
        "_wrong",
        "begun",
        "reusable",
    )  # fmt: skip

    def __init__(self) -> None:
        self._http: HttpResponseParser | None = None  # made for the first answer whose head is not known by heart
        self._expected = ROW_HEAD  # the one that came last
        self._left: int | None = None  # bytes to come of an answer whose head is known by heart
        self.begun = False
        self._reset()

    def at_once(self, data: bytes, now: float) -> HttpAnswer | None:
        """The answer when these first bytes of it are all of it, and its head is known by heart; None: `feed` them."""
        head = self._expected
        found = head.match(data)
        if found is None:
            return None
        content = data[found.end() :]
        if len(content) != int(found[head.length_at]):
            return None
        self.begun = self.reusable = True
        return _new(HttpAnswer, (200, dict(zip(head.names, found.groups(), strict=True)), content, now))

    def _reset(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._status = self._wire_bytes = self._body_bytes = 0
        self._done = self._in_body = self.reusable = False
        self._wrong = ""

    def feed(self, data: bytes) -> bool:
        """Take the next bytes. True when the answer is whole; raises Malformed."""
        if not self.begun:
            self.begun = True
            if self._known(data):
                return self._left == 0
            self._reset()
            if not b"HTTP/1.".startswith(data[:7]):
                raise Malformed(f"it begins with {data[:40]!r}, not with HTTP/1")
        if self._left is not None:
            return self._feed_known(data, self._left)
        import httptools  # noqa: PLC0415 - a command that reads a row does without

        if self._http is None:
            self._http = httptools.HttpResponseParser(self)
        self._wire_bytes += len(data)
        try:
            self._http.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise Malformed(self._wrong or str(error) or type(error).__name__) from error
        if self._wrong:
            raise Malformed(self._wrong)
        if self._wire_bytes > (_MAX_WIRE_BYTES if self._in_body else MAX_HEAD_BYTES):
            raise Malformed(
                "it goes on for longer than any" if self._in_body else "its head goes on for longer than any"
            )
        return self._done

    def _known(self, data: bytes) -> bool:
        """True when the head is known by heart, and not too much comes behind it."""
        self._left, head = None, self._expected
        found = head.match(data)
        if found is None:
            head = next((other for other in _KNOWN if other.match(data)), ROW_HEAD)
            self._expected, found = head, head.match(data)
            if found is None:
                return False
        length, at = int(found[head.length_at]), found.end()
        left = length - (len(data) - at)
        if left < 0 or length > MAX_BODY_BYTES:
            return False  # said by the other way
        self._status, self._headers = 200, dict(zip(head.names, found.groups(), strict=True))
        self._body, self._left, self.reusable = [data[at:]], left, True
        return True

    def _feed_known(self, data: bytes, left: int) -> bool:
        self._left = left - len(data)
        if self._left < 0:
            raise Malformed(_TOO_MUCH)
        self._body.append(data)
        return self._left == 0

    def answer(self, now: float) -> HttpAnswer:
        """The answer. Requires: it is whole."""
        body, self._body = self._body, []
        content = body[0] if len(body) == 1 else b"".join(body)
        return _new(HttpAnswer, (self._status, self._headers, content, now))

    def on_message_begin(self) -> None:
        """Called by the parser, also for what follows a whole answer."""
        if self._done:
            self._wrong = _TOO_MUCH

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser for a header, and for a trailer, which says nothing that counts here."""
        if self._in_body:
            return
        name, value = name.lower(), value.strip(b" \t")
        headers = self._headers
        headers[name] = value if name not in headers else headers[name] + b", " + value

    def on_headers_complete(self) -> None:
        """Called by the parser at the end of the head."""
        http = self._http
        assert http is not None, "it calls this"
        status, headers = http.get_status_code(), self._headers
        if 100 <= status < 200 and status != 101:
            return  # an interim answer: the other one follows
        self._status, self._in_body, self.reusable = status, True, http.should_keep_alive()
        length = headers.get(b"content-length")
        if not 200 <= status < 600 or http.get_http_version() not in ("1.1", "1.0"):
            self._wrong = f"it has status {status} of HTTP {http.get_http_version()}"
        elif headers.get(b"content-encoding", b"identity").lower() != b"identity":
            self._wrong = f"its body is coded ({headers[b'content-encoding'][:40]!r}), which was not asked for"
        elif length is not None:
            if int(length) > MAX_BODY_BYTES:
                self._wrong = f"its body of {int(length):,} bytes is longer than any"
        elif headers.get(b"transfer-encoding", b"").lower() != b"chunked" and status not in _WITHOUT_BODY:
            self._wrong = "it does not say where it ends (Content-Length, or chunks)"

    def on_body(self, data: bytes) -> None:
        """Called by the parser with a piece of the body."""
        self._body_bytes += len(data)
        if self._body_bytes > MAX_BODY_BYTES:
            self._wrong = "its body is longer than any"
        elif not self._wrong:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """Called by the parser at the end of an answer, an interim one too."""
        if self._in_body:
            self._done = True
        else:
            self._headers = {}
