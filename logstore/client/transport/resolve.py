"""Resolve: the addresses of a host, and a connection to the first one that answers, within a deadline."""

import socket
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

from logstore.client.transport.origin import Origin

if TYPE_CHECKING:
    from concurrent.futures import Future


def connected(origin: Origin, end: float) -> socket.socket:
    """A connected socket. Raises OSError, TimeoutError after `end` (monotonic seconds)."""
    found = _addresses(origin, end)
    failure: OSError = TimeoutError("no time was left to connect")
    for number, (family, kind, protocol, _, address) in enumerate(found):
        left = (end - monotonic()) / (len(found) - number)  # an address that swallows packets leaves time to the next
        if left <= 0:
            break
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(left)
            sock.connect(address)
            return sock
        except OSError as error:
            failure = error
            sock.close()
        except BaseException:
            sock.close()
            raise
    raise failure


def _addresses(origin: Origin, end: float) -> list[Any]:
    """Addresses of the host. Whoever asks a name server waits no longer than its caller has time."""
    try:
        return socket.getaddrinfo(
            _name(origin), origin.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        )
    except socket.gaierror:  # a name
        from concurrent.futures import Future  # noqa: PLC0415 - an address does without

        found: Future[list[Any]] = Future()
    threading.Thread(target=_resolve, args=(origin, found), name="logstore-resolve", daemon=True).start()
    return found.result(max(end - monotonic(), 0.0))


def _name(origin: Origin) -> bytes:
    """The host as bytes: text would load the tables of Unicode first."""
    return origin.host.encode("ascii")


def _resolve(origin: Origin, found: "Future[list[Any]]") -> None:
    try:
        found.set_result(socket.getaddrinfo(_name(origin), origin.port, type=socket.SOCK_STREAM))
    except Exception as error:  # raised by `result`, where it is waited for
        found.set_exception(error)
