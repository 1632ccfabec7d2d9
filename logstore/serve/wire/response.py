"""Response: a whole HTTP answer before it is sent, and the media types of lists."""

from collections.abc import AsyncGenerator
from typing import NamedTuple

from logstore.serve.wire import media_types

Headers = list[tuple[bytes, bytes]]


class Response(NamedTuple):
    """Status, headers (lower-case names) and body; `X-Request-Id` and `Date` are added when it is sent.

    `stream`: pieces of a body without a length, in the place of `body`.
    """

    status: int
    headers: Headers
    body: bytes
    stream: AsyncGenerator[bytes] | None = None


def page(body: bytes, media_type: str = media_types.JSON, status: int = 200) -> Response:
    """An answer that is only a body."""
    return Response(status, [(b"content-type", media_type.encode()), (b"content-length", b"%d" % len(body))], body)
