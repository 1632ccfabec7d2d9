"""Heartbeat: a child process tells its supervisor how it is.

A byte on an inherited pipe says that it makes progress; silence is a stall. A child that ends is started again, unless
it ends with the status HOPELESS: then the whole node ends, with the last line that the child said.
"""

import contextlib
import os

HOPELESS = 4  # exit status: started again it would end again, until a person has done something


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
