"""KeyMutation: one mutation of a key, as its history shows it; and which of them made the row what it is."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from logstore.model.folding.mutation import RESERVED
from logstore.model.history.judged import JudgedRecord
from logstore.model.history.logged import LoggedRecord

if TYPE_CHECKING:
    from logstore.model.wide.said_edit import SaidEdit

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class KeyMutation(NamedTuple):
    """Mutation of a key, in the log at its offset.

    offset         its place in the partition, and the version of the row where it is applied
    timestamp_ms   as the log has it: the broker's clock, of an adopted topic perhaps the writer's
    operation      put, delete, incr, append, edit; of a record that is quarantined whatever it says
    value          what it says, None for none, or where values were not asked for
    size_bytes     of that
    outcome        "applied"; "rejected", "invalid", "duplicate": a conditional one that changed nothing; "undecided":
                   conditional, and nobody who remembers was asked; "quarantined": every fold skips it; "skipped": a
                   repair steps over it; "refused": it stops the partition
    reason         why, unless it is applied
    present        True: the row is what this one made of it, at the end of what was looked through; None: an undecided
                   one hides which it is
    headers        the writer's own, in their order; names may repeat
    condition      of a conditional mutation: absent, present, version:<offset>, value:<xxh3-128 of it>
    id             of a mutation that has one, 16 bytes
    ttl_ms         after so many milliseconds of the log's time the row ends, if nothing else ends it before
    archived       True where the archive told, False where the log did
    carrier        key of the record where it is another row's: an edit of several rows that names this one; else None
    """

    offset: int
    timestamp_ms: int
    operation: str
    value: bytes | None
    size_bytes: int
    outcome: str
    reason: str | None
    present: bool | None
    headers: tuple[tuple[str, bytes | None], ...]
    condition: str | None = None
    id: bytes | None = None
    ttl_ms: int | None = None
    archived: bool = False
    carrier: bytes | None = None

    @property
    def edits(self) -> "list[SaidEdit] | None":
        """Changes of cells that an edit asks for, in their order; None of what is no edit, or has no value here."""
        if self.operation != "edit" or self.value is None:
            return None
        from logstore.model.wide.said_edit import edits_said  # noqa: PLC0415 - of wide tables only

        return edits_said(self.value)

    @property
    def time(self) -> datetime:
        """The timestamp, in UTC."""
        return _EPOCH + timedelta(milliseconds=self.timestamp_ms)


class HistoryRecord(NamedTuple):
    """Record that was found, and its judgement."""

    record: LoggedRecord
    judged: JudgedRecord
    outcome: str
    reason: str | None
    archived: bool

    def as_mutation(self, present: bool | None, *, values: bool) -> KeyMutation:
        """The mutation, as it is shown."""
        record, judged = self.record, self.judged
        own = tuple((name, content) for name, content in record.headers if not name.startswith(RESERVED))
        return KeyMutation(
            record.offset, record.timestamp_ms, judged.operation, record.value if values else None,
            len(record.value or b""), self.outcome, self.reason, present, own, judged.condition, judged.id,
            judged.ttl_ms, self.archived, record.carrier,
        )  # fmt: skip


class KeyStanding:
    """Standing of the mutations of a key: which of them made the row what it is. It is fed from the newest down."""

    def __init__(self) -> None:
        self._made: int | None = None  # offset of the newest one that is applied
        self._sure = True  # none above it is undecided

    @property
    def is_found(self) -> bool:
        """True once no older mutation can matter."""
        return self._made is not None

    def see(self, found: HistoryRecord) -> None:
        """Take the next one."""
        if self._made is None and found.outcome == "applied":
            self._made = found.record.offset
        elif self._made is None and found.outcome == "undecided":
            self._sure = False

    def of(self, found: HistoryRecord) -> bool | None:
        """True where the row is what this one made of it; None: unknown. Requires: it was seen, or `is_found`."""
        if found.outcome == "undecided":
            return None if self._made is None or found.record.offset > self._made else False
        if found.outcome != "applied" or found.record.offset != self._made:
            return False
        return True if self._sure else None
