"""Environment of a view: the LMDB files it lies in, how they are opened, and whether a power cut may have torn them.

Durability: `none` leaves flushing to the kernel: it survives a killed process, not a power cut, so a file beside the
environment names the boot during which it was written, and after another boot the view is thrown away and built again
from the log. `commit` flushes every commit (fsync). The log is the truth in both cases.
"""

import os
import shutil
from pathlib import Path
from typing import Any, Literal

import lmdb

from logstore.model.errors import DiskFull
from logstore.process import durable
from logstore.view import damage, layout, paths, preallocate

Sync = Literal["none", "commit"]

PAGE = 4_096
_LOCK_BYTES = 64 * layout.MAX_READERS + PAGE  # a slot is a cache line


def discard_if_torn(path: Path) -> bool:
    """Remove a view that was written without sync during an earlier boot; True when it was removed."""
    mark = path / "unsynced"
    if not mark.exists() or mark.read_bytes() == paths.boot_id().encode():
        return False
    (path / "data.mdb").unlink(missing_ok=True)  # before the mark: without it the data would be believed
    shutil.rmtree(path)
    durable.flush(path.parent)
    return True


def _mark_unsynced(path: Path) -> None:
    mark, boot = path / "unsynced", paths.boot_id().encode()
    if mark.exists() and mark.read_bytes() == boot:
        return
    try:
        mark.write_bytes(boot)
        durable.flush(mark)
    except OSError:  # an empty mark would have a sound view thrown away
        mark.unlink(missing_ok=True)
        raise
    durable.flush(path)


def clear_unsynced(path: Path, env: Any) -> None:
    """Flush the environment, and take away the mark that it may lack what was written last."""
    with damage.translating(path):
        env.sync(True)
    (path / "unsynced").unlink(missing_ok=True)
    durable.flush(path)


def prepare(path: Path, sync: Sync, map_bytes: int) -> Any:
    """The opened environment. What a full disk leaves half made is removed: it held nothing yet."""
    fresh = not (path / "data.mdb").exists()
    if not fresh:
        damage.check_whole(path)  # now: LMDB fills with zeros what is missing
    try:
        with preallocate.room_for(path):
            path.mkdir(parents=True, exist_ok=True)
            if sync == "none":
                _mark_unsynced(path)
            preallocate.allocate(path / "lock.mdb", _LOCK_BYTES)
        return _open(path, sync, map_bytes)
    except DiskFull:
        if fresh:
            shutil.rmtree(path, ignore_errors=True)
        raise


def _open(path: Path, sync: Sync, map_bytes: int) -> Any:
    quick = sync == "none"
    size = max(map_bytes, (path / "data.mdb").stat().st_size if (path / "data.mdb").exists() else 0)
    with damage.translating(path):
        env = lmdb.open(
            str(path), map_size=size, max_dbs=layout.DATABASES, max_readers=layout.MAX_READERS,
            sync=not quick, metasync=not quick, writemap=quick, readahead=False,
        )  # fmt: skip
    try:
        if not quick:
            reach(path, env.info()["map_size"])
    except BaseException:
        env.close()
        raise
    return env


def reach(path: Path, size_bytes: int) -> None:
    """Have the file reach as far as its map, in holes, as LMDB does itself with writemap.

    Without, a commit that ends in pages it has freed again leaves them out, and a sound file would look cut short.
    """
    with preallocate.room_for(path):
        if (path / "data.mdb").stat().st_size < size_bytes:
            os.truncate(path / "data.mdb", size_bytes)
