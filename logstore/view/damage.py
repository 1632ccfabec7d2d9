"""Damage: errors of LMDB as errors of this store, and the one damage that LMDB cannot notice.

the bytes are not what was written         Corrupted: the worker throws the view away and builds it again
the disk did not read or write (EIO)       Corrupted: what lies there is not to be trusted any more
the file ends before its last page         Corrupted, found before it is mapped: to touch what is missing is a SIGBUS
no room on the disk                        DiskFull
no memory, descriptor or reader slot left  NotYet: the view is sound, and tried again; so is whatever else LMDB may say
"""

import contextlib
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import lmdb

from logstore.model.errors import Corrupted, LogStoreError, NotYet
from logstore.view import preallocate

_DAMAGE = (
    lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PanicError, lmdb.InvalidError, lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
    lmdb.BadTxnError, lmdb.BadDbiError, lmdb.CursorFullError, lmdb.PageFullError, lmdb.NotFoundError,
)  # fmt: skip
_EIO = os.strerror(errno.EIO)  # it has no class of its own

# The two meta pages (mdb.c, MDB_page and MDB_meta): page head, magic, version, address, map size; two databases, of
# which the first
# says the page size where it would have a padding; the last page in use, and the transaction. That of the higher
# transaction counts.
_META = struct.Struct("<16xII8x8xI44x48xQQ")
_MAGIC = 0xBEEFC0DE
_LEAST_PAGE, _LARGEST_PAGE = 256, 1 << 16


def translated(path: Path, error: lmdb.Error) -> LogStoreError:
    """The store's error for LMDB's error about the view at `path`."""
    if isinstance(error, lmdb.DiskError):
        return preallocate.full(path, error)
    if isinstance(error, _DAMAGE) or _EIO in str(error):
        return Corrupted(f"the view {path} is damaged: {error}; its worker builds it again from the log")
    return NotYet(f"the view {path} cannot be used now: {error}; it is tried again")


@contextlib.contextmanager
def translating(path: Path) -> Iterator[None]:
    """LMDB's errors become those of `translated`.

    What runs for every read or commit catches them itself, which costs nothing.
    """
    try:
        yield
    except lmdb.Error as error:
        raise translated(path, error) from error


def check_whole(path: Path) -> None:
    """Compare the view's file with what it says of its own size; raises Corrupted when it ends too early, OSError."""
    with (path / "data.mdb").open("rb", buffering=0) as file:
        size, used = os.fstat(file.fileno()).st_size, _used_bytes(file.fileno())
    if size < used:
        raise Corrupted(
            f"the view {path} is damaged: its file has {size:,} bytes of {used:,}; its worker builds it again from the "
            "log"
        )


def _used_bytes(fd: int) -> int:
    """Bytes that the file must have at least.

    What has no meta page is no environment: LMDB says so itself, unless it is empty.
    """
    first = _meta(os.pread(fd, _META.size, 0))
    if first is None:
        return _META.size
    page_bytes, last_page, transaction = first
    second = _meta(os.pread(fd, _META.size, page_bytes))
    if second is not None and second[2] > transaction:
        last_page = second[1]
    return (last_page + 1) * page_bytes


def _meta(raw: bytes) -> tuple[int, int, int] | None:
    if len(raw) < _META.size:
        return None
    magic, _, page_bytes, last_page, transaction = _META.unpack(raw)
    if magic != _MAGIC or not _LEAST_PAGE <= page_bytes <= _LARGEST_PAGE:
        return None
    return page_bytes, last_page, transaction
