"""Row record: what a write over HTTP puts into the log, checked before it goes there."""

from typing import NamedTuple

from logstore.model.errors import NotConditional, NotExpiring, ValueTooLarge
from logstore.model.folding.terms import Condition
from logstore.model.table import Table

PUT, DELETE, INCR, APPEND = "put", "delete", "incr", "append"
OPERATIONS = (PUT, DELETE, INCR, APPEND)
ID_BYTES, COUNTER_BYTES = 16, 8
LEAST_DELTA, MOST_DELTA = -(1 << 63), (1 << 63) - 1
MAX_TTL_MS = (1 << 63) - 1


class RowRecord(NamedTuple):
    """A mutation of one row. `value`: of an increment its delta, None of a delete."""

    operation: str
    key: bytes
    value: bytes | None
    condition: Condition | None = None
    id: bytes | None = None
    ttl_ms: int | None = None

    @property
    def decided(self) -> bool:
        """True when the log decides what becomes of it, and remembers that."""
        return self.id is not None or self.condition is not None or self.operation in (INCR, APPEND)

    @property
    def size_bytes(self) -> int:
        """Bytes of key and value."""
        return len(self.key) + len(self.value or b"")

    def headers(self) -> list[tuple[str, bytes]]:
        """Reserved headers of the log's record (docs/log_format.md)."""
        return [
            *([] if self.id is None else [("ls.id", self.id)]),
            *([] if self.condition is None else [("ls.if", self.condition.encode())]),
            *([] if self.ttl_ms is None else [("ls.ttl", self.ttl_ms.to_bytes(8))]),
            *([("ls.op", self.operation.encode())] if self.operation in (INCR, APPEND) else []),
        ]

    def partition(self, table: Table) -> int:
        """The partition of the row."""
        return table.partitioning.of(self.key)

    def check_takes(self, table: Table) -> None:
        """Raise NotConditional, NotExpiring or ValueTooLarge unless the table takes such a record."""
        if self.decided and not table.conditional:
            raise NotConditional(table.name)
        if self.ttl_ms is not None and not table.expiring:
            raise NotExpiring(table.name)
        if self.value is not None and len(self.value) > table.max_value_bytes:
            raise ValueTooLarge(len(self.value), table.max_value_bytes)
