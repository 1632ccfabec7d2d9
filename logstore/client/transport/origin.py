"""Origin: scheme, host and port of a node's URL (RFC 6454), and the path that the node lies below."""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from logstore.model.errors import UsageError

_PORTS = {"http": 80, "https": 443}
_NO_URL = re.compile(r"[\x00-\x20\x7f\\]")


class Origin(NamedTuple):
    """Scheme, host, port and path of a node."""

    host: str
    port: int
    tls: bool
    netloc: str  # host and port, as the Host header has them
    prefix: str  # of every path; empty, or "/..." without a slash at its end

    @classmethod
    def of(cls, url: str) -> "Origin":
        """Take a URL apart; raises UsageError when it is not that of a node."""
        if not isinstance(url, str):
            raise UsageError(f"the URL of a node is text, not {type(url).__name__}")
        try:
            parts = urlsplit(url)
            port = parts.port
            host = _ascii(parts.hostname or "")
            path = parts.path.encode("ascii").decode()
        except ValueError as error:  # UnicodeError is one
            raise UsageError(f"not the URL of a node: {url!r} ({error}); give http://host:port") from error
        if _NO_URL.search(url) or parts.scheme not in _PORTS or not host or port == 0 or parts.query or parts.fragment:
            raise UsageError(f"not the URL of a node: {url!r}; give http://host:port")
        if parts.username is not None:
            raise UsageError(f"the URL of a node has no user or password: {host}; this build knows no authentication")
        usual, named = _PORTS[parts.scheme], f"[{host}]" if ":" in host else host
        netloc = named if port in (None, usual) else f"{named}:{port}"
        return cls(host, port or usual, parts.scheme == "https", netloc, path.rstrip("/"))

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.netloc}{self.prefix}"


def _ascii(host: str) -> str:
    """A host as name servers know it. Raises UnicodeError when it is none."""
    labels = host.removesuffix(".").split(".")
    if ":" in host or (host.isascii() and all(0 < len(label) < 64 for label in labels)):
        return host.encode("ascii").decode()
    return host.encode("idna").decode()  # loads the tables of Unicode
