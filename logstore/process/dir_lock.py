"""Directory lock: a file of a data directory that a process, or all of one mark, have locked (flock) while they live.

The text of the file is for others: it begins with the holder's process id, and counts only while the lock is held.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from logstore.model.errors import SetupError
from logstore.process.private_files import private_dir

WAIT_S = 3.0  # a process that was just killed needs a moment to be gone
AGAIN_S = 0.02


class DirLock:
    """The lock at `path`, in the data directory that it stands for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def hold(self, in_use: Callable[[str], str]) -> Iterator[int]:
        """Hold the lock; yields its descriptor, and a child that inherits that goes on holding it.

        Raises SetupError when the directory cannot be written, and with `in_use(process id)` while another process
        holds the lock.
        """
        fd = self._open()
        try:
            deadline = time.monotonic() + WAIT_S
            while not _try_lock(fd, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise SetupError(in_use((_text(fd).split() or ["?"])[0]))
                time.sleep(AGAIN_S)
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def share(self, mark: str, in_use: Callable[[str], str], first: Callable[[], object]) -> Iterator[int]:
        """Hold the lock together with all processes that come with the same mark; yields its descriptor.

        `first` is called for the one that finds nobody there, before others come. Raises SetupError when the directory
        cannot be written, and with `in_use(text)` while others hold the lock, alone or with another mark.
        """
        fd = self._open()
        try:
            deadline = time.monotonic() + WAIT_S
            while not self._try_share(fd, mark, first):
                if time.monotonic() > deadline:
                    raise SetupError(in_use(_text(fd)))
                time.sleep(AGAIN_S)
            yield fd
        finally:
            os.close(fd)

    def write(self, fd: int, text: str) -> None:
        """Replace the text. Requires: `fd` holds the lock. Raises SetupError, on a full disk."""
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, text.encode(), 0)
        except OSError as error:
            raise SetupError(
                f"cannot write {self.path}: {error.strerror}; free some space, or choose another --data-dir"
            ) from error

    def _open(self) -> int:
        directory = self.path.parent
        try:
            private_dir(directory)
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SetupError(
                f"cannot use the data directory {directory}: {error.strerror}; choose another with --data-dir"
            ) from error

    def _try_share(self, fd: int, mark: str, first: Callable[[], object]) -> bool:
        """The mark is written by who is alone, and read by who is not: all who stay have the same."""
        if _try_lock(fd, fcntl.LOCK_EX):
            first()
            self.write(fd, mark)
        if not _try_lock(fd, fcntl.LOCK_SH):  # from alone to shared is two steps, and another may come in between
            return False
        if _text(fd) == mark:
            return True
        fcntl.flock(fd, fcntl.LOCK_UN)
        return False

    def holder(self) -> str | None:
        """Text of the process that holds the lock alone; None when none does. Raises OSError."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return None if _try_lock(fd, fcntl.LOCK_SH) else _text(fd)
        finally:
            os.close(fd)


def _text(fd: int) -> str:
    return os.pread(fd, 64, 0).decode()


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
