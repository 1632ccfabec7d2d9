"""Response: a whole HTTP answer before it is sent, and the media types of lists."""

from typing import NamedTuple

from logstore.serve.wire import media_types

Headers = list[tuple[bytes, bytes]]


class Response(NamedTuple):
    """Status, headers (lower-case names) and body; `X-Request-Id` and `Date` are added when it is sent."""

    status: int
    headers: Headers
    body: bytes


def page(body: bytes, media_type: str = media_types.JSON, status: int = 200) -> Response:
    """An answer that is only a body."""
    return Response(status, [(b"content-type", media_type.encode()), (b"content-length", b"%d" % len(body))], body)
