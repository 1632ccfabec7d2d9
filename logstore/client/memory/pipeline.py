"""Pipeline of the store in memory: each write is acknowledged as soon as it is queued."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from logstore.client.checks import Text, check_timeout
from logstore.model.errors import LogStoreError, UsageError
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.client.memory.store import MemoryStore

ENDED = "the block of this pipeline has ended; open another one"


class AcknowledgedWrite:
    """A write that is in the log, with the methods of `Pending`."""

    __slots__ = ("_position",)

    def __init__(self, position: Position) -> None:
        self._position = position

    def done(self) -> bool:
        """True: it is acknowledged."""
        return True

    def exception(self, timeout: float | None = None) -> LogStoreError | None:
        """Error of the write: none, for it is acknowledged."""
        check_timeout(timeout)
        return None

    def result(self, timeout: float | None = None) -> Position:
        """The position of the write."""
        check_timeout(timeout)
        return self._position

    def add_done_callback(self, function: "Callable[[AcknowledgedWrite], object]") -> None:
        """Call `function(self)` at once."""
        function(self)


class MemoryPipeline:
    """Writes to one table in memory, as `Pipeline`: use as a context manager."""

    def __init__(self, store: "MemoryStore", table: str) -> None:
        self._store, self._table, self._ended = store, table, ""
        self.count = 0

    def put(
        self, key: Text, value: Text, *, headers: Mapping[str, Text] | None = None, ttl_s: float | None = None
    ) -> AcknowledgedWrite:
        """Write one row. Raises BadKey, ValueTooLarge, UsageError."""
        self._check_open()
        position = self._store.put(self._table, key, value, headers=headers, ttl_s=ttl_s)
        self.count += 1
        return AcknowledgedWrite(position)

    def delete(self, key: Text, *, headers: Mapping[str, Text] | None = None) -> AcknowledgedWrite:
        """Delete one row; raises like `put`."""
        self._check_open()
        position = self._store.delete(self._table, key, headers=headers)
        self.count += 1
        return AcknowledgedWrite(position)

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
