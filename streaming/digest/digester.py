"""Digester: a worker's process that pins views at cuts, computes digests from the pins and builds new generations.

The lane never waits for more than the pin.

    worker -> digester                                      digester -> worker
    ["open", [path, ...]]          open these views
    ["shut", [path, ...]]          close these
    ["pin", id, path, base dir]    begin a reading now      ["pinned", id, next offset];
                                                            later ["digest", id, hex, entries]
                                                            ["moved", id, entries]: of the work at hand, gone through
    ["build", id, {...}]           see `DigestRequest`      ["round", id]: the worker keeps what it applies from now on
    ["last", id]                   ... and says so          ["built", id, next offset]
                                                            ["failed", id, why]

One datagram of msgpack each, over a socket pair. One thread hears and pins, another one works; digests go before
builds, and of several pins of one view the newest counts. A pin keeps the writer from reusing pages: it is given up
when its turn has not come, and nothing went on, for PIN_S. What nobody expected ends the process, and with it every
pin: the worker starts another.
"""

import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgpack

from logstore.model.errors import Corrupted, LogStoreError, NotYet
from logstore.process import descriptors, logs
from logstore.snapshot.sst import SstReader
from logstore.view.generation import Builder
from logstore.view.layout import Base
from logstore.view.reader import Reading, ViewReader
from logstore.view.view import ViewIdentity
from streaming.digest.view_digest import digest_of

log = logging.getLogger(__name__)

PIN_S = 60.0
MESSAGE_BYTES = 1 << 17
_SWITCH_S = 0.001  # Python's 5 ms between threads would be most of what the lane waits for a pin
_NICE = 5  # reads go first
_SAY_S = 0.2  # between two words on how far it is


class DigestRequest(NamedTuple):
    """Request for the next generation at `path`, from the view at `source` (None: an empty one at the cut)."""

    source: str | None
    path: str
    identity: dict[str, Any]
    base: dict[str, Any]
    sync: Literal["none", "commit"]


@dataclass(order=True)
class _DigestRun:
    rank: int  # digests 0, builds 1
    number: int
    path: str = field(compare=False)
    reading: Reading | None = field(compare=False, default=None)
    base_dir: str | None = field(compare=False, default=None)
    order: DigestRequest | None = field(compare=False, default=None)
    release: ExitStack = field(compare=False, default_factory=ExitStack)
    begun_s: float = field(compare=False, default=0.0)


