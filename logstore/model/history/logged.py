"""LoggedRecord: one record of a key as log or archive hold it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from logstore.model.folding.mutation import Headers

HELD_BYTES = 32 << 20
_LEAST_OFFSETS, _MOST_OFFSETS = 1 << 14, 1 << 20


class LoggedRecord(NamedTuple):
    """A record of the key that is looked for, or one that names its row among others."""

    offset: int
    timestamp_ms: int
    value: bytes | None
    headers: Headers
    carrier: bytes | None = None  # key of the record, where it is another row's

    @property
    def held_bytes(self) -> int:
        """Bytes that the record takes while it is held, about."""
        return 500 + len(self.value or b"")


def newest_first(
    read: Callable[[int, int], Iterable[LoggedRecord]], start: int, end: int, held_bytes: int = HELD_BYTES
) -> Iterator[LoggedRecord]:
    """Records of `[start, end)` from the last one down, where `read` gives those of a range in rising order.

    It is asked for ever larger ranges. Of one that has more than `held_bytes` the newest are held, and the others are
    read again.
    """
    offsets = _LEAST_OFFSETS
    while end > start:
        begin = max(start, end - offsets)
        found, since = _newest(read(begin, end), begin, held_bytes)
        offsets = min(offsets * 2, _MOST_OFFSETS) if since == begin else max(offsets // 4, _LEAST_OFFSETS)
        end = since
        while found:
            yield found.pop()


def _newest(records: Iterable[LoggedRecord], begin: int, held_bytes: int) -> tuple[deque[LoggedRecord], int]:
    """The newest records that fit, one at least, and the offset from which on they are all there are."""
    found, held, since = deque[LoggedRecord](), 0, begin
    for record in records:
        found.append(record)
        held += record.held_bytes
        while held > held_bytes and len(found) > 1:
            held -= found.popleft().held_bytes
            since = found[0].offset
    return found, since
