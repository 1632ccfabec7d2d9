"""HTTP clients of the tests, which are made by the thousand: for a row, for a look, for a reader."""

import functools

from httpx._transports import default


def share_tls_settings() -> None:
    """Have all clients of this process share what they ask of servers' certificates.

    Each of them reads 150 authorities from a file, which takes as long as a hundred requests, and no server of these
    tests shows a certificate. httpx has no public way to say it for `httpx.get`.
    """
    default.create_ssl_context = functools.cache(default.create_ssl_context)
