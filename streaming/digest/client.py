"""Digest client: a worker's end of its digester process (`digester.py` draws the messages).

Keeps the digester running, and hands its answers over.

A digester that dies fails what it had begun: a cut whose pin is lost has no digest, a generation half built is built
again.
"""

import itertools
import logging
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgpack

from logstore.process import child
from streaming.digest.digester import MESSAGE_BYTES, DigestRequest

log = logging.getLogger(__name__)

SEND_S = 0.005  # a digester that takes no message for so long is as good as dead to the lane
AGAIN_S = 0.5
_PATHS = 100  # of one message: a path has 4,096 bytes at most, in practice a hundred
DIED = "the digester died"


class PendingDigest:
    """Order to the digester, and what comes of it. `done` is set when `outcome` or `failure` is."""

    def __init__(
        self, number: int, at_end: Callable[["PendingDigest"], None] = lambda _: None, of: tuple[str, int] | None = None
    ) -> None:
        """`of`: the view, and the cut at which it is pinned."""
        self.number, self.of, self._at_end = number, of, at_end
        self.pinned_at: int | None = None
        self.worked = 0  # entries that were gone through for it
        self.begun, self.done = threading.Event(), threading.Event()
        self.outcome: tuple[Any, ...] | None = None
        self.failure: str | None = None

    def end(self, outcome: tuple[Any, ...] | None, failure: str | None) -> None:
        """Settle the request with a result or a failure."""
        self.outcome, self.failure = outcome, failure
        self.done.set()
        self.begun.set()
        self._at_end(self)


class DigestClient(threading.Thread):
    """Client of the digester. Runs until `close`; calls come from any thread, and block for no longer than SEND_S."""

    def __init__(self) -> None:
        super().__init__(name="digest-client", daemon=True)
        self._numbers = itertools.count()
        self._pending: dict[int, PendingDigest] = {}
        self._gone_through = 0  # entries, in all
        self._paths: set[str] = set()
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = threading.Event()

    @property
    def pid(self) -> int | None:
        """The digester's process id; None while there is none."""
        return self._process.pid if self._process else None

    def views(self, paths: Iterable[str]) -> None:
        """Have these views open, and no others, so that a pin is begun at once."""
        wanted = set(paths)
        with self._lock:
            self._send_views("open", wanted - self._paths)
            self._send_views("shut", self._paths - wanted)
            self._paths = wanted

    def pin(
        self, path: str, base_dir: str | None, at_end: Callable[[PendingDigest], None], cut: int = -1
    ) -> PendingDigest:
        """Pin the view as it is now, which is at `cut`, then compute its digest.

        `begun` is set with `pinned_at`, `done` with (hex, entries).
        """
        return self._ask(PendingDigest(next(self._numbers), at_end, (path, cut)), "pin", path, base_dir)

    def worked(self, path: str, cut: int) -> int | None:
        """Entries that the digester has gone through, while a view's digest at a cut is under way; None: it is not.

        It takes one after the other: what it does before this one's turn counts as well.
        """
        with self._lock:
            under_way = any(pending.of == (path, cut) for pending in self._pending.values())
            return self._gone_through if under_way else None

    def build(self, order: DigestRequest) -> PendingDigest:
        """Build a generation in the digester.

        `begun` is set when the worker has to keep what it applies, then call `last`; `done` with (next offset).
        """
        return self._ask(PendingDigest(next(self._numbers)), "build", order._asdict())

    def last(self, pending: PendingDigest) -> None:
        """Tell the digester that the lane's change buffer is open: it copies the rest."""
        with self._lock:
            self._send("last", pending.number)

    def close(self) -> None:
        """End the digester process."""
        self._closing.set()
        with self._lock:
            if self._sock is not None:
                self._sock.shutdown(socket.SHUT_RDWR)
        self.join(10)

    def run(self) -> None:
        """The thread: starts the process, hears it, starts it again when it has died."""
        while not self._closing.is_set():
            mine, process = self._start()
            self._hear(mine)
            with self._lock:
                self._sock = self._process = None
                lost, self._pending = self._pending, {}
            mine.close()
            process.kill()
            process.wait(10)
            for pending in lost.values():
                pending.end(None, DIED)
            if not self._closing.wait(AGAIN_S):
                log.warning("%s with status %s; it is started again", DIED, process.returncode)

    def _start(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        mine, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            argv = child.python("streaming.digest.digester", str(other.fileno()))
            process = child.spawn(argv, pass_fds=(other.fileno(),))
        with self._lock:
            self._sock, self._process = mine, process
            if self._closing.is_set():
                mine.shutdown(socket.SHUT_RDWR)
            self._send_views("open", self._paths)
        return mine, process

    def _hear(self, sock: socket.socket) -> None:
        while True:
            try:
                raw = sock.recv(MESSAGE_BYTES)
            except OSError:
                raw = b""
            if not raw:
                return
            word, number, *rest = msgpack.unpackb(raw)
            self._on_answer(word, number, rest)

    def _on_answer(self, word: str, number: int, rest: list[Any]) -> None:
        pending = self._pending.get(number)
        if pending is None:
            return
        if word == "moved":
            self._gone_through += max(rest[0] - pending.worked, 0)
            pending.worked = rest[0]
            return
        if word in ("pinned", "round"):
            pending.pinned_at = rest[0] if rest else None
            pending.begun.set()
            return
        with self._lock:
            self._pending.pop(number, None)
            self._gone_through += 1  # its turn is over: what waits behind it has come nearer
        pending.end(*((None, str(rest[0])) if word == "failed" else (tuple(rest), None)))

    def _ask(self, pending: PendingDigest, word: str, *rest: object) -> PendingDigest:
        with self._lock:
            self._pending[pending.number] = pending
            sent = self._send(word, pending.number, *rest)
            if not sent:
                del self._pending[pending.number]
        if not sent:
            pending.end(None, "the digester does not answer")
        return pending

    def _send_views(self, word: str, paths: set[str]) -> None:
        """Send the views to open; a message that gets lost is made good when the view is pinned."""
        ordered = sorted(paths)
        for first in range(0, len(ordered), _PATHS):
            self._send(word, ordered[first : first + _PATHS])

    def _send(self, *message: object) -> bool:
        """Requires: the lock is held."""
        if self._sock is None:
            return False
        deadline = time.monotonic() + SEND_S
        while True:
            try:
                self._sock.send(msgpack.packb(message), socket.MSG_DONTWAIT)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return False
                self._closing.wait(0.0005)
            except OSError:
                return False
            else:
                return True
