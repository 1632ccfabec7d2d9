"""Registry: the definitions of all tables, as records of the compacted topic `logstore.tables`.

A record's key is the table's name, its value the definition as JSON (see `model.table`); the key `STORE` holds what is
true of the whole store. The newest record of a key counts. A dropped table keeps a record, so that its epochs stay
known.

A record that cannot be read concerns its key alone, until a later one that can be read, or a tombstone:

    damaged            the readable one before it counts; where there is none the table is stopped, and says why
    of a later build   the table is stopped, and says why: to fold by the rules before would be wrong
    of no table's key  nobody's: it is counted, and `logstore doctor` says so
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson
from confluent_kafka import KafkaError, TopicPartition

from logstore import settings
from logstore.log import topics
from logstore.log.connect.acl import topic
from logstore.log.kafka import clients, errors
from logstore.log.kafka.offsets import bounds
from logstore.log.kafka.records import Record, take
from logstore.model.errors import (
    BadDefinition,
    Corrupted,
    LogStoreError,
    LogUnreachable,
    NoSuchTable,
    SetupError,
    Stopped,
    Unsupported,
    UsageError,
)
from logstore.model.slots import DEFAULT_SLOTS
from logstore.model.storage_url import check_storage_url
from logstore.model.table import SLOTS_TOPIC, TABLES_TOPIC, Table, check_name

STORE = b"!store"
_TO_THE_END = {"enable.partition.eof": True, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 20}
_TOGETHER_MS = 50  # what is appended within this time is one record batch, which a broker appends whole or not at all
_WRITING = "write a table definition"
WRITE_S = 60.0  # after a broker's start an idempotent producer can wait 10 s for its coordinator


class Definitions(NamedTuple):
    """Definitions of all tables up to one position of `logstore.tables`."""

    revision: int  # next offset of logstore.tables
    tables: dict[str, Table]  # by name, dropped ones included: the newest that can be read of each
    storage: str | None = None  # where archive and snapshots lie, an fsspec URL; None = under the data directory
    unreadable: Mapping[str, Stopped] = MappingProxyType({})  # names whose newest record cannot be read, and why
    storage_problem: str | None = None  # why the newest record of `STORE` does not count
    foreign: int = 0  # records under keys that no table can have

    def with_record(self, record: Record) -> "Definitions":
        """The definitions after one more record. Whatever it holds, nothing is raised."""
        found = self._replace(revision=record.offset() + 1)
        key, value = record.key(), record.value()
        if key == STORE:
            return found._with_storage(value)
        try:
            name = check_name((key or b"").decode("ascii"))
        except (UnicodeDecodeError, BadDefinition):
            return found._replace(foreign=self.foreign + 1)
        others = {one: why for one, why in self.unreadable.items() if one != name}
        if value is None:
            return found._replace(unreadable=others)
        try:
            table = Table.from_json(value, record.offset(), key)
        except (Corrupted, Unsupported) as error:
            return found._replace(unreadable={**others, name: _stop_of(name, error)})
        return found._replace(tables={**self.tables, name: table}, unreadable=others)

    def live(self, name: str) -> Table:
        """The definition of a table that is there; raises NoSuchTable, Corrupted, Unsupported."""
        if (why := self.stopped(name)) is not None:
            raise why
        table = self.tables.get(name)
        if table is None or table.dropped:
            raise NoSuchTable(name)
        return table

    def stopped(self, name: str) -> Stopped | None:
        """The reason why the table of that name cannot be followed, as far as its definition is concerned."""
        why = self.unreadable.get(name)
        return None if isinstance(why, Corrupted) and name in self.tables else why

    def known_storage(self) -> str | None:
        """URL of archive and snapshots; raises Corrupted when the store's record of it is none."""
        if self.storage is None and self.storage_problem is not None:
            raise Corrupted(self.storage_problem)
        return self.storage

    def _with_storage(self, value: bytes | None) -> "Definitions":
        if value is None:
            return self._replace(storage_problem=None)
        try:
            url = check_storage_url(orjson.loads(value)["storage"], settings.load().storage_schemes)
        except (ValueError, KeyError, TypeError, UsageError) as error:
            why = f"the record of the store's storage in {TABLES_TOPIC} cannot be followed: {error}"
            return self._replace(
                storage_problem=f"{why}; `logstore node --storage URL`, started once, writes another one"
            )
        return self._replace(storage=url, storage_problem=None)


def _stop_of(name: str, error: Stopped) -> Stopped:
    if isinstance(error, Unsupported):
        return Unsupported(f"table {name} is stopped: {error}")
    step = f"`logstore table repair {name} --definition` writes the last one that can be read"
    return Corrupted(f"table {name}: {error}; {step}")


EMPTY = Definitions(0, {})


