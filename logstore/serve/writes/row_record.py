"""Row record: what a write over HTTP puts into the log, checked before it goes there."""

import os
from typing import NamedTuple, Self

from logstore.model.errors import NoSiblings, NotConditional, NotExpiring, UsageError, ValueTooLarge
from logstore.model.folding.terms import Condition
from logstore.model.table import Table
from logstore.model.wide.edited_rows import EditedRows
from logstore.serve.writes.write_level import ONE, awaits_outcome, no_level

PUT, DELETE, INCR, APPEND, EDIT = "put", "delete", "incr", "append", "edit"
OPERATIONS = (PUT, DELETE, INCR, APPEND, EDIT)
DECIDED = (INCR, APPEND, EDIT)  # always, by the log
ID_BYTES, COUNTER_BYTES = 16, 8
MAX_TTL_MS = (1 << 63) - 1
_MOST_VERSION = (1 << 63) - 1


def seen_header(seen: int | None) -> list[tuple[str, bytes]]:
    """The reserved header of what a writer had seen, a row version or -1; none without one."""
    return [] if seen is None else [("ls.seen", b"%d" % seen)]


def check_seen(seen: int | None, operation: str, condition: object) -> None:
    """Raise UsageError for what is no row version, or says more than a put or delete with it can."""
    if seen is None:
        return
    if not -1 <= seen <= _MOST_VERSION:
        raise UsageError("what a writer had seen is the version of the row, LS-Version as it was read, or -1: no row")
    if condition is not None or operation not in (PUT, DELETE):
        raise UsageError("a put or delete says what it had seen, and then has no condition: nothing refuses it")


class RowRecord(NamedTuple):
    """A mutation. `value`: of an increment its delta, None of a delete."""

    operation: str
    key: bytes
    value: bytes | None
    condition: Condition | None = None
    id: bytes | None = None
    ttl_ms: int | None = None
    seen: int | None = None
    level: str | None = None
    edited: EditedRows | None = None  # of an edit

    @classmethod
    def of_edit(cls, edited: EditedRows, condition: Condition | None, mutation_id: bytes | None) -> Self:
        """An edit of a wide row, or of several."""
        return cls(EDIT, edited.key, edited.value, condition, mutation_id, edited=edited)

    @property
    def decided(self) -> bool:
        """True when the log decides what becomes of it, and remembers that for whoever asks."""
        said = self.id is not None or self.condition is not None
        return said or self.operation in DECIDED or (self.seen is not None and awaits_outcome(self.level))

    def with_id(self, table: Table) -> "RowRecord":
        """Itself with an id, where the log decides or the row may refuse it: for whoever loses the answer.

        Raises Problem where its level is one at which nothing is decided.
        """
        asked = self.decided or (table.wide and self.operation == PUT and awaits_outcome(self.level))
        if asked and self.level == ONE:
            raise no_level()
        return self._replace(id=os.urandom(ID_BYTES)) if asked and self.id is None else self

    @property
    def size_bytes(self) -> int:
        """Bytes of key and value."""
        return len(self.key) + len(self.value or b"")

    def headers(self) -> list[tuple[str, bytes]]:
        """Reserved headers of the log's record (docs/log_format.md)."""
        return [
            *([] if self.id is None else [("ls.id", self.id)]),
            *([] if self.condition is None else [("ls.if", self.condition.encode())]),
            *seen_header(self.seen),
            *([] if self.ttl_ms is None else [("ls.ttl", self.ttl_ms.to_bytes(8))]),
            *([("ls.op", self.operation.encode())] if self.operation in DECIDED else []),
        ]

    def partition(self, table: Table) -> int:
        """The partition of the row."""
        return table.partitioning.of(self.key)

    def check_takes(self, table: Table) -> None:
        """Raise UsageError, such as NotConditional or NotWide, or ValueTooLarge unless the table takes the record."""
        if self.edited is not None:
            self.edited.check_takes(table)
        if self.seen is not None and not table.siblings:
            raise NoSiblings(table.name)
        if self.decided and not table.conditional:
            raise NotConditional(table.name)
        if self.ttl_ms is not None and not table.expiring:
            raise NotExpiring(table.name)
        if self.value is not None and len(self.value) > table.max_value_bytes:
            raise ValueTooLarge(len(self.value), table.max_value_bytes)
