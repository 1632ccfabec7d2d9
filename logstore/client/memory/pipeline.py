"""Pipeline of the store in memory: each write is acknowledged as soon as it is queued."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from logstore.client.checks import Text, check_timeout
from logstore.client.conditional.outcome import Outcome
from logstore.client.conditional.pipelined_writes import PipelinedWrites
from logstore.client.conditional.record import ConditionalRecord
from logstore.model.errors import LogStoreError, UsageError
from logstore.model.key import to_bytes
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.client.memory.store import MemoryStore

ENDED = "the block of this pipeline has ended; open another one"


R = TypeVar("R")


class CompletedWrite(Generic[R]):
    """A write that has come to its end, with the methods of `Pending`, or of `PendingOutcome`."""

    __slots__ = ("_result",)

    def __init__(self, result: R) -> None:
        self._result = result

    def done(self) -> bool:
        """True: it is acknowledged, and decided."""
        return True

    def exception(self, timeout: float | None = None) -> LogStoreError | None:
        """Error of the write: none, for it is in the log."""
        check_timeout(timeout)
        return None

    def result(self, timeout: float | None = None) -> R:
        """The position of the write, or its outcome."""
        check_timeout(timeout)
        return self._result

    def add_done_callback(self, function: "Callable[[CompletedWrite[R]], object]") -> None:
        """Call `function(self)` at once."""
        function(self)


class MemoryPipeline(PipelinedWrites[CompletedWrite[Outcome]]):
    """Writes to one table in memory, as `Pipeline`: use as a context manager."""

    def __init__(self, store: "MemoryStore", table: str) -> None:
        self._store, self._table, self._ended = store, table, ""
        self.count = 0

    def put(
        self, key: Text, value: Text, *, headers: Mapping[str, Text] | None = None, ttl_s: float | None = None,
        seen: int | None = None,
    ) -> CompletedWrite[Position]:  # fmt: skip
        """Write one row. Raises BadKey, ValueTooLarge, UsageError."""
        self._check_open()
        position = self._store.write(self._table, key, to_bytes(value), headers, ttl_s, seen)
        self.count += 1
        return CompletedWrite(position)

    def delete(
        self, key: Text, *, headers: Mapping[str, Text] | None = None, seen: int | None = None
    ) -> CompletedWrite[Position]:  # fmt: skip
        """Delete one row; raises like `put`."""
        self._check_open()
        position = self._store.write(self._table, key, None, headers, None, seen)
        self.count += 1
        return CompletedWrite(position)

    def decide(self, record: ConditionalRecord) -> CompletedWrite[Outcome]:
        """Write a record whose outcome is remembered. Raises as `put`, NotConditional, NotExpiring."""
        self._check_open()
        outcome = self._store.decide(self._table, record)
        self.count += 1
        return CompletedWrite(outcome)

    def flush(self, timeout_s: float | None = None) -> None:
        """Every write is acknowledged already."""
        check_timeout(timeout_s)

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = ENDED

    def _check_open(self) -> None:
        if self._ended:
            raise UsageError(self._ended)
