"""Pipeline of the store in memory: each write is acknowledged as soon as it is queued."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from logstore.client.checks import Text, check_timeout
from logstore.client.conditional.outcome import Outcome
from logstore.client.conditional.pipelined_writes import PipelinedWrites
from logstore.client.conditional.record import ConditionalRecord
from logstore.client.write.level import WriteLevel, awaits_outcome, check_decides
from logstore.model.errors import BatchFailed, InvalidWrite, LogStoreError, UsageError
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


class RefusedWrite(CompletedWrite[Position]):
    """A write that the fold refused, or that says to have seen what was not there."""

    __slots__ = ("_error",)

    def __init__(self, error: LogStoreError) -> None:
        self._error = error

    def exception(self, timeout: float | None = None) -> LogStoreError | None:
        """Error of the write."""
        check_timeout(timeout)
        return self._error

    def result(self, timeout: float | None = None) -> Position:
        """Raise the error of the write."""
        check_timeout(timeout)
        raise self._error


class MemoryPipeline(PipelinedWrites[CompletedWrite[Outcome]]):
    """Writes to one table in memory, as `Pipeline`: use as a context manager."""

    def __init__(self, store: "MemoryStore", table: str, level: WriteLevel | None = None) -> None:
        self._store, self._table, self._level, self._ended = store, table, level, ""
        self.count = 0
        self._refused: list[LogStoreError] = []  # since the last flush

    def put(
        self, key: Text, value: Text, *, headers: Mapping[str, Text] | None = None, ttl_s: float | None = None,
        seen: int | None = None,
    ) -> CompletedWrite[Position]:  # fmt: skip
        """Write one row. Raises BadKey, ValueTooLarge, UsageError."""
        return self._write(key, to_bytes(value), headers, ttl_s, seen)

    def delete(
        self, key: Text, *, headers: Mapping[str, Text] | None = None, seen: int | None = None
    ) -> CompletedWrite[Position]:  # fmt: skip
        """Delete one row; raises like `put`."""
        return self._write(key, None, headers, None, seen)

    def decide(self, record: ConditionalRecord) -> CompletedWrite[Outcome]:
        """Write a record whose outcome is remembered. Raises as `put`, NotConditional, NotExpiring."""
        self._check_open()
        check_decides(self._level)
        outcome = self._store.decide(self._table, record)
        self.count += 1
        return CompletedWrite(outcome)

    def flush(self, timeout_s: float | None = None) -> None:
        """Every write is decided already. Raises the failure of one, or BatchFailed."""
        check_timeout(timeout_s)
        refused, self._refused = self._refused, []
        if len(refused) > 1:
            raise BatchFailed(self.count, len(refused), refused[0])
        if refused:
            raise refused[0]

    def __enter__(self) -> Self:
        self._check_open()
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
        finally:
            self._ended = ENDED

    def _write(
        self, key: Text, value: bytes | None, headers: Mapping[str, Text] | None, ttl_s: float | None, seen: int | None
    ) -> CompletedWrite[Position]:
        self._check_open()
        try:
            decided = awaits_outcome(self._level)
            written = CompletedWrite(self._store.write(self._table, key, value, headers, ttl_s, seen, decided=decided))
        except InvalidWrite as error:
            written = RefusedWrite(error)
            self._refused.append(error)
        self.count += 1
        return written

    def _check_open(self) -> None:
        if self._ended:
            raise UsageError(self._ended)
