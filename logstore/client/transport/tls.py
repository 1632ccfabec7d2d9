"""TLS: the socket of an https node."""

import socket
import ssl
from collections.abc import Callable
from functools import partial
from select import POLLIN, POLLOUT
from typing import TypeVar

from logstore.client.transport.sockets import READ_BYTES, PlainSocket

T = TypeVar("T")


def default_context() -> ssl.SSLContext:
    """Certificates that this system trusts (SSL_CERT_FILE and SSL_CERT_DIR say others), and HTTP/1.1."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class TlsSocket(PlainSocket):
    """A connection to an https node."""

    __slots__ = ()
    _sock: ssl.SSLSocket

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str, end: float) -> None:
        """Shake hands until `end`. Raises OSError; ssl.SSLCertVerificationError is one."""
        super().__init__(context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False))
        try:
            self._shake_hands(end)
        except BaseException:
            self._sock.close()  # `sock` is this one's by now
            raise

    def _shake_hands(self, end: float) -> None:
        while True:
            try:
                return self._sock.do_handshake()
            except ssl.SSLWantReadError:
                self._wait_for(POLLIN, end)
            except ssl.SSLWantWriteError:
                self._wait_for(POLLOUT, end)

    def quiet(self) -> bool:
        """True while the server says nothing but TLS's own."""
        try:
            self._sock.recv(1)
        except ssl.SSLWantReadError:
            return True
        except OSError:
            return False
        return False

    def _send(self, request: bytes, end: float) -> bool:
        rest = memoryview(request)
        while rest:
            rest = rest[self._until_done(partial(self._sock.send, rest), end) :]
        return True

    def _read(self, end: float) -> bytes:
        return self._until_done(partial(self._sock.recv, READ_BYTES), end)

    def _until_done(self, step: Callable[[], T], end: float) -> T:
        """One step of the exchange, waiting for what TLS wants first: either direction may need the other."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._wait_for(POLLIN, end)
            except ssl.SSLWantWriteError:
                self._wait_for(POLLOUT, end)
            except ssl.SSLError as error:
                raise ConnectionResetError(f"TLS: {error}") from error