class Registry:
    """Reads and writes definitions. Thread-safe."""

    def __init__(self, bootstrap: str) -> None:
        """`bootstrap`: host:port[,host:port]. Nothing is connected before the first call."""
        self.bootstrap = bootstrap

    @property
    def admin(self) -> Any:
        """The admin client, connected on first use."""
        return clients.admin(self.bootstrap)

    def read(self, timeout_s: float = clients.REQUEST_S) -> Definitions:
        """Definitions of all tables as of now.

        Raises LogUnreachable; SetupError when the store has never been started on this Kafka.
        """
        end = self._end()
        found = EMPTY
        for record in _read_compacted(self.bootstrap, end, timeout_s):
            found = found.with_record(record)
        return found._replace(revision=max(found.revision, end))

    def tables(self) -> dict[str, Table]:
        """Every table that is there, by name."""
        return {name: table for name, table in self.read().tables.items() if not table.dropped}

    def table(self, name: str) -> Table:
        """A table's definition; raises NoSuchTable, LogUnreachable; Corrupted or Unsupported when it cannot be read."""
        return self.read().live(name)

    def write(self, table: Table) -> int:
        """Append a definition; returns its offset.

        Raises LogStoreError when another one came in between: the newest record counts, so it is replaced, and somebody
        has to know.
        """
        (written,) = self.write_all([table])
        return written.revision

    def write_all(self, tables: Sequence[Table]) -> list[Table]:
        """Append several definitions in one record batch, so that readers see all of them or none.

        Returns them with their revisions.

        Raises as `write`, for the first of them that was changed in between.
        """
        offsets = self._append([(table.name.encode(), table.to_json()) for table in tables])
        records = _read_compacted(self.bootstrap, offsets[0], clients.REQUEST_S)
        for table in tables:
            if any(_is_newer(record, table) for record in records):
                raise LogStoreError(
                    f"table {table.name}: somebody else changed it at the same time, and this change, which came last, "
                    "has replaced "
                    f"theirs; `logstore table describe {table.name}` shows what holds now"
                )
        return [replace(table, revision=offset) for table, offset in zip(tables, offsets, strict=True)]

    def write_over(self, table: Table) -> tuple[Table, Table | None]:
        """Append a definition; returns it as it is read, and the one that came in between, which it has replaced.

        That one's author does not know. Raises as `write`, but for that.
        """
        (offset,) = self._append([(table.name.encode(), table.to_json())])
        records = _read_compacted(self.bootstrap, offset, clients.REQUEST_S)
        newer = [record for record in records if _is_newer(record, table)]
        others = [Table.from_json(record.value() or b"", record.offset(), record.key()) for record in newer[-1:]]
        return Table.from_json(table.to_json(), offset), others[0] if others else None

    def forget(self, name: str) -> int:
        """Append a tombstone: a record of that name which cannot be read does not matter any more."""
        return self._append([(name.encode(), None)])[0]

    def write_storage(self, url: str) -> int:
        """Record where archive and snapshots lie; raises UsageError."""
        check_storage_url(url, settings.load().storage_schemes)
        return self._append([(STORE, orjson.dumps({"format": 1, "storage": url}))])[0]

    def slots(self) -> int:
        """The number of slots of this store."""
        return topics.partition_count(self.admin, SLOTS_TOPIC)

    def ensure_store(self, slots: int = DEFAULT_SLOTS) -> int:
        """Create the store's own topics where they are missing; returns the number of slots."""
        topics.ensure_internal(self.admin, slots)
        return self.slots()

    def close(self) -> None:
        """Nothing is to be let go: the admin client is the process's."""

    def _end(self) -> int:
        client = self.admin
        try:
            return bounds(client, TABLES_TOPIC, [0])[0].end
        except LogStoreError as error:
            if isinstance(error, LogUnreachable):
                raise
            here = self.bootstrap
            raise SetupError(
                f"there is no logstore on {here} yet; start one: `logstore node --bootstrap {here}`"
            ) from error

    def _append(self, records: Sequence[tuple[bytes, bytes | None]]) -> list[int]:
        """Append records; returns their offsets."""
        own = {
            "acks": "all", "enable.idempotence": True, "delivery.timeout.ms": int(WRITE_S * 1000),
            "linger.ms": 0 if len(records) == 1 else _TOGETHER_MS,
        }  # fmt: skip
        producer = clients.producer(self.bootstrap, **own)
        delivered: list[tuple[Any, Any]] = []
        for key, value in records:
            producer.produce(
                TABLES_TOPIC,
                value,
                key,
                partition=0,
                on_delivery=lambda error, record: delivered.append((error, record)),
            )
        if errors.flush(producer, WRITE_S + 5, _WRITING, TABLES_TOPIC) or len(delivered) < len(records):
            clients.check_access(producer)
            raise LogUnreachable(f"{_WRITING}: Kafka did not acknowledge it")
        for error, _ in delivered:
            if error is not None:
                raise errors.translate(error, _WRITING, producer, topic("WRITE", TABLES_TOPIC))
        return [int(record.offset()) for _, record in delivered]


def _is_newer(record: Record, table: Table) -> bool:
    """True for a later definition of the same table; one that cannot be read is none."""
    key, value = record.key(), record.value()
    if key != table.name.encode() or record.offset() <= table.revision or value is None:
        return False
    try:
        Table.from_json(value, record.offset(), key)
    except Corrupted:
        return False
    except Unsupported:
        return True
    return True


def _unreadable(error: Any, reader: Any) -> LogStoreError:
    typed = errors.translate(error, f"read {TABLES_TOPIC}", reader, topic("READ", TABLES_TOPIC))
    return typed if isinstance(typed, LogUnreachable) else Corrupted(f"{TABLES_TOPIC}: {error.str()}")


def _read_compacted(bootstrap: str, end: int, timeout_s: float) -> list[Record]:
    """Every record of `logstore.tables` below `end`; compaction leaves holes there, so only the end is checked."""
    reader = clients.consumer(bootstrap, **_TO_THE_END)
    found: list[Record] = []
    try:
        reader.assign([TopicPartition(TABLES_TOPIC, 0, 0)])
        while True:
            for record in take(reader, 1_000, timeout_s):
                if record.error() is None and record.offset() < end:
                    found.append(record)
                elif record.error() is None or record.error().code() == KafkaError._PARTITION_EOF:
                    return found
                else:
                    raise _unreadable(record.error(), reader)
    finally:
        reader.close()
