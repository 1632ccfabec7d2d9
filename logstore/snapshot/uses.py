"""Uses: snapshots that nodes fetch and jobs read now; garbage collection spares them.

    _USES/<node>-<worker>-<partition>.json   a node fetches
    _READS/<what>-<job>.json                 a job reads snapshots, archive and log, without holding the table's lease

A mark counts for a time, so that a node that died keeps nothing, and is renewed as long as the fetch goes on, however
slow a single file is.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import orjson

from logstore.model.errors import StorageUnreachable
from logstore.snapshot.storage import Storage

USE_S = 600.0

log = logging.getLogger(__name__)


@contextmanager
def in_use(storage: Storage, path: str, names: Sequence[str], for_s: float) -> Iterator[None]:
    """Mark snapshots as used, renewed by a thread every third of `for_s`. Raises StorageUnreachable."""
    _mark(storage, path, names, for_s)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(storage, path, names, for_s, ended), name="uses", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join(for_s)
        storage.remove(path)


def used(storage: Storage, folder: str) -> Iterator[tuple[str, list[str]]]:
    """Users and their snapshots, as of now. A mark that cannot be read is removed: its node writes it again."""
    for name in storage.list(folder):
        path = f"{folder}/{name}"
        try:
            mark = orjson.loads(storage.read(path))
            if mark["until_ms"] > _now_ms():
                yield name.removesuffix(".json"), [str(snapshot) for snapshot in mark["names"]]
        except FileNotFoundError:  # it is done with them in this moment
            continue
        except (ValueError, KeyError, TypeError):
            storage.remove(path)


def _renew(storage: Storage, path: str, names: Sequence[str], for_s: float, ended: threading.Event) -> None:
    while not ended.wait(for_s / 3):
        try:
            _mark(storage, path, names, for_s)
        except StorageUnreachable as error:  # the next round tries again, while the mark still counts
            log.warning("%s is not renewed: %s", path, error)


def _mark(storage: Storage, path: str, names: Sequence[str], for_s: float) -> None:
    storage.replace(path, orjson.dumps({"names": list(names), "until_ms": _now_ms() + int(for_s * 1000)}))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
