"""Shared storage: proof that executors on other machines see the files of a `file://` storage that this machine sees.

The driver writes a file of random bytes, `_seen/<8 hex digits>`. Every task of an engine whose executors are elsewhere
reads it before it does anything else, and some tasks that do nothing else are run first, so that a job is refused
before it has cut or archived anything. A path that is there on both machines, and not the same folder, is found by it.
"""

import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

from logstore.model.errors import LogStoreError, UsageError
from logstore.snapshot.storage import Storage

LEFT_S = 7 * 86_400.0  # no job takes so long: the driver that wrote it was killed
_FOLDER = "_seen"
T = TypeVar("T")
R = TypeVar("R")


class Nonce(NamedTuple):
    """File that the driver wrote, and its bytes."""

    storage: Storage
    path: str
    text: bytes


def write_nonce(storage: Storage) -> Nonce:
    """Write a file that only who sees this storage can know, and remove those of killed drivers.

    Raises StorageUnreachable.
    """
    for path in [f"{_FOLDER}/{name}" for name in storage.list(_FOLDER)]:
        with suppress(FileNotFoundError):  # another job removes its own
            if storage.age_s(path) > LEFT_S:
                storage.remove(path)
    nonce = Nonce(storage, f"{_FOLDER}/{secrets.token_hex(4)}", secrets.token_hex(16).encode())
    storage.create(nonce.path, nonce.text)
    return nonce


def remove(nonce: Nonce) -> None:
    """Remove the file, and its folder where it was the last. Raises StorageUnreachable."""
    nonce.storage.remove(nonce.path)
    nonce.storage.tidy(_FOLDER)


def check_seen(_: object, nonce: Nonce) -> None:
    """Check that this process sees the file. Raises UsageError."""
    try:
        seen = nonce.storage.read(nonce.path)
    except (FileNotFoundError, LogStoreError):
        seen = b""
    if seen != nonce.text:
        raise UsageError(
            f"an executor on {socket.gethostname()} does not see {nonce.storage.url} as the driver does: with "
            "executors on other machines a file:// storage has to be one disk that all of them mount at this path; "
            "give an object store (--storage s3://BUCKET/PREFIX), or --engine local"
        )


def run_seen(item: T, function: Callable[[T], R], nonce: Nonce) -> R:
    """Result of a task, where the file is seen. Raises UsageError, and what the task does."""
    check_seen(item, nonce)
    return function(item)
