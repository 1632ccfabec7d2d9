"""One write: the head of an answer leaves with its body, as one segment, and whoever waits for it wakes up once.

uvicorn writes a head as soon as it has it. Here it waits for the body, which the application gives in the next step.
"""

import asyncio

_INTERIM = b"HTTP/1.1 1"  # 100 Continue: the client waits for it before it sends on


class OneWrite:
    """The transport of one answer, as uvicorn's cycle uses it: the first thing written waits for the second one.

    `flush` writes a head that no body follows (HEAD), `close` too.
    """

    __slots__ = ("_begun", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._head, self._begun = transport, b"", False

    def write(self, data: bytes) -> None:
        """Write, or keep the head for what comes behind it."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.writelines((head, data))
        elif self._begun or data.startswith(_INTERIM):
            self._transport.write(data)
        else:
            self._head, self._begun = data, True

    def flush(self) -> None:
        """Write the head if it still waits."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def close(self) -> None:
        """Close the connection behind what was written."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """True when the connection is closed, or about to be."""
        return self._transport.is_closing()
