"""Server of the feed: the dictionary that a worker publishes, sent to every subscriber that keeps up.

A stream socket in the node's data directory carries msgpack arrays: `[key, record]` from the worker, first the whole
dictionary, then every change; a record of null removes the key. A subscriber that is slow gets only the newest record
of each key when it reads again, so nothing queues up. Upwards go acknowledgements, of which the latest counts.
"""

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import msgpack

from logstore.view.feed.acknowledgement import Acknowledgement
from logstore.view.feed.changes import AnyKey, AnyRecord, encode_change
from logstore.view.feed.fields import UnreadableRecord
from logstore.view.feed.key import FeedKey, FeedRecord
from logstore.view.feed.view_records import ViewKey, ViewRecord

R = TypeVar("R", bound=FeedRecord)

MAX_SUBSCRIBERS = 256
MAX_EMBEDDED = 192  # of them: readers of the node always find room
DEAF_S = 0.2  # how long nobody is let in after that failed
_CHUNK = 1 << 16

log = logging.getLogger(__name__)


class FeedServer:
    """Server of the feed. `publish` may be called from any thread and sends at once to whoever keeps up."""

    def __init__(self, path: Path, on_ack: Callable[[], None] = lambda: None) -> None:
        """Listen on `path`; `on_ack` is called, on the feed's thread, when `acks()` has changed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # left behind by a killed process; requires: one server a path
        self._path, self._on_ack = path, on_ack
        self._records: dict[FeedKey[Any], Any] = {}
        self._subscribers: dict[socket.socket, _Subscriber] = {}
        self._lock = threading.Lock()
        self._listener = _bind(path)
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._deaf_until_s: float | None = None  # None: the listener is listened to
        self._complaint = ""
        self.thread = threading.Thread(target=self._serve, name="feed", daemon=True)  # lives until `close`
        self.thread.start()

    def publish(self, key: FeedKey[R], record: R | None) -> None:
        """Set a key's record; None removes it."""
        with self._lock:
            if record is None:
                self._records.pop(key, None)
            else:
                self._records[key] = record
            for subscriber in list(self._subscribers.values()):
                subscriber.dirty[key] = None
                if not subscriber.pending:
                    self._flush(subscriber)

    def publish_all(self, records: Mapping[FeedKey[R], R]) -> None:
        """Set the records of some keys, of which every subscriber hears at once."""
        with self._lock:
            self._records.update(records)
            for subscriber in list(self._subscribers.values()):
                subscriber.dirty.update(dict.fromkeys(records))
                if not subscriber.pending:
                    self._flush(subscriber)

    def publish_changed(self, key: FeedKey[R], record: R) -> None:
        """Publish the record, unless the key has it already."""
        if self._records.get(key) != record:
            self.publish(key, record)

    def get(self, key: FeedKey[R]) -> R | None:
        """The record of a key; None when it has none."""
        return cast("R | None", self._records.get(key))

    def snapshot(self) -> dict[AnyKey, AnyRecord]:
        """The dictionary as it is now."""
        with self._lock:
            return cast("dict[AnyKey, AnyRecord]", dict(self._records))

    def views(self) -> dict[ViewKey, ViewRecord]:
        """The views that are published now."""
        there = self.snapshot().items()
        return {key: record for key, record in there if isinstance(key, ViewKey) and isinstance(record, ViewRecord)}

    def acks(self) -> list[Acknowledgement | None]:
        """The latest acknowledgement of each reader that is connected; None of one that has sent none.

        Without those of embedded readers: what the node announces waits for none of them.
        """
        with self._lock:
            found = [subscriber.ack for subscriber in self._subscribers.values()]
        return [ack for ack in found if ack is None or not ack.embedded]

    def demands(self) -> list[Acknowledgement]:
        """The latest acknowledgement of everybody who has sent one, embedded readers too."""
        with self._lock:
            return [subscriber.ack for subscriber in self._subscribers.values() if subscriber.ack is not None]

    def close(self) -> None:
        """Hang up on everybody and remove the socket."""
        self._wake.send(b"x")
        self.thread.join(5)
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        running = True
        while running:
            for key, events in self._selector.select(self._deaf_s()):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._woken:
                    running = False
                elif isinstance(key.fileobj, socket.socket):
                    self._serve_one(key.fileobj, events)
        with self._lock:
            for subscriber in list(self._subscribers.values()):
                self._drop(subscriber)
        for sock in (self._listener, self._wake, self._woken):
            sock.close()
        self._selector.close()

    def _deaf_s(self) -> float | None:
        """Seconds until the listener is listened to again; no reader is let in before."""
        if self._deaf_until_s is None:
            return None
        left_s = self._deaf_until_s - time.monotonic()
        if left_s > 0:
            return left_s
        self._deaf_until_s = None
        self._selector.register(self._listener, selectors.EVENT_READ)
        return None

    def _accept(self) -> None:
        """Let a reader in.

        Where there is no descriptor for it, it waits in the listener's queue, and those who are here go on.
        """
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:  # it has gone again
            return
        except OSError as error:
            self._turn_deaf(str(error))
            return
        self._complaint = ""
        sock.setblocking(False)
        self._welcome(sock)

    def _turn_deaf(self, why: str) -> None:
        if why != self._complaint:
            self._complaint = why
            log.warning("the feed lets nobody in: %s; it tries again every %g s", why, DEAF_S)
        self._selector.unregister(self._listener)  # it stays readable: without this the thread would spin
        self._deaf_until_s = time.monotonic() + DEAF_S

    def _welcome(self, sock: socket.socket) -> None:
        with self._lock:
            if len(self._subscribers) >= MAX_SUBSCRIBERS:
                sock.close()
                return
            self._selector.register(sock, selectors.EVENT_READ)
            subscriber = self._subscribers[sock] = _Subscriber(sock, dict.fromkeys(self._records))
            self._flush(subscriber)

    def _serve_one(self, sock: socket.socket, events: int) -> None:
        with self._lock:
            subscriber = self._subscribers.get(sock)
            if subscriber is None:
                return
            if events & selectors.EVENT_WRITE:
                self._flush(subscriber)
            acked = bool(events & selectors.EVENT_READ) and self._receive(subscriber)
        if acked:
            self._on_ack()

    def _receive(self, subscriber: "_Subscriber") -> bool:
        """True when `acks()` has changed."""
        try:
            data = subscriber.sock.recv(_CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._drop(subscriber)
            return True
        try:
            subscriber.unpacker.feed(data)
            for ack in subscriber.unpacker:
                subscriber.ack = Acknowledgement.decode(ack)
            if subscriber.ack is not None and subscriber.ack.embedded and self._embedded() > MAX_EMBEDDED:
                self._drop(subscriber)
        except (ValueError, msgpack.UnpackException, UnreadableRecord):  # not one of ours
            self._drop(subscriber)
        return True

    def _embedded(self) -> int:
        return sum(one.ack is not None and one.ack.embedded for one in self._subscribers.values())

    def _flush(self, subscriber: "_Subscriber") -> None:
        """Send what is pending, then what is dirty; wait for room in the socket when there is none."""
        try:
            while subscriber.pending or subscriber.dirty:
                if not subscriber.pending:
                    dirty, subscriber.dirty = subscriber.dirty, {}
                    subscriber.pending = b"".join(encode_change(key, self._records.get(key)) for key in dirty)
                subscriber.pending = subscriber.pending[subscriber.sock.send(subscriber.pending) :]
            self._listen(subscriber, selectors.EVENT_READ)
        except BlockingIOError:
            self._listen(subscriber, selectors.EVENT_READ | selectors.EVENT_WRITE)
        except OSError:  # hung up
            self._drop(subscriber)

    def _listen(self, subscriber: "_Subscriber", events: int) -> None:
        if events != subscriber.events:
            subscriber.events = events
            self._selector.modify(subscriber.sock, events)

    def _drop(self, subscriber: "_Subscriber") -> None:
        if self._subscribers.pop(subscriber.sock, None) is not None:
            with contextlib.suppress(KeyError):
                self._selector.unregister(subscriber.sock)
            subscriber.sock.close()


class _Subscriber:
    def __init__(self, sock: socket.socket, dirty: dict[FeedKey[Any], None]) -> None:
        self.sock, self.dirty = sock, dirty
        self.pending = b""
        self.events: int = selectors.EVENT_READ
        self.unpacker = msgpack.Unpacker(max_buffer_size=4 * _CHUNK)
        self.ack: Acknowledgement | None = None


def _bind(path: Path) -> socket.socket:
    """Listen under a path of any length.

    A socket's name has 108 bytes, so it is bound relative to its folder's descriptor.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
    listener.listen(MAX_SUBSCRIBERS)
    listener.setblocking(False)
    return listener
