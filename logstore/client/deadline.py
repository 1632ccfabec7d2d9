"""Deadline: one for the whole exchange of a request, over every connect, read and write of it.

httpx counts its timeouts anew for each of them: a server that sends a byte now and then would hold a read of 200 ms for
as long as it likes.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ssl import SSLContext
from time import monotonic
from typing import Any

import httpcore
import httpx

_exchange = threading.local()  # .end: monotonic seconds; a blocking request stays on the thread that made it


@contextmanager
def within(timeout_s: float) -> Iterator[None]:
    """Have the request of this thread end after `timeout_s`."""
    _exchange.end = monotonic() + timeout_s
    try:
        yield
    finally:
        _exchange.end = None


def transport(limits: httpx.Limits) -> httpx.BaseTransport:
    """Pooled connections whose every wait ends with the exchange."""
    made = httpx.HTTPTransport(limits=limits, trust_env=False)
    made._pool = httpcore.ConnectionPool(
        ssl_context=made._pool._ssl_context,
        max_connections=limits.max_connections,
        max_keepalive_connections=limits.max_keepalive_connections,
        keepalive_expiry=limits.keepalive_expiry,
        network_backend=_Backend(),
    )
    return made


def _left(timeout: float | None, over: type[Exception]) -> float | None:
    end = getattr(_exchange, "end", None)
    if end is None:
        return timeout
    left: float = end - monotonic()
    if left <= 0:
        raise over("the deadline of the exchange has passed")
    return left if timeout is None else min(timeout, left)


class _Backend(httpcore.NetworkBackend):
    def __init__(self) -> None:
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:  # fmt: skip
        timeout = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._sockets.connect_tcp(host, port, timeout, local_address, socket_options))


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _left(timeout, httpcore.ConnectTimeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
