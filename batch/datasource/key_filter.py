"""Key filter: the row keys a reading wants, and how much is left unread for it. No Spark in here."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from logstore.model.partitioning.partitioning import Partitioning
from logstore.snapshot.sst import SstReader


@dataclass(frozen=True)
class Keys:
    """Every key of `[start, end)`, or, where `some` is given, only those of them."""

    some: frozenset[bytes] | None = None
    start: bytes = b""
    end: bytes | None = None  # None: no end

    def among(self, keys: Iterable[bytes]) -> "Keys":
        """The filter, narrowed to those of `keys`."""
        more = frozenset(keys)
        return replace(self, some=more if self.some is None else self.some & more)

    def at_least(self, start: bytes) -> "Keys":
        """The filter, narrowed to keys from `start` on."""
        return replace(self, start=max(self.start, start))

    def below(self, end: bytes) -> "Keys":
        """The filter, narrowed to keys below `end`."""
        return replace(self, end=end if self.end is None else min(self.end, end))

    @property
    def all(self) -> bool:
        """True when nothing is left out."""
        return self.some is None and not self.start and self.end is None

    @property
    def points(self) -> list[bytes] | None:
        """The keys in order, where they are known one by one."""
        return None if self.some is None else sorted(key for key in self.some if self._inside(key))

    def holds(self, key: bytes) -> bool:
        """True for a wanted key."""
        return self._inside(key) and (self.some is None or key in self.some)

    def partitions(self, partitioning: Partitioning) -> list[int]:
        """Partitions that can hold a wanted key."""
        points = self.points
        return (
            list(partitioning.touched(self.start, self.end))
            if points is None
            else sorted({*map(partitioning.of, points)})
        )

    def meets(self, first: bytes, last: bytes) -> bool:
        """True when one of the keys from `first` to `last` may be wanted."""
        if self.points is not None:
            return any(first <= key <= last for key in self.points)
        return last >= self.start and (self.end is None or first < self.end)

    def mask(self, column: pa.Array) -> pa.Array:
        """True where a key of the column is wanted; null keys are not."""
        if (points := self.points) is not None:
            return pc.is_in(column, value_set=pa.array(points, pa.binary()))
        inside = pc.greater_equal(column, pa.scalar(self.start, pa.binary()))
        if self.end is not None:
            inside = pc.and_(inside, pc.less(column, pa.scalar(self.end, pa.binary())))
        return pc.fill_null(inside, False)

    def scan(self, reader: SstReader) -> Iterator[tuple[bytes, bytes]]:
        """Entries of the wanted keys as (key, entry), in key order; nothing else is looked at. Raises Corrupted."""
        if self.points is None:
            if self.end is None or self.start < self.end:
                yield from reader.scan(self.start, self.end)
            return
        for key in self.points:
            if (entry := reader.get(key)) is not None:
                yield key, entry

    def _inside(self, key: bytes) -> bool:
        return key >= self.start and (self.end is None or key < self.end)
