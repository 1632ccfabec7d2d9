"""Pipeline: writes to one table without waiting for each, and one place where their failures come together."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from logstore.client.checks import Text, check_headers, check_value
from logstore.client.pending import Pending, Shared
from logstore.log.producer import Producer
from logstore.model.errors import BatchFailed, BatchUnknown, LogStoreError, StillPending, Unknown
from logstore.model.key import MAX_KEY_BYTES, check_key, to_bytes
from logstore.model.table import Table

_POLL_EVERY = 100  # writes; the reports that are due are taken while they are warm in the cache


class Pipeline:
    """Use as a context manager.

    Leaving the block waits for every write and raises what failed. One thread at a time.
    """

    def __init__(
        self,
        producer: Producer,
        table: Table,
        kind: type[Pending] = Pending,
        shared: Shared | None = None,
        on_failure: Callable[[], object] | None = None,
    ) -> None:
        """`on_failure` is called when `flush` finds writes that failed."""
        self._producer, self._kind, self._on_failure = producer, kind, on_failure
        self._shared = shared or Shared(table.epoch, producer)
        self._topic, self._limit = table.topic, table.max_value_bytes
        self._produce, self._left, self._count = producer.produce, _POLL_EVERY, 0

    def put(self, key: Text, value: Text, *, headers: Mapping[str, bytes] | None = None) -> Pending:
        """Queue one write.

        Raises BadKey, ValueTooLarge, UsageError, Overloaded, WriteFailed: then it is not written.
        """
        if not (
            type(key) is bytes
            and 0 < len(key) <= MAX_KEY_BYTES
            and type(value) is bytes
            and len(value) <= self._limit
            and headers is None
        ):
            return self.queue(check_key(to_bytes(key)), check_value(to_bytes(value), self._limit), headers)
        pending = self._kind()  # spelled out: this is the path of a million writes a second
        pending._shared = self._shared
        pending._offset = None
        try:
            self._produce(self._topic, value, key, -1, pending)
        except Exception:  # BufferError, KafkaException: `send` waits, or types it
            return self.queue(key, value, None)
        self._left = left = self._left - 1
        if left <= 0:
            self._breathe()
        return pending

    def delete(self, key: Text, *, headers: Mapping[str, bytes] | None = None) -> Pending:
        """Queue one delete; raises like `put`."""
        return self.queue(check_key(to_bytes(key)), None, headers)

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait for every write so far.

        Raises the first failure (BatchFailed, BatchUnknown when there are several), StillPending.
        """
        left = self._producer.flush(timeout_s)
        total = self.count
        self._raise(total)
        if left:
            raise StillPending(f"{left:,} writes are still on their way; wait longer (timeout_s), or ask each of them")

    @property
    def count(self) -> int:
        """Writes queued by this pipeline."""
        return self._count + _POLL_EVERY - self._left

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        except LogStoreError as failure:
            if error is None:
                raise
            error.add_note(f"besides, in the pipeline: {failure}")

    def queue(
        self, key: bytes, value: bytes | None, headers: Mapping[str, bytes] | None, patience_s: float | None = None
    ) -> Pending:
        """Queue a checked record (None deletes), waiting up to `patience_s` for room (default: as the Store says)."""
        pending = self._kind.of(self._shared)
        self._producer.send(self._topic, key, value, pending, headers=check_headers(headers), patience_s=patience_s)
        self._left -= 1
        if self._left <= 0:
            self._breathe()
        return pending

    def _breathe(self) -> None:
        self._count += _POLL_EVERY
        self._left = _POLL_EVERY
        self._producer.poll()

    def _raise(self, total: int) -> None:
        shared = self._shared
        failed, unknown, failures = shared.failed, shared.unknown, shared.failures
        shared.failed, shared.unknown, shared.failures = 0, 0, []
        if failed + unknown and self._on_failure is not None:
            self._on_failure()
        if failed + unknown == 1:
            raise failures[0]
        if unknown:
            raise BatchUnknown(total, failed, unknown, next(e for e in failures if isinstance(e, Unknown)))
        if failed:
            raise BatchFailed(total, failed, failures[0])
