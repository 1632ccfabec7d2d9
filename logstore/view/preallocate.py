"""Preallocation: blocks on the disk, taken before they are written to, and the error when there are none."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from logstore.model.errors import DiskFull

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def allocate(path: Path, size_bytes: int) -> None:
    """Give a file its blocks before it is written to through a map: there a full disk is a SIGBUS."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    finally:
        os.close(fd)


@contextlib.contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Block in which errors of a full disk become DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise full(path, error.strerror) from error


def full(path: Path, why: object) -> DiskFull:
    """The error of a view whose disk is full."""
    return DiskFull(f"the view's disk is full: {path}: {why}; free some space, it goes on by itself")
