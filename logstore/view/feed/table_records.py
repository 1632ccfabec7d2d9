"""Tables in the feed: their definitions, and where the storage of archive and snapshots lies."""

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
