"""Lease: one batch job at a time per table.

`_JOB/<number>.json`, highest number counts; taken by exclusive create of the next number.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from logstore.model.errors import JobRunning, StorageUnreachable
from logstore.snapshot.storage import Storage


def live(storage: Storage, folder: str) -> str | None:
    """The job that holds the lease now."""
    _, held = _latest(storage, folder)
    return None if held is None or held["until_ms"] <= _now_ms() else str(held["job"])


@contextmanager
def lease(storage: Storage, folder: str, job: str, what: str, ttl_s: float) -> Iterator[None]:
    """Hold the lease, renewed by a thread every third of `ttl_s`; raises JobRunning while another job holds it."""
    number, held = _latest(storage, folder)
    if held is not None and held["until_ms"] > _now_ms():
        raise JobRunning(f"{held['what']} {held['job']} works on the table; wait for it, or {ttl_s:g} s after it died")
    path = _path(folder, number + 1)
    try:
        storage.create(path, _document(job, what, ttl_s))
    except FileExistsError as error:
        raise JobRunning("another job took the table at this moment; try again when it is done") from error
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(storage, path, job, what, ttl_s, ended), name="lease", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join(ttl_s)
        storage.replace(path, _document(job, what, 0))
        for older in range(max(1, number - 8), number):
            storage.remove(_path(folder, older))


def _renew(storage: Storage, path: str, job: str, what: str, ttl_s: float, ended: threading.Event) -> None:
    while not ended.wait(ttl_s / 3):
        try:
            storage.replace(path, _document(job, what, ttl_s))
        except StorageUnreachable:
            # the next round tries again; a lease that runs out costs the job its final compare-and-swap at worst
            continue


def _latest(storage: Storage, folder: str) -> tuple[int, dict[str, Any] | None]:
    names = storage.list(folder)
    if not names:
        return 0, None
    held: dict[str, Any] = orjson.loads(storage.read(f"{folder}/{names[-1]}"))
    return int(names[-1].removesuffix(".json")), held


def _path(folder: str, number: int) -> str:
    return f"{folder}/{number:010d}.json"


def _document(job: str, what: str, ttl_s: float) -> bytes:
    return orjson.dumps({"job": job, "what": what, "until_ms": _now_ms() + int(ttl_s * 1000)})


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
