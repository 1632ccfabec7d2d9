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

PATIENCE_S = 5.0  # for those inside to go out, and for the gate to open again


class Gate:
    """The gate of a process."""

    def __init__(self) -> None:
        self._inside: list[int] = []  # idents of threads, each as often as it has come in
        self.come, self.go = (
            self._inside.append,
            self._inside.remove,
        )  # the two of `enter` and `leave`, for the quickest
        self.renew()

    def renew(self) -> None:
        """Open, with nobody inside: in a forked child, which has one thread."""
        self._inside.clear()
        self.closed = False
        self._closing, self._opened, self._left = threading.Lock(), threading.Event(), threading.Event()

    def enter(self) -> int:
        """Come in; returns what `leave` is given, by whichever thread. Raises NotYet when the gate stays closed."""
        me = get_ident()
        self.come(me)
        if self.closed:
            self.wait(me)
        return me

    def leave(self, me: int) -> None:
        """Go out of the gate."""
        self.go(me)
        if self.closed:
            self.left()

    def wait(self, me: int) -> None:
        """Wait until the gate is open, having come in while it was closed, unless inside before. Raises NotYet."""
        if self._inside.count(me) > 1:
            return
        deadline_s = time.monotonic() + 2 * PATIENCE_S
        while self.closed:  # its closer looks only after that, so one of both sees the other
            self.go(me)
            self.left()
            if not self._opened.wait(deadline_s - time.monotonic()):
                raise NotYet("the views of this process are being opened anew; try again")
            self.come(me)

    def left(self) -> None:
        """Tell who waits for everybody to go out that somebody has."""
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
            self.closed = True
            yield self._emptied()
        finally:
            self.closed = False
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


GATE = Gate()
