"""Connection: one librdkafka producer, and the thread that runs its callbacks.

A producer that has met a fatal error (KIP-360: a sequence number the broker does not expect, a producer it has fenced)
takes nothing more; `Producer` then goes on with another connection, and this one only reports what it had.
"""

import logging
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from logstore.log.kafka import clients

LEASE_S = 0.02
IDLE_POLL_S = 0.1
_STOP_S = 5.0
_PROVED_S = 3_600.0

log = logging.getLogger(__name__)


def is_fatal(error: Any) -> bool:
    """True for an error after which a librdkafka producer takes nothing more."""
    return bool(error.fatal()) or error.code() in (KafkaError._FATAL, KafkaError._FENCED)


class _fatal_errors_left_to_the_writes:  # noqa: N801 - reads as `suppress` does; a class, since `poll` is called a lot
    """Fatal errors, left to the writes: the binding raises one where it notices it first, to whoever polls.

    It tells no callback of them: the client's `access` hears of them here.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, KafkaException) or not is_fatal(error.args[0]):
            return False
        self._raw.access(error.args[0])
        return True


class Connection:
    """A librdkafka producer with its poller, and the partitions where a broker knows it."""

    def __init__(self, bootstrap: str, settings: Mapping[str, Any]) -> None:
        """Nothing is awaited. Raises UsageError (a setting that librdkafka refuses)."""
        self.raw: Any = clients.producer(bootstrap, **settings)
        self.poller = Poller(self.raw)
        self._proved: dict[str, tuple[float, set[int]]] = {}

    def __len__(self) -> int:
        """Records not yet reported."""
        return len(self.raw)

    def proved(self, topic: str) -> set[int]:
        """The partitions of a topic of which a write has come back with its offset; see `Producer.proved`."""
        now_s = monotonic()
        used_s, partitions = self._proved.get(topic, (now_s, set()))
        self._proved[topic] = now_s, partitions if now_s - used_s < _PROVED_S else set()
        return self._proved[topic][1]

    def poll(self, timeout_s: float) -> None:
        """Run the callbacks that are due, under the lease."""
        self.poller.lease_until = monotonic() + LEASE_S + timeout_s
        with _fatal_errors_left_to_the_writes(self.raw):
            self.raw.poll(timeout_s)

    def flush(self, timeout_s: float) -> int:
        """Wait until every record is reported, or for `timeout_s`; returns how many are not."""
        self.poller.lease_until = monotonic() + LEASE_S + timeout_s
        with _fatal_errors_left_to_the_writes(self.raw):
            self.raw.flush(timeout_s)
        return len(self)

    def let_go(self, end: float) -> None:
        """Have what is on its way reported as it stands, and end the thread; until `end` (monotonic seconds).

        Nothing is awaited of the broker, nor of a name server that one of librdkafka's threads may wait for.
        """
        if len(self):
            self.give_up()
            self.flush(max(end - monotonic(), 0.0))
        self.poller.stop(max(end - monotonic(), 0.0))

    def give_up(self) -> None:
        """Report everything that is on its way now, whatever became of it."""
        self.raw.purge(blocking=False)


class Poller(threading.Thread):
    """Thread that runs delivery callbacks while nobody holds the lease.

    Knows the raw producer only, so that an abandoned `Producer` can be collected.
    """

    def __init__(self, raw: Any) -> None:
        super().__init__(name="logstore-producer", daemon=True)
        self._raw, self._wake, self._stopped = raw, threading.Event(), False
        self.lease_until = 0.0
        self.start()

    def run(self) -> None:
        """Poll until stopped."""
        while not self._stopped:
            left = self.lease_until - monotonic()
            if left > 0:
                self._wake.wait(left)
                self._wake.clear()
            else:
                self._poll()

    def _poll(self) -> None:
        try:
            with _fatal_errors_left_to_the_writes(self._raw):
                self._raw.poll(IDLE_POLL_S)
        except Exception:  # of a callback: this thread has to report the other writes all the same
            log.exception("a delivery callback failed")

    def release(self) -> None:
        """End the lease."""
        self.lease_until = 0.0
        self._wake.set()

    def stop(self, timeout_s: float = IDLE_POLL_S + _STOP_S) -> None:
        """End the thread, and wait for that so long: it may be in a callback of the caller's."""
        self._stopped = True
        self.release()
        if threading.current_thread() is not self:
            self.join(timeout_s)
