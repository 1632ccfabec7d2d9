"""Wire: point reads in bulk over keep-alive connections, from one thread, every answer compared.

Closed loop: each connection asks again when it is answered; says how many reads there are in a second. Open loop: reads
are due at fixed times whether or not the earlier ones are answered, and latency counts from the time a read was due,
waiting for a connection included (no coordinated omission: Gil Tene, "How NOT to Measure Latency", 2015).
"""

import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from logstore import LogStoreError

ANSWER_S = 10.0
_LENGTH = b"\r\ncontent-length: "


class Read(NamedTuple):
    """One read: the request, and the body that must come back."""

    request: bytes
    body: bytes


class Driven(NamedTuple):
    """What a run measured. `late_ms`: latency of each read; `wrong`: answers that were not as they should be."""

    late_ms: list[float]
    wrong: int
    seconds: float


class _Asked(NamedTuple):
    due_s: float
    body: bytes


def reads_of(url: str, table: str, rows: Sequence[tuple[bytes, bytes]]) -> list[Read]:
    """Reads of rows."""
    host = urlsplit(url).netloc
    return [
        Read(f"GET /v1/tables/{table}/rows/{quote(key, safe='')} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), value)
        for key, value in rows
    ]


def drive(url: str, work: Sequence[Read], *, seconds: float, connections: int, rate: float | None = None) -> Driven:
    """Read for some seconds, at a fixed `rate` per second or, without one, as fast as answers come."""
    with ExitStack() as stack:
        return _Loop([stack.enter_context(_connect(url)) for _ in range(connections)], work, rate).run(seconds)


class _Loop:
    def __init__(self, sockets: Sequence[socket.socket], work: Sequence[Read], rate: float | None) -> None:
        self._sockets = {sock.fileno(): sock for sock in sockets}
        self._idle, self._busy = deque(self._sockets), dict[int, _Asked]()
        self._partial: dict[int, bytes] = {}
        self._work, self._rate, self._number = work, rate, 0
        self._late_ms: list[float] = []
        self._wrong = 0

    def run(self, seconds: float) -> Driven:
        start_s = time.perf_counter()
        end_s = start_s + seconds
        while (asking := self._next_s(start_s) < end_s) or self._busy:
            if asking:
                self._ask(start_s, end_s)
            if self._busy or self._rate:
                self._answers(start_s, end_s)
        return Driven(self._late_ms, self._wrong, time.perf_counter() - start_s)

    def _next_s(self, start_s: float) -> float:
        return start_s + self._number / self._rate if self._rate else time.perf_counter()

    def _ask(self, start_s: float, end_s: float) -> None:
        while self._idle and (due_s := self._next_s(start_s)) <= time.perf_counter() and due_s < end_s:
            descriptor, read = self._idle.popleft(), self._work[self._number % len(self._work)]
            self._busy[descriptor] = _Asked(due_s, read.body)
            self._sockets[descriptor].sendall(read.request)
            self._number += 1

    def _answers(self, start_s: float, end_s: float) -> None:
        due_s = self._next_s(start_s)
        until_s = due_s if self._rate and self._idle and due_s < end_s else time.perf_counter() + ANSWER_S
        readable, _, _ = select.select(self._busy, [], [], max(0.0, until_s - time.perf_counter()))
        for descriptor in readable:
            self._take(descriptor)
        if not readable and time.perf_counter() > max(end_s, due_s) + ANSWER_S:
            raise LogStoreError(f"{len(self._busy)} reads were not answered within {ANSWER_S:g} s")

    def _take(self, descriptor: int) -> None:
        piece = self._sockets[descriptor].recv(65_536)
        if not piece:
            raise LogStoreError("the server closed a connection in the middle of an answer")
        data = self._partial.pop(descriptor, b"") + piece
        if not _whole(data):
            self._partial[descriptor] = data
            return
        asked = self._busy.pop(descriptor)
        self._late_ms.append((time.perf_counter() - asked.due_s) * 1000)
        self._wrong += not (data.startswith(b"HTTP/1.1 200 ") and data.endswith(b"\r\n\r\n" + asked.body))
        self._idle.append(descriptor)


def _whole(data: bytes) -> bool:
    """True when an answer has arrived to its last byte."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return False
    at = data.lower().find(_LENGTH, 0, head) + len(_LENGTH)
    return len(data) >= head + 4 + int(data[at : data.index(b"\r\n", at)])


def _connect(url: str) -> socket.socket:
    address = urlsplit(url)
    sock = socket.create_connection((address.hostname, address.port), timeout=ANSWER_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
