"""Answer: an HTTP/1.1 answer as its bytes arrive (llhttp parses it), bounded and whole, or none at all.

The heads that a reader gives to a plain read of a row, and to lists in columns, are recognised by a regular expression
instead, in a third of the time, when they arrive in one piece; whatever differs by one byte goes the way of all others.

Refused besides what llhttp refuses: an answer whose end only the end of the connection tells, since one that was cut
off looks the same; codings of the body, which nobody asked for; and bytes behind an answer, since nothing else was
asked for.
"""

import re
from typing import NamedTuple

import httptools

from logstore.model.key import MAX_MAX_VALUE_BYTES
from logstore.model.position import MAX_TOKEN_BYTES

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
_LIST_HEADERS = b"date", b"content-type", b"content-length", b"vary", b"ls-source", b"ls-token", b"x-request-id"


def _head(names: tuple[bytes, ...]) -> re.Pattern[bytes]:
    """A head of these headers. No other name, so no other framing and no other coding."""
    return re.compile(
        rb"HTTP/1\.1 200 OK\r\n"
        + b"".join(
            name + (rb": ([0-9]{1,9})\r\n" if name == b"content-length" else rb": ([!-~]++(?: [!-~]++)*+)\r\n")
            for name in names
        )
        + rb"\r\n"
    )


ROW_HEAD, LIST_HEAD = _head(_ROW_HEADERS), _head(_LIST_HEADERS)
_KNOWN: tuple[tuple[re.Pattern[bytes], tuple[bytes, ...]], ...] = (ROW_HEAD, _ROW_HEADERS), (LIST_HEAD, _LIST_HEADERS)
_LENGTH_AT = 2  # of content-length, in both


class Malformed(Exception):
    """Bytes that are no answer; the message says what is wrong with them."""


class HttpAnswer(NamedTuple):
    """An HTTP answer. Header names are lower case; the values of one that came twice are joined by a comma."""

    status: int
    headers: dict[bytes, bytes]
    content: bytes
    now: float  # monotonic seconds


class AnswerParser:
    """The answers of one connection, one at a time: `begin`, and `feed` until it says that the answer is whole."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_done",
        "_headers",
        "_heads",
        "_http",
        "_in_body",
        "_keep_alive",
        "_left",
        "_status",
        "_wire_bytes",
        "_wrong",
        "begun",
    )  # fmt: skip

    def __init__(self) -> None:
        self._http = httptools.HttpResponseParser(self)
        self._heads = _KNOWN  # the one that came last is first
        self._left: int | None = None  # bytes to come of an answer whose head is known by heart
        self.begun = False  # True: something of the answer was read
        self._reset()

    def begin(self) -> None:
        """Be ready for the next answer."""
        self.begun = False

    def _reset(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._status = self._wire_bytes = self._body_bytes = 0
        self._done = self._in_body = self._keep_alive = False
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
        self._left = None
        for head, names in self._heads:
            if (found := head.match(data)) is not None:
                length, at = int(found[_LENGTH_AT + 1]), found.end()
                left = length - (len(data) - at)
                if left < 0 or length > MAX_BODY_BYTES:
                    return False  # said by the other way
                self._status, self._headers = 200, dict(zip(names, found.groups(), strict=True))
                self._body, self._left, self._keep_alive = [data[at:]], left, True
                if head is not self._heads[0][0]:
                    self._heads = self._heads[::-1]
                return True
        return False

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

    @property
    def reusable(self) -> bool:
        """True when the connection may have another request. Requires: the answer is whole."""
        return self._keep_alive

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
        status, headers = self._http.get_status_code(), self._headers
        if 100 <= status < 200 and status != 101:
            return  # an interim answer: the other one follows
        self._status, self._in_body, self._keep_alive = status, True, self._http.should_keep_alive()
        length = headers.get(b"content-length")
        if not 200 <= status < 600 or self._http.get_http_version() not in ("1.1", "1.0"):
            self._wrong = f"it has status {status} of HTTP {self._http.get_http_version()}"
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
