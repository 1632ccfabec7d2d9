"""Request: the bytes of an HTTP/1.1 request (RFC 9112)."""

import re
from collections.abc import Mapping
from functools import lru_cache

from logstore.client.transport.origin import Origin
from logstore.model.errors import UsageError

_NO_FIELD = re.compile(r"[^\x20-\x7e]")  # whatever could end a line, or is no ASCII


def request_bytes(
    origin: Origin, method: str, path: str, headers: Mapping[str, str], content: bytes | None = None
) -> bytes:
    """A whole request. Requires: `path` is quoted. Raises UsageError for a header that would be more than one."""
    if not headers and content is None:
        return f"{method} {origin.prefix}{path} HTTP/1.1\r\nHost: {origin.netloc}\r\n\r\n".encode("ascii")
    fields = _fields(tuple(headers.items()))
    length = "" if content is None else f"Content-Length: {len(content)}\r\n"
    head = f"{method} {origin.prefix}{path} HTTP/1.1\r\nHost: {origin.netloc}\r\n{fields}{length}\r\n".encode("ascii")
    return head if content is None else head + content


@lru_cache(16)  # a client sends the same ones again and again
def _fields(headers: tuple[tuple[str, str], ...]) -> str:
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if _NO_FIELD.search(fields.replace("\r\n", "", len(headers))):
        raise UsageError("a header of a request has printable ASCII only: no line ends, no other characters")
    return fields
