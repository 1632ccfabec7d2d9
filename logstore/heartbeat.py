"""Heartbeat: how a child process tells its supervisor that it makes progress. A byte on an inherited pipe; silence is a stall."""

import contextlib
import os


class Heartbeat:
    """The child's end. Beat from the loop whose progress matters, not from a timer of its own."""

    def __init__(self, fd: int | None) -> None:
        """`fd`: the write end of the supervisor's pipe; None when nobody listens."""
        self._fd = fd
        if fd is not None:
            os.set_blocking(fd, False)

    def beat(self) -> None:
        """Say "I am well"; never blocks."""
        if self._fd is not None:
            with contextlib.suppress(
                BlockingIOError, BrokenPipeError
            ):  # full: many beats wait; broken: the supervisor is gone, so are we soon
                os.write(self._fd, b".")
