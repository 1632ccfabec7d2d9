"""Halt: the node that runs on a data directory of this machine is ended, whoever started it.

The process that is signalled is proved to be the node: it holds the lock of the directory open, and the handle (pidfd)
is that of no later process with the same number.
"""

import contextlib
import os
import select
import signal
from pathlib import Path
from typing import Any, NamedTuple

from logstore.model.errors import SetupError
from logstore.process.running_node import lock_of, running_on

HURRY_S = 10.0  # what is left of a node ends with SIGKILL at a second signal
KILLED_S = 10.0


class Halted(NamedTuple):
    """The node that was ended."""

    pid: int
    record: dict[str, Any]  # as it had recorded itself; empty where it was only starting
    in_order: bool


def halt(data_dir: Path, timeout_s: float) -> Halted | None:
    """End the node on `data_dir`: in order, in a hurry after `timeout_s`, then by force. None when none runs.

    Raises SetupError when it belongs to another user, or does not end.
    """
    pid = _holder(data_dir)
    if pid is None:
        return None
    record = running_on(data_dir) or {}
    with _handle(pid) as handle:
        steps = ((signal.SIGTERM, timeout_s), (signal.SIGTERM, HURRY_S), (signal.SIGKILL, KILLED_S))
        for number, (sign, patience_s) in enumerate(steps):
            if handle is None or _holder(data_dir) != pid:  # it ended by itself
                return Halted(pid, record, number <= 1)
            _send(handle, sign, pid)
            if select.select([handle], [], [], patience_s)[0]:
                return Halted(pid, record, number == 0)
    raise SetupError(f"the node with the process id {pid} does not end, not even by SIGKILL: is its disk stuck?")


def _holder(data_dir: Path) -> int | None:
    """Process id of the node that holds the directory. Raises SetupError where that cannot be proved."""
    lock = lock_of(data_dir)
    try:
        text = lock.holder()
    except OSError as error:
        raise SetupError(f"cannot look at {lock.path}: {error.strerror}; whose node is it?") from error
    if text is None:
        return None
    if text.isdigit() and (_has_open(int(text), lock.path) or lock.holder() is None):
        return int(text)
    raise SetupError(f"{lock.path} is held, and not by the process {text or '?'}: `lsof {lock.path}` shows by which")


def _has_open(pid: int, path: Path) -> bool:
    """True when the process has the file open. Raises SetupError when that may not be seen."""
    wanted = path.stat()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if os.path.samestat(descriptor.stat(), wanted):
                    return True
    except FileNotFoundError:  # it has ended
        return False
    except PermissionError as error:
        raise _not_ours(pid) from error
    return False


@contextlib.contextmanager
def _handle(pid: int) -> Any:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _send(handle: int, sign: signal.Signals, pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended, which the handle tells
        try:
            signal.pidfd_send_signal(handle, sign)
        except PermissionError as error:
            raise _not_ours(pid) from error


def _not_ours(pid: int) -> SetupError:
    return SetupError(f"the node with the process id {pid} belongs to another user; end it as that user")
