"""Heartbeat: a process tells its supervisor how it is: a node's, or systemd.

A byte on an inherited pipe, or a datagram to systemd (`process.service_manager`), says that it makes progress; silence
is a stall. A child that ends is started again, unless it ends with the status HOPELESS: then the whole node ends, with
the last line that the child said.
"""

import contextlib
import os

from logstore.process.service_manager import ALIVE, READY, ServiceManager

HOPELESS = 4  # exit status: started again it would end again, until a person has done something


class Heartbeat:
    """The child's end. Beat from the loop whose progress matters, not from a timer of its own."""

    def __init__(self, fd: int | None) -> None:
        """`fd`: the write end of the supervisor's pipe; None: systemd listens, or nobody."""
        self._fd, self._manager, self._begun = fd, ServiceManager(), False
        if fd is not None:
            os.set_blocking(fd, False)

    @property
    def environ(self) -> dict[str, str]:
        """Environment of a program that this process becomes, and that beats in its place."""
        return self._manager.environ

    def beat(self) -> None:
        """Say "I am well"; never blocks."""
        if self._fd is None:
            self._manager.tell(ALIVE if self._begun else READY)
            self._begun = True
            return
        with contextlib.suppress(
            BlockingIOError, BrokenPipeError
        ):  # full: many beats wait; broken: the supervisor is gone, so are we soon
            os.write(self._fd, b".")