class Digester:
    """The digester process."""

    def __init__(self, sock: socket.socket, clock: Callable[[], float] = time.monotonic) -> None:
        self._sock, self._clock = sock, clock
        self._moved_s, self._said_s, self._moved = clock(), clock(), 0  # of the work at hand: when, told when, how far
        self._views: dict[str, ViewReader] = {}
        self._inodes: dict[str, int] = {}  # of their files: another one under the same path is another view
        self._wanted: set[str] = set()
        self._pinned: dict[str, int] = {}  # how many readings a view has
        self._newest: dict[str, int] = {}  # path -> id of its newest pin
        self._based: dict[str, str] = {}  # view -> the directory of its base, of those in `_bases`
        self._bases: dict[str, SstReader] = {}
        self._jobs: queue.PriorityQueue[_DigestRun] = queue.PriorityQueue(1_000)
        self._last: dict[int, threading.Event] = {}
        self._lock = threading.Lock()

    def run(self) -> None:
        """Serve until the worker hangs up."""
        sys.setswitchinterval(_SWITCH_S)
        threading.Thread(target=self._work, name="work", daemon=True).start()
        hears: dict[str, Callable[..., None]] = {
            "open": self._open, "shut": self._shut, "pin": self._pin, "build": self._build, "last": self._go_on,
        }  # fmt: skip
        while raw := self._sock.recv(MESSAGE_BYTES):
            word, *rest = msgpack.unpackb(raw)
            hears[word](*rest)

    # hears

    def _open(self, paths: list[str]) -> None:
        with self._lock:
            self._wanted.update(paths)
            for path in self._wanted - self._views.keys():
                try:
                    self._view(path)
                except (
                    LogStoreError,
                    OSError,
                ) as error:  # it is tried again when it is to be pinned, and that is answered
                    log.warning("%s", error)

    def _shut(self, paths: list[str]) -> None:
        with self._lock:
            self._wanted.difference_update(paths)
            self._close_others()

    def _pin(self, number: int, path: str, base_dir: str | None) -> None:
        job = _DigestRun(0, number, path, base_dir=base_dir, begun_s=self._clock())
        with self._lock:
            try:
                job.reading = job.release.enter_context(self._view(path).reading())
                at = job.reading.state.next_offset
            except (LogStoreError, OSError) as error:
                job.release.close()
                self._send("failed", number, str(error))
                return
            self._pinned[path] = self._pinned.get(path, 0) + 1
            self._newest[path] = number
            job.release.callback(self._unpin, path)
        self._send("pinned", number, at)
        self._jobs.put_nowait(job)

    def _build(self, number: int, order: dict[str, Any]) -> None:
        wanted = DigestRequest(**order)
        self._last[number] = threading.Event()
        self._jobs.put_nowait(_DigestRun(1, number, wanted.source or "", order=wanted))

    def _go_on(self, number: int) -> None:
        if number in self._last:
            self._last[number].set()

    # works

    def _work(self) -> None:
        """The thread. Without it the other one would go on pinning what nobody lets go."""
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
            while True:
                self._do(self._jobs.get())
        except BaseException:  # a thread that ends alone would leave a process that answers nobody
            log.exception("the digester ends")
            os._exit(1)

    def _do(self, job: _DigestRun) -> None:
        self._moved = 0
        try:
            with job.release:
                self._send(*(self._digest(job) if job.order is None else self._generation(job, job.order)))
        except (LogStoreError, OSError) as error:
            self._send("failed", job.number, str(error))

    def _digest(self, job: _DigestRun) -> tuple[object, ...]:
        if self._newest.get(job.path) != job.number:
            return "failed", job.number, "a newer cut came before the digest at this one was begun"
        if self._clock() - max(job.begun_s, self._moved_s) > PIN_S:
            return "failed", job.number, f"the view was pinned, and nothing went on for {PIN_S:g} s"
        assert job.reading is not None, "a digest is computed from a pin"
        base = job.reading.base
        base_reader = self._base(job.path, job.base_dir) if base else None
        found = digest_of(job.reading, base, base_reader, lambda entries: self._saw(job, entries))
        return "digest", job.number, found.hex, found.entries

    def _saw(self, job: _DigestRun, entries: int) -> None:
        """Tell the worker now and then how far the work at hand has come."""
        self._moved_s, self._moved = self._clock(), self._moved + entries
        if self._moved_s - self._said_s >= _SAY_S:
            self._said_s = self._moved_s
            self._send("moved", job.number, self._moved)

    def _base(self, path: str, directory: str | None) -> SstReader:
        """The base of a view, opened. Requires: the view is pinned, so that nobody closes it meanwhile."""
        if directory is None:
            raise Corrupted("the snapshot that the view stands on is not here")
        with self._lock:
            self._based[path] = directory
            self._close_bases()
        if directory not in self._bases:
            opened = SstReader.open(Path(directory), cache_bytes=8 << 20)  # not under the lock: pins do not wait for it
            with self._lock:
                self._bases[directory] = opened
        return self._bases[directory]

    def _generation(self, job: _DigestRun, order: DigestRequest) -> tuple[object, ...]:
        base, identity = Base(**order.base), ViewIdentity(**order.identity)
        source = self._source(job, order.source)
        builder = Builder(
            source, Path(order.path), identity, base, sync=order.sync, saw=lambda entries: self._saw(job, entries)
        )
        try:
            builder.rounds()
            self._send("round", job.number)
            if not self._last[job.number].wait(PIN_S):
                return "failed", job.number, f"the worker did not answer for {PIN_S:g} s"
            builder.round()
        finally:
            builder.close()
            del self._last[job.number]
        return "built", job.number, builder.state.next_offset

    def _source(self, job: _DigestRun, path: str | None) -> ViewReader:
        assert path is not None, "an empty generation needs no building"
        with self._lock:
            view = self._view(path)
            self._pinned[path] = self._pinned.get(path, 0) + 1
            job.release.callback(self._unpin, path)
            return view

    def _view(self, path: str) -> ViewReader:
        """The view at `path`, opened. Raises Corrupted, NotYet, OSError. Requires: the lock is held."""
        inode = _inode(Path(path) / "data.mdb")
        if path in self._views and self._inodes[path] != inode:
            if self._pinned.get(path):
                raise NotYet(
                    f"the view {path} is another one now, and what was there is still pinned; it is tried again"
                )
            self._views.pop(path).close()
        if path not in self._views:
            self._views[path], self._inodes[path] = ViewReader.open(Path(path)), inode
        return self._views[path]

    def _unpin(self, path: str) -> None:
        with self._lock:
            self._pinned[path] -= 1
            self._close_others()

    def _close_others(self) -> None:
        for path in [path for path in self._views if path not in self._wanted and not self._pinned.get(path)]:
            self._views.pop(path).close()
            for of_it in (self._inodes, self._pinned, self._newest, self._based):
                of_it.pop(path, None)
        self._close_bases()

    def _close_bases(self) -> None:
        """Close bases of partitions that were let go, or stand on another one by now."""
        for directory in self._bases.keys() - set(self._based.values()):
            self._bases.pop(directory).close()

    def _send(self, *message: object) -> None:
        self._sock.send(msgpack.packb(message))


def _inode(path: Path) -> int:
    """Inode of a file; 0 when nothing is there."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def main(arguments: list[str]) -> None:
    """`python -m streaming.digest.digester FD`: serve the worker at the other end of an inherited socket."""
    logs.set_up_child("digester", os.environ)
    descriptors.raise_limit()
    with socket.socket(fileno=int(arguments[0])) as sock:
        Digester(sock).run()


if __name__ == "__main__":
    main(sys.argv[1:])
