"""Problem: every error an HTTP client can meet, as a problem document (RFC 9457) with a word of its own.

`type` is `urn:logstore:<word>`. The words are a contract: clients branch on them, so words may be added and never
change.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from logstore.model.errors import (
    BadKey,
    BadToken,
    LogStoreError,
    LogUnreachable,
    NotConditional,
    NotExpiring,
    NotWide,
    NotYet,
    Stopped,
    UsageError,
    ValueTooLarge,
    WriteFailed,
)
from logstore.serve.wire.response import Headers, Response

WORDS: dict[str, tuple[int, str]] = {
    "siblings": (300, "Several values stand side by side"),
    "bad-request": (400, "The request is wrong"),
    "bad-key": (400, "Not a row key"),
    "bad-token": (400, "Not a token"),
    "bad-cursor": (400, "Not a cursor of this query"),
    "bad-level": (400, "Not a consistency level of this build"),
    "no-such-page": (404, "There is no such page"),
    "no-such-table": (404, "There is no such table"),
    "not-found": (404, "The row is not there"),
    "method-not-allowed": (405, "The page does not take this method"),
    "not-acceptable": (406, "None of the accepted media types is to be had"),
    "request-timeout": (408, "The request took too long to arrive"),
    "epoch-changed": (409, "The table was created again since"),
    "invalid-write": (409, "The log holds the write, and it changed nothing"),
    "not-retained": (410, "That is no longer remembered"),
    "condition-failed": (412, "The row is not as the write expects it"),
    "too-large": (413, "The body is too large"),
    "uri-too-long": (414, "The request line is too long"),
    "unsupported-media-type": (415, "The body's media type is not supported"),
    "not-owner": (421, "Another node serves this partition"),
    "headers-too-large": (431, "The headers are too large"),
    "overloaded": (503, "Too much at once"),
    "internal": (500, "Something is wrong here"),
    "starting": (503, "Not yet"),
    "log-unreachable": (503, "The log does not answer"),
    "partition-stopped": (503, "The partition has stopped"),
    "write-failed": (503, "The write is certainly not in the log"),
    "consistency-timeout": (504, "The asked position was not reached in time"),
}
_RETRY = frozenset({"overloaded", "starting", "log-unreachable"})
_MEDIA_TYPE = (b"content-type", b"application/problem+json")


class Problem(Exception):
    """An error answer: raise it anywhere below the application."""

    def __init__(
        self,
        word: str,
        detail: str,
        *,
        headers: Iterable[tuple[bytes, bytes]] = (),
        status: int | None = None,
        **fields: Any,
    ) -> None:
        """`fields` go into the document; `status` overrules the word's own (429 for a queue that is full)."""
        super().__init__(detail)
        self.word, self.detail, self.fields, self.headers = word, detail, fields, tuple(headers)
        self.status = status or WORDS[word][0]

    def document(self) -> dict[str, Any]:
        """Problem document, as JSON will hold it."""
        retry = {"retry_after": 1} if self.word in _RETRY else {}
        word = "bad-request" if self.word == "request-timeout" else self.word
        title = WORDS[self.word][1]
        return {
            "type": f"urn:logstore:{word}",
            "title": title,
            "status": self.status,
            "detail": self.detail,
            **retry,
            **self.fields,
        }

    def answer(self) -> Response:
        """Whole HTTP answer of the problem."""
        body = orjson.dumps(self.document())
        headers: Headers = [_MEDIA_TYPE, (b"content-length", b"%d" % len(body)), *self.headers]
        if self.word in _RETRY:
            headers.append((b"retry-after", b"1"))
        return Response(self.status, headers, body)


def problem_of(error: LogStoreError) -> Problem:
    """The problem that an error of the library is to an HTTP client."""
    if isinstance(error, BadKey):
        return Problem("bad-key", str(error))
    if isinstance(error, BadToken):
        return Problem("bad-token", str(error))
    if isinstance(error, ValueTooLarge):
        return Problem("too-large", str(error))
    if isinstance(error, NotConditional):
        return Problem("bad-request", str(error), table=error.table, conditional=False)
    if isinstance(error, NotWide):
        return Problem("bad-request", str(error), wide=False)
    if isinstance(error, NotExpiring):
        return Problem("bad-request", str(error), expiring=False)
    if isinstance(error, UsageError):
        return Problem("bad-request", str(error))
    if isinstance(error, Stopped):
        return Problem("partition-stopped", str(error), reason=error.word)
    if isinstance(error, LogUnreachable):
        return Problem("log-unreachable", str(error))
    if isinstance(error, WriteFailed):
        return Problem("write-failed", str(error))
    if isinstance(error, NotYet):
        return Problem("overloaded", str(error))
    return Problem("internal", "the request id finds the cause in this reader's log")
