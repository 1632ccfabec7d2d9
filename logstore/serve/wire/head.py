"""Heads of HTTP/1.1 messages as bytes: where a request points and where its body ends, and a whole answer."""

import http

from logstore.serve.wire.request import new_request_id
from logstore.serve.wire.response import Response


def framing(method: str, version: str, headers: list[tuple[bytes, bytes]]) -> bytes:
    """A head with the framing of `headers`: where the body ends, whether the connection goes on; it offers nothing."""
    lines = [b"%b / HTTP/%b" % (method.encode(), version.encode())]
    for name, value in headers:
        if name in (b"content-length", b"transfer-encoding"):
            lines.append(name + b": " + value)
        elif name == b"connection":
            left = [one for one in value.split(b",") if one.strip().lower() != b"upgrade"]
            lines.append(b"connection: " + b",".join(left))
    return b"\r\n".join([*lines, b"", b""])


def body_bytes(headers: list[tuple[bytes, bytes]]) -> int | None:
    """The length of the body; None when it comes in chunks. The parser has checked the numbers."""
    found = dict(headers)
    return None if b"transfer-encoding" in found else int(found.get(b"content-length", b"0"))


def origin_form(url: bytes) -> bytes:
    """The origin form of a request's target (RFC 9112, section 3.2).

    `http://host/path` names the same page as `/path`.
    """
    if url.startswith(b"/"):
        return url
    scheme, colon, rest = url.partition(b"://")
    if colon and scheme.lower() in (b"http", b"https"):
        return b"/" + rest.partition(b"/")[2]
    return b"/" + url


def last_response(answer: Response, default_head: str) -> bytes:
    """The bytes of an answer behind which its connection ends."""
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
