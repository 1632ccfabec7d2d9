"""Gate: every reading of a shared view passes it, so that nothing is open while all have to stand still.

That is when a map is taken over that its writer has grown, and when the process forks. Coming in and going out cost two
operations on a list, each of them atomic; who finds the gate closed waits, unless it is inside already: it would wait
for itself.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident

from logstore.model.errors import NotYet

PATIENCE_S = 1.0  # for those inside to go out, and for the gate to open again


class Gate:
    """The gate of a process."""

    def __init__(self) -> None:
        self._inside: list[int] = []  # idents of threads, each as often as it has come in
        self.renew()

    def renew(self) -> None:
        """Open, with nobody inside: in a forked child, which has one thread."""
        self._inside.clear()
        self._closed = False
        self._closing, self._opened, self._left = threading.Lock(), threading.Event(), threading.Event()

    def enter(self) -> int:
        """Come in; returns what `leave` is given, by whichever thread. Raises NotYet when the gate stays closed."""
        me = get_ident()
        self._inside.append(me)
        if self._closed and self._inside.count(me) == 1:
            self._wait(me)
        return me

    def leave(self, me: int) -> None:
        """Go out of the gate."""
        self._inside.remove(me)
        if self._closed:
            self._left.set()

    @contextmanager
    def passed(self) -> Iterator[None]:
        """Be inside the gate for a block."""
        me = self.enter()
        try:
            yield
        finally:
            self.leave(me)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Nobody but this thread comes in meanwhile; True when all the others have gone out, too."""
        if not self._closing.acquire(timeout=PATIENCE_S):
            yield False
            return
        try:
            self._opened.clear()
            self._closed = True
            yield self._emptied()
        finally:
            self._closed = False
            self._opened.set()
            self._closing.release()

    def _emptied(self) -> bool:
        me, deadline_s = get_ident(), time.monotonic() + PATIENCE_S
        while True:
            self._left.clear()
            if all(other == me for other in list(self._inside)):
                return True
            if not self._left.wait(deadline_s - time.monotonic()):
                return False

    def _wait(self, me: int) -> None:
        deadline_s = time.monotonic() + 2 * PATIENCE_S
        while self._closed:  # its closer looks only after that, so one of both sees the other
            self._inside.remove(me)
            self._left.set()
            if not self._opened.wait(deadline_s - time.monotonic()):
                raise NotYet("the views of this process are being opened anew; try again")
            self._inside.append(me)


GATE = Gate()
