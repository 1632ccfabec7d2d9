"""Memory tables: what a store in memory holds, and the clock by which it is written and read."""

from collections.abc import Callable, Mapping, Sequence
from threading import Condition, RLock

from logstore.client.checks import Text, check_headers, check_table
from logstore.client.lazily import CLOSED
from logstore.client.memory.partition import MemoryPartition, MemoryRecord
from logstore.client.memory.points import floor_of
from logstore.client.read.point import After, AsOfBound
from logstore.model.errors import ConsistencyTimeout, NoSuchTable, TableExists, UsageError
from logstore.model.position import Position
from logstore.model.table import Table


class MemoryTables:
    """Partitions of every table; whoever reads or writes several things that belong together holds `lock`."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self.clock_ms, self.lock, self.closed = clock_ms, RLock(), False
        self.changed = Condition(self.lock)  # by every write
        self._tables: dict[str, list[MemoryPartition]] = {}

    def add(self, table: Table) -> None:
        """Have a new table. Raises TableExists."""
        with self.lock:
            if table.name in self._tables:
                raise TableExists(f"there is a table {table.name!r} already")
            self._tables[table.name] = [MemoryPartition(table, number) for number in range(table.partitions)]

    def names(self) -> list[str]:
        """Names of the tables, sorted."""
        return sorted(self._tables)

    def partitions(self, table: str) -> list[MemoryPartition]:
        """The partitions of a table, in order. Raises NoSuchTable, UsageError."""
        self.check_open()
        found = self._tables.get(check_table(table))
        if found is None:
            raise NoSuchTable(table)
        return found

    def append(
        self, parts: list[MemoryPartition], key: bytes, value: bytes | None, headers: Mapping[str, Text] | None,
        own: Sequence[tuple[str, bytes]] = (),
    ) -> Position:  # fmt: skip
        """Write one record to the partition of its key. Requires: the lock."""
        part = home_of(parts, key)
        every = [*own, *(check_headers(headers) or ())]
        offset = part.append(MemoryRecord(key, value, every, self.clock_ms()))
        self.changed.notify_all()
        return Position.of_write(part.table.epoch, part.number, offset)

    def check_known(self, bound: After) -> None:
        """Raise ConsistencyTimeout for a token of a log that is not here: before a table is missing, as readers do."""
        self.check_open()
        if isinstance(bound, AsOfBound):
            return
        known = {parts[0].table.epoch for parts in self._tables.values()}
        unknown = next((epoch for epoch, _ in floor_of(bound).pieces if epoch not in known), None)
        if unknown is not None:
            raise ConsistencyTimeout(
                f"no table with the epoch {unknown} is known here; the token may be of another store"
            )

    def close(self) -> None:
        """Take no call any more, and tell those who wait for writes."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def check_open(self) -> None:
        """Raise UsageError when the store is closed."""
        if self.closed:
            raise UsageError(CLOSED)


def home_of(parts: list[MemoryPartition], key: bytes) -> MemoryPartition:
    """The partition of a key."""
    return parts[parts[0].table.partitioning.of(key)]
