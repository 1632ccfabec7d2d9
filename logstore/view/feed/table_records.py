"""Tables in the feed: definitions, where the storage of archive and snapshots lies, scheduled compactions."""

from dataclasses import dataclass
from typing import NamedTuple

from logstore.model.slots import DEFAULT_SLOTS
from logstore.view.feed.fields import definition, each, number, read_array, read_map, text
from logstore.view.feed.key import FeedKey


class UnreadableTable(NamedTuple):
    """A table whose newest definition cannot be read: its name, the word of the error, and the reason in full."""

    name: str = ""
    word: str = ""
    why: str = ""

    @classmethod
    def decode(cls, raw: object) -> "UnreadableTable":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_array(cls, raw, name=text, word=text, why=text)


class TablesRecord(NamedTuple):
    """Definitions of the tables. `tables` None: they are not told."""

    revision: int = -1  # offset behind the newest definition
    topic_id: str | None = None  # of the topic that holds the definitions
    slots: int = DEFAULT_SLOTS
    storage: str | None = None  # URL of archive and snapshots; None: below the data directory
    tables: tuple[bytes, ...] | None = None  # each a definition, see `logstore.model.table.Table.from_json`
    unreadable: tuple[UnreadableTable, ...] = ()  # whose newest definition cannot be read

    def encode(self) -> dict[str, object]:
        """The record as a msgpack value."""
        return {**self._asdict(), "unreadable": [list(one) for one in self.unreadable]}

    @classmethod
    def decode(cls, raw: object) -> "TablesRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_map(
            cls, raw, revision=number, topic_id=text, slots=number, storage=text, tables=each(definition),
            unreadable=each(UnreadableTable.decode),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TablesKey(FeedKey[TablesRecord]):
    """Key of the definitions of the tables."""

    word, record = "tables", TablesRecord


class ScheduleRecord(NamedTuple):
    """Scheduled compactions of a table (`logstore.snapshot.schedule`), and how far the next one is."""

    since_ms: int = 0
    done: int = 0
    failed: int = 0
    failures: int = 0  # in a row
    begun_ms: int = 0
    ended_ms: int = 0
    took_ms: int = 0
    why: str = ""
    next_ms: int = 0
    mutations: int = -1  # since the current snapshot; -1: not known
    snapshot_ms: int = 0  # when that was made

    def encode(self) -> object:
        """The record as a msgpack value."""
        return self._asdict()

    @classmethod
    def decode(cls, raw: object) -> "ScheduleRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_map(
            cls, raw, since_ms=number, done=number, failed=number, failures=number, begun_ms=number, ended_ms=number,
            took_ms=number, why=text, next_ms=number, mutations=number, snapshot_ms=number,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ScheduleKey(FeedKey[ScheduleRecord]):
    """Key of one table's scheduled compactions."""

    word, record = "schedule", ScheduleRecord
    table: str
    epoch: str
