"""Writes in flight: bounds of what a reader holds of writes, from the first byte of a body to the acknowledgement."""

from types import TracebackType
from typing import Self

from logstore.serve.settings import MAX_WRITES_BYTES, MAX_WRITES_RECORDS
from logstore.serve.wire.problems import Problem


class WritesInFlight:
    """Bytes of bodies that arrive, and records without an acknowledgement. Used on the event loop alone."""

    def __init__(self, max_records: int = MAX_WRITES_RECORDS, max_bytes: int = MAX_WRITES_BYTES) -> None:
        self._max_records, self._max_bytes = max_records, max_bytes
        self.records = self.size_bytes = 0

    def enter(self, records: int, size_bytes: int) -> None:
        """Count records and bytes; raises Problem when that is too much. What comes alone always finds room."""
        if self.records + records > self._max_records:
            raise _too_much(f"{self.records:,} writes")
        if self.size_bytes and self.size_bytes + size_bytes > self._max_bytes:
            raise _too_much(f"{self.size_bytes:,} bytes of writes")
        self.records += records
        self.size_bytes += size_bytes

    def leave(self, records: int, size_bytes: int) -> None:
        """Count records and bytes as gone."""
        self.records -= records
        self.size_bytes -= size_bytes


class BodyHold:
    """Bytes of one body while it is held; a client that is cut off lets go of them, as does the end of its request."""

    def __init__(self, flight: WritesInFlight) -> None:
        self._flight, self._size_bytes = flight, 0

    def grow(self, size_bytes: int) -> None:
        """Hold more of it; raises Problem when all bodies and records together are too much."""
        self._flight.enter(0, size_bytes)
        self._size_bytes += size_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flight.leave(0, self._size_bytes)


def _too_much(what: str) -> Problem:
    return Problem(
        "overloaded", f"{what} are on their way through this reader already; nothing of this one was written: try again"
    )
