"""Port: reserved by the supervisor, shared by its readers.

The supervisor binds with SO_REUSEPORT and does not listen: the port is known (also when it was 0) and stays the node's
while readers come and go, and the kernel gives connections to the readers only.
"""

import socket
import time
from collections.abc import Callable

import psutil

from logstore.model.errors import SetupError
from logstore.settings import Address

PATIENCE_S = 3.0  # readers of a node that was just killed need a moment to be gone


class Reservation:
    """A port of this machine, held until `close`."""

    def __init__(self, address: Address) -> None:
        """Reserve the port; raises SetupError when it is taken, or the host is none of this machine's."""
        self._socket = _bind(address)
        deadline = time.monotonic() + PATIENCE_S
        while (listener := _listener(self.port)) is not None:
            if time.monotonic() > deadline:
                self.close()
                raise _taken(address, listener)
            time.sleep(0.05)
        self.address = Address(address.host, self.port)

    @property
    def port(self) -> int:
        """Number of the reserved port."""
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Release the port."""
        self._socket.close()


def check_shared(address: Address, own: Callable[[], set[int]]) -> None:
    """Make sure that no process but the node's `own` listens on the port: the kernel would give it half of the reads.

    Raises SetupError.
    """
    deadline = time.monotonic() + PATIENCE_S
    while strangers := _listeners(address.port) - own():
        if time.monotonic() > deadline:
            raise _taken(address, min(strangers))
        time.sleep(0.05)


def _bind(address: Address) -> socket.socket:
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise SetupError(
            f"cannot serve on {address}: {error.strerror}; choose another address with --http HOST:PORT"
        ) from error
    reserved = socket.socket(family, kind, proto)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(where)
        return reserved
    except OSError as error:
        reserved.close()
        listener = _listener(address.port)
        if listener is not None:
            raise _taken(address, listener) from error
        raise SetupError(
            f"cannot serve on {address}: {error.strerror}; choose another address with --http HOST:PORT"
        ) from error


def _taken(address: Address, pid: int) -> SetupError:
    who = f" by the process {pid}" if pid else ""
    return SetupError(
        f"port {address.port} of {address.host} is taken{who}; choose another with --http HOST:PORT (port 0: any free "
        "one)"
    )


def _listener(port: int) -> int | None:
    """Process id of a listener on a port, 0 when it cannot be seen, None when there is none."""
    return min(_listeners(port), default=None)


def _listeners(port: int) -> set[int]:
    """Process ids of the listeners on a port, 0 for those that cannot be seen."""
    return {
        connection.pid or 0
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
