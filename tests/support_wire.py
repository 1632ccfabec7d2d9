"""A server that says what a test tells it, byte by byte, and notes its connections."""

import socket
import threading
from contextlib import contextmanager, suppress

ROW = b"\r\n".join(
    [
        b"HTTP/1.1 200 OK", b"content-type: application/octet-stream", b"content-length: 5", b"ls-partition: 1",
        b"ls-version: 7", b"ls-token: " + b"ab" * 16 + b"-1-8", b"ls-source: view", b"", b"value",
    ]
)  # fmt: skip


class WireServer:
    """Answers the n-th request of all with `script(n)`: pieces to send, each on its own; None closes the connection."""

    def __init__(self, script, *, tls=None, host="127.0.0.1"):
        self._script, self._tls = script, tls
        self._listener = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
        )
        self._lock, self._over = threading.Lock(), False
        self.connections = self.requests = 0
        self.open = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        host, port = self._listener.getsockname()[:2]
        scheme, shown = "https" if self._tls else "http", f"[{host}]" if ":" in host else host
        return f"{scheme}://{shown}:{port}"

    def _accept(self):
        while not self._over:
            with suppress(OSError):
                connection, _ = self._listener.accept()
                with self._lock:
                    self.connections += 1
                    self.open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                while self._read(connection):
                    with self._lock:
                        number, self.requests = self.requests, self.requests + 1
                    for piece in self._script(number):
                        if piece is None:
                            return
                        connection.sendall(piece)

    def _read(self, connection):
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65_536)
            if not more:
                return False
            data += more
        return True

    def close(self):
        self._over = True
        with suppress(OSError):  # wakes the accept
            socket.create_connection(self._listener.getsockname()[:2], 1).close()
        self._listener.close()
        for connection in self.open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(*answers, **more):
    """A server whose n-th request gets the n-th answer (bytes, or pieces), and the last one for ever."""
    scripted = [[answer] if isinstance(answer, bytes) else list(answer) for answer in answers]
    server = WireServer(lambda number: scripted[min(number, len(scripted) - 1)], **more)
    try:
        yield server
    finally:
        server.close()
