"""Lease: one batch job at a time per table.

`_JOB/<number>.json`, highest number counts; taken by exclusive create of the next number. A holder that was suspended,
or whose clock is wrong, may have lost it without knowing: what must not happen then is proved by `holder` after it was
done. A file that cannot be read is given the time in which a job that lives writes it again; then the next number is
taken.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import orjson

from logstore.model.errors import JobRunning, StorageUnreachable
from logstore.snapshot.storage import Storage

ASK_S = 0.2


class _Holder(NamedTuple):
    job: str
    what: str
    until_ms: int


_UNREADABLE = _Holder("", "a job whose lease cannot be read,", 0)


def live(storage: Storage, folder: str) -> str | None:
    """The job that holds the lease now; "" when a lease is there and cannot be read."""
    _, held = _latest(storage, folder)
    return None if held is None or (held != _UNREADABLE and held.until_ms <= _now_ms()) else held.job


def holder(storage: Storage, folder: str) -> str | None:
    """The job that took the lease last, whether or not its time is over."""
    _, held = _latest(storage, folder)
    return None if held is None else held.job


@contextmanager
def lease(storage: Storage, folder: str, job: str, what: str, ttl_s: float) -> Iterator[None]:
    """Hold the lease, renewed by a thread every third of `ttl_s`; raises JobRunning while another job holds it."""
    number, held = _readable(storage, folder, ttl_s)
    if held is not None and held.until_ms > _now_ms():
        raise JobRunning(f"{held.what} {held.job} works on the table; wait for it, or {ttl_s:g} s after it died")
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
        storage.remove_all([_path(folder, older) for older in range(max(1, number - 8), number)])


def _renew(storage: Storage, path: str, job: str, what: str, ttl_s: float, ended: threading.Event) -> None:
    while not ended.wait(ttl_s / 3):
        try:
            storage.replace(path, _document(job, what, ttl_s))
        except StorageUnreachable:
            # the next round tries again; a lease that runs out costs the job its final compare-and-swap at worst
            continue


def _readable(storage: Storage, folder: str, ttl_s: float) -> tuple[int, _Holder | None]:
    """Read the latest lease; one that cannot be read is waited for as long as its holder may take to renew it."""
    end_s = time.monotonic() + ttl_s / 2
    while True:
        number, held = _latest(storage, folder)
        if held != _UNREADABLE or time.monotonic() > end_s:
            return number, held
        time.sleep(min(ASK_S, ttl_s / 10))


def _latest(storage: Storage, folder: str) -> tuple[int, _Holder | None]:
    names = [name for name in storage.list(folder) if name.removesuffix(".json").isdigit()]
    if not names:
        return 0, None
    number = int(names[-1].removesuffix(".json"))
    try:
        found = orjson.loads(storage.read(f"{folder}/{names[-1]}"))
        return number, _Holder(str(found["job"]), str(found["what"]), int(found["until_ms"]))
    except (ValueError, KeyError, TypeError):
        return number, _UNREADABLE


def _path(folder: str, number: int) -> str:
    return f"{folder}/{number:010d}.json"


def _document(job: str, what: str, ttl_s: float) -> bytes:
    return orjson.dumps({"job": job, "what": what, "until_ms": _now_ms() + int(ttl_s * 1000)})


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
