"""Service manager: systemd is told that a process runs and makes progress (sd_notify(3), `Type=notify`).

NOTIFY_SOCKET names a datagram socket. It is taken out of the environment: what this process starts speaks to this one.
"""

import contextlib
import os
import socket

SOCKET = "NOTIFY_SOCKET"
READY, ALIVE = b"READY=1", b"WATCHDOG=1"


class ServiceManager:
    """The service manager that started this process, if one did."""

    def __init__(self) -> None:
        """Take the address out of the environment."""
        name = os.environ.pop(SOCKET, "")
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self.environ = {SOCKET: name} if name else {}  # for a program that this process becomes

    def tell(self, message: bytes) -> None:
        """Send a message; never blocks, and nothing happens where nobody listens."""
        if self._address:
            with (
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock,
                contextlib.suppress(
                    BlockingIOError, ConnectionRefusedError, FileNotFoundError
                ),  # it begins again itself
            ):
                sock.sendto(message, self._address)
