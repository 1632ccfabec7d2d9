"""Chunk: the changes of a stretch of one partition's log, and the ring of the newest ones.

A chunk covers every offset of its stretch: one that is no change is stepped over with it. Subscribers share chunks, and
the text that each of them is sent.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator

from logstore.model.changes.row_change import RowChange, of_prefix
from logstore.model.folding.sibling import size_bytes
from logstore.model.wide.cell import CELL_BYTES

_HEAD_BYTES = 200  # of a change in memory, beside its key and value
CUT_BYTES = 64 << 10  # of what is sent at once: so much may lie unsent in the buffer of each slow subscriber
_MOST_CHUNKS = 4_096


class Chunk:
    """Changes of the offsets `[start, following)` of a partition."""

    __slots__ = ("changes", "following", "partition", "shared", "shared_before", "size_bytes", "start")

    def __init__(self, partition: int, start: int, following: int, changes: list[RowChange]) -> None:
        self.partition, self.start, self.following, self.changes = partition, start, following, changes
        self.size_bytes = sum(map(bytes_of, changes))
        self.shared: bytes | None = None  # the text of all its events, once somebody has drawn it
        self.shared_before: bytes | None = None  # the same with what the rows were before

    def from_offset(self, offset: int) -> "Chunk":
        """The part at `offset` and behind it."""
        return self if offset <= self.start else self._part(offset, self.following)

    def below(self, offset: int) -> "Chunk":
        """The part below `offset`."""
        return self if offset >= self.following else self._part(self.start, offset)

    def of_prefix(self, prefix: bytes) -> "Chunk":
        """The same stretch with the changes of some rows."""
        if not prefix:
            return self
        return Chunk(self.partition, self.start, self.following, of_prefix(self.changes, prefix))

    def _part(self, start: int, following: int) -> "Chunk":
        low, high = (bisect_left(self.changes, offset, key=_version) for offset in (start, following))
        return Chunk(self.partition, start, following, self.changes[low:high])


class Ring:
    """The newest chunks of a partition, without a gap between `start` and `end`; bounded by bytes and number."""

    def __init__(self, start: int, most_bytes: int) -> None:
        self.start = self.end = start
        self._most_bytes, self._size_bytes = most_bytes, 0
        self._chunks: deque[Chunk] = deque()

    def add(self, chunk: Chunk) -> None:
        """Put a chunk behind the last one, and let go of the oldest. Requires: it begins at `end`."""
        assert chunk.start == self.end, "chunks follow each other"
        self._chunks.append(chunk)
        self.end = chunk.following
        self._size_bytes += chunk.size_bytes
        while len(self._chunks) > 1 and (self._size_bytes > self._most_bytes or len(self._chunks) > _MOST_CHUNKS):
            self._size_bytes -= self._chunks.popleft().size_bytes
        self.start = self._chunks[0].start

    def behind(self, offset: int) -> Iterator[Chunk]:
        """The chunks at `offset` and behind it, oldest first. Requires: `offset` is not below `start`."""
        found: list[Chunk] = []
        for chunk in reversed(self._chunks):
            if chunk.following <= offset:
                break
            found.append(chunk)
        return (chunk.from_offset(offset) for chunk in reversed(found))


def cut(chunk: Chunk) -> Iterator[Chunk]:
    """The same stretch in chunks of about CUT_BYTES, of one record at least: one that changed several rows is whole."""
    start, size, some = chunk.start, 0, list[RowChange]()
    for change in chunk.changes:
        if size > CUT_BYTES and change.version != some[-1].version:
            yield Chunk(chunk.partition, start, change.version, some)
            start, size, some = change.version, 0, []
        size += bytes_of(change)
        some.append(change)
    yield Chunk(chunk.partition, start, chunk.following, some)


def up_to(chunks: Iterable[Chunk], most_bytes: int) -> list[Chunk]:
    """The first chunks that have `most_bytes` together, and the one that goes beyond; at least one."""
    taken: list[Chunk] = []
    for chunk in chunks:
        taken.append(chunk)
        most_bytes -= chunk.size_bytes
        if most_bytes <= 0:
            break
    return taken


def bytes_of(change: RowChange) -> int:
    """Bytes that a change takes in memory, about."""
    before = sum(CELL_BYTES + len(one.cell.value) for one in change.before or () if one.cell is not None)
    return len(change.key) + size_bytes(change.value) + before + _HEAD_BYTES


def _version(change: RowChange) -> int:
    return change.version
