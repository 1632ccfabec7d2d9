"""Pending: a write on its way.

Completed by whoever runs the producer's callbacks; resolved into a `Position` when somebody asks.

One is made per pipelined write, a million a second, so it is bare: it is itself the delivery callback (a bound method
per write would double the work of the garbage collector), what all writes of a table share lies in `Shared`, and
whoever waits is noted there.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any, Self

from logstore.log.write.delivery import delivery_error, unproved
from logstore.log.write.limits import GRACE_S
from logstore.log.write.producer import Producer
from logstore.model.errors import LogStoreError, NotApplied, StillPending, Unknown, UsageError
from logstore.model.position import Position

log = logging.getLogger(__name__)

_TELLING = ("logstore-producer", "logstore-outcomes")  # threads that complete writes


class Shared:
    """State that the writes to one table share; collects their failures when they belong to a pipeline."""

    def __init__(self, epoch: str, producer: Producer) -> None:
        self.epoch, self.producer = epoch, producer
        self.lock = threading.Lock()  # of `waiting`, and of the failures
        self.waiting: dict[PendingWrite, list[Callable[[Any], object]]] = {}
        self.begin_anew()

    def begin_anew(self) -> None:
        """Count failures from none on."""
        self.failures: list[LogStoreError] = []  # the first few, for the message
        self.failed = self.unknown = self.unapplied = 0
        self.late: NotApplied | None = None  # the first one
        self.late_at = Position()  # of all of them

    def fail(self, error: LogStoreError) -> None:
        """Count one failed write. Any thread."""
        with self.lock:
            if isinstance(error, Unknown):
                self.unknown += 1
            else:
                self.failed += 1
            if len(self.failures) < 10:
                self.failures.append(error)

    def be_late(self, error: NotApplied, position: Position) -> None:
        """Count one write that is in the log, and not known to be applied. Any thread."""
        with self.lock:
            self.unapplied += 1
            self.late, self.late_at = self.late or error, self.late_at | position


class PendingWrite:
    """A write on its way, whatever is waited for: ask `done()`, or be called back."""

    __slots__ = ("_offset", "_shared")

    _shared: Shared
    _offset: int | LogStoreError | None  # None: on its way; an error: it failed

    @classmethod
    def of(cls, shared: Shared) -> Self:
        """A write that is about to be queued."""
        pending = cls()
        pending._shared, pending._offset = shared, None
        return pending

    def done(self) -> bool:
        """True when the write is acknowledged or has failed."""
        return self._offset is not None

    def exception(self, timeout: float | None = None) -> LogStoreError | None:
        """The error of the write, or None when it is acknowledged. Waits like `result`."""
        self._wait(timeout)
        return self._offset if isinstance(self._offset, LogStoreError) else None

    def add_done_callback(self, function: Callable[[Self], object]) -> None:
        """Call `function(self)` once, when the write is done, on the thread that finds out.

        At once when it is done already.

        It must not block; what it raises is logged, since it cannot reach the writer (as in concurrent.futures).
        """
        with self._shared.lock:
            self._shared.waiting.setdefault(self, []).append(function)
        if self._offset is not None:
            self._tell()

    def _tell(self) -> None:
        with self._shared.lock:
            functions = self._shared.waiting.pop(self, [])
        for function in functions:
            try:
                function(self)
            except Exception:  # of a caller's function: the thread that calls it reports other writes too
                log.exception("a done-callback of %r failed", self)

    def _wait(self, timeout: float | None) -> None:
        if self._offset is not None:
            return
        producer = self._shared.producer
        producer.check_process("this write")
        if threading.current_thread().name in _TELLING:
            raise UsageError(
                "a done-callback must not wait for another write: it runs on the thread that completes writes"
            )
        if timeout is None:
            timeout = producer.delivery_timeout_s + GRACE_S
        arrived = threading.Lock()
        arrived.acquire()
        self.add_done_callback(lambda _: arrived.release())
        producer.release()
        if not arrived.acquire(timeout=timeout):
            raise StillPending(
                f"no acknowledgement within {timeout:g} s; the write is still on its way: ask again, or wait longer"
            )

    def __repr__(self) -> str:
        state = "on its way" if self._offset is None else repr(self._offset)
        return f"{type(self).__name__}({state})"


class Pending(PendingWrite):
    """A write on its way to its acknowledgement: wait with `result()`."""

    __slots__ = ("_partition",)

    _partition: int

    def __call__(self, error: Any, message: Any) -> None:
        """Take the delivery report (called by librdkafka's binding)."""
        shared = self._shared
        if error is None and (offset := message.offset()) is not None:
            self._partition = message.partition()
            self._offset = offset
        else:
            typed = unproved() if error is None else delivery_error(error, message.topic(), shared.producer.access)
            shared.fail(typed)
            self._offset = typed
        if shared.waiting:
            self._tell()

    def result(self, timeout: float | None = None) -> Position:
        """The position of the acknowledged write, waiting up to `timeout` seconds (default.

        The delivery timeout and some).

        Raises WriteFailed (certainly not in the log), Unknown (perhaps in the log), StillPending (not known yet: ask
        again).
        """
        if self._offset is None:
            self._wait(timeout)
        return self._outcome()

    def _outcome(self) -> Position:
        offset = self._offset
        if isinstance(offset, int):
            return Position.of_write(self._shared.epoch, self._partition, offset)
        assert offset is not None, "asked before done"
        raise offset
