"""Request, read strictly: headers and parameters that are not understood are refused by name and never guessed."""

import functools
import itertools
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable
from functools import cached_property
from typing import Any
from urllib.parse import unquote_to_bytes

from logstore.serve.wire.problems import Problem

CLIENT_GONE = "logstore.client_gone"  # set in a request's scope before it is cancelled: nobody reads its answer
Receive = Callable[[], Awaitable[Any]]

_SANE_ID = re.compile(rb"[!-~]{1,128}")
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
next_number = itertools.count(1).__next__


class ClientGoneError(Exception):
    """The client hung up before its request was complete; there is nobody to answer."""


def new_request_id() -> str:
    """An id that no other request of any reader has: a random part per process, then a count."""
    return f"{process_id()}-{next_number():x}"


@functools.cache
def process_id() -> str:
    """The random part of this process: made when it is first asked for, as one that is forked later has its own."""
    return secrets.token_hex(6)


class Request:
    """An HTTP request."""

    def __init__(self, scope: Any, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: bytes = scope["raw_path"]
        self.query: bytes = scope["query_string"]
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._receive = receive

    @cached_property
    def request_id(self) -> str:
        """The client's X-Request-Id when it is a sane one, else a new one."""
        for name, value in self._headers:
            if name == b"x-request-id" and _SANE_ID.fullmatch(value):
                return value.decode("ascii")
        return new_request_id()

    def header(self, name: bytes) -> str | None:
        """The header `name` (lower case); several are joined by a comma (RFC 9110, section 5.2)."""
        values = [value.decode("latin-1") for key, value in self._headers if key == name]
        return ", ".join(values) if values else None

    def params(self, allowed: Iterable[str]) -> dict[str, bytes]:
        """The query parameters, decoded; raises Problem for one that is unknown or given twice."""
        return query_params(self.query, allowed)

    async def body(
        self, limit: int, hint: str = "ask for fewer keys at once", arrived: Callable[[int], object] = int
    ) -> bytes:
        """The request's body; raises Problem when it has more than `limit` bytes, with a `hint` what to do.

        `arrived` is told of each piece's bytes before it is kept, and may raise.
        """
        declared = self.header(b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > limit:
            raise _too_large(limit, hint)
        parts, size = [], 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            piece = message.get("body", b"")
            size += len(piece)
            if size > limit:
                raise _too_large(limit, hint)
            arrived(len(piece))
            parts.append(piece)
            if not message.get("more_body"):
                return b"".join(parts)


def query_params(query: bytes, allowed: Iterable[str]) -> dict[str, bytes]:
    """The parameters of a query, decoded; raises Problem for one that is unknown or given twice."""
    found: dict[str, bytes] = {}
    for piece in query.split(b"&") if query else ():
        raw_name, _, raw_value = piece.partition(b"=")
        name = percent_decode(raw_name, "bad-request").decode("utf-8", "replace")
        if name in found:
            raise Problem("bad-request", f"the query parameter {name!r} is given twice", parameter=name)
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            raise Problem(
                "bad-request",
                f"unknown query parameter {name[:100]!r}; this page takes: {known}",
                parameter=name[:100],
            )
        found[name] = percent_decode(raw_value, "bad-request")
    return found


def percent_decode(raw: bytes, word: str) -> bytes:
    """Percent-encoded bytes as bytes; a plus is a plus. Raises Problem `word` when a percent sign stands alone."""
    if b"%" not in raw:
        return raw
    if _BAD_PERCENT.search(raw):
        raise Problem(word, "a percent sign is followed by two hexadecimal digits; the sign itself is %25")
    return unquote_to_bytes(raw)


def text(value: bytes, name: str) -> str:
    """A parameter that must be text; raises Problem."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Problem("bad-request", f"the query parameter {name!r} is not UTF-8", parameter=name) from error


def integer(value: str, name: str, low: int, high: int) -> int:
    """A number in `[low, high]`; raises Problem."""
    if not (value.isascii() and value.isdigit() and len(value) < 20 and low <= int(value) <= high):
        raise Problem(
            "bad-request", f"{name} is a whole number from {low:,} to {high:,}, not {value[:40]!r}", parameter=name
        )
    return int(value)


def boolean(value: bytes | None, name: str) -> bool:
    """Value of a parameter that is `true` or `false`, false when absent; raises Problem."""
    if value not in (None, b"true", b"false"):
        raise Problem("bad-request", f"{name} is true or false, not {value[:40]!r}", parameter=name)
    return value == b"true"


def _too_large(limit: int, hint: str) -> Problem:
    return Problem("too-large", f"the body of this request has at most {limit:,} bytes; {hint}", limit_bytes=limit)
