"""Feed records: what the workers and the readers of a node tell each other. Drawn in `docs/feed_format.md`.

A worker publishes a dictionary (`logstore.view.feed`). Each of its keys is a class here and names the class of its
record, so that both sides speak of the same fields. What goes the other way is an `Acknowledgement`.

    key                                    record           in words
    TablesKey()                            TablesRecord     definitions of the tables, and where the storage lies
    NodesKey()                             NodesRecord      what every live worker of every node announced
    LogKey()                               LogRecord        whether Kafka answers
    MarkKey()                              MarkRecord       sent back once all that was published before is taken in
    ViewKey(table, epoch, partition)       ViewRecord       a partition served here: its view, the snapshots under it
    AdoptionKey(table, epoch, partition)   AdoptionRecord   how far the adoption of a snapshot has come
    AppliedKey(epoch, partition)           AppliedRecord    where a view and its log stand
    TimesKey(epoch, partition)             TimesRecord      where a partition stood in log time before ticks
    EndsKey()                              EndsRecord       where the logs ended when Kafka was asked

Versions stand beside each other while a node is upgraded, so both sides read leniently: a key and a field of a later
version are passed over; a field that is missing or null has its default, and defaults are such that nothing is answered
from them. A field of another kind than told here is an `UnreadableRecord`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import msgpack

from logstore.model.slots import DEFAULT_SLOTS
from logstore.view.feed_fields import definition, each, flag, number, read_array, read_map, text, unreadable

LIVE, CATCHING_UP, STOPPED = "live", "catching-up", "stopped"  # states of a view
NONE, ADOPTED, WAITING, FETCHING, BUILDING, REFUSED = (  # states of an adoption
    "none", "adopted", "waiting", "fetching", "building", "refused",
)  # fmt: skip


class FeedRecord(Protocol):
    """A value of the feed's dictionary."""

    def encode(self) -> object:
        """The record as a msgpack value."""


R = TypeVar("R", bound=FeedRecord)


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


class ProcessIds(NamedTuple):
    """Processes of one node."""

    node: int | None = None
    kafka: int | None = None
    workers: tuple[int, ...] = ()
    readers: tuple[int, ...] = ()

    @classmethod
    def decode(cls, raw: object) -> "ProcessIds":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_map(cls, raw, node=number, kafka=number, workers=each(number), readers=each(number))


class NodeRecord(NamedTuple):
    """Worker of any node, as it announced itself (`logstore.log.membership.nodes`)."""

    node: str = ""
    worker: int = -1
    url: str = ""
    group: str = ""
    zone: str = ""
    slots: tuple[int, ...] = ()  # assigned
    live: tuple[int, ...] = ()  # served, caught up
    pids: ProcessIds = ProcessIds()
    tables: int = -1  # revision of the definitions that all its readers serve

    def encode(self) -> dict[str, object]:
        """The record as a msgpack value."""
        return {**self._asdict(), "pids": self.pids._asdict()}

    @classmethod
    def decode(cls, raw: object) -> "NodeRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_map(
            cls, raw, node=text, worker=number, url=text, group=text, zone=text, slots=each(number),
            live=each(number), pids=ProcessIds.decode, tables=number,
        )  # fmt: skip


class NodesRecord(NamedTuple):
    """Live workers of all nodes."""

    nodes: tuple[NodeRecord, ...] = ()

    def encode(self) -> object:
        """The record as a msgpack value."""
        return [node.encode() for node in self.nodes]

    @classmethod
    def decode(cls, raw: object) -> "NodesRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        return cls(each(NodeRecord.decode)(raw))


class LogRecord(NamedTuple):
    """Reachability of Kafka; None: not told."""

    reachable: bool | None = None

    def encode(self) -> object:
        """The record as a msgpack value."""
        return self._asdict()

    @classmethod
    def decode(cls, raw: object) -> "LogRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_map(cls, raw, reachable=flag)


class MarkRecord(NamedTuple):
    """Point in the publications of one run of a worker."""

    run: str = ""
    number: int = 0

    def encode(self) -> object:
        """The record as a msgpack value."""
        return tuple(self)

    @classmethod
    def decode(cls, raw: object) -> "MarkRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_array(cls, raw, run=text, number=number)


class LocalSnapshotRecord(NamedTuple):
    """A snapshot of one partition. `path`: its RocksDB directory on this node, None while it is not here."""

    path: str | None = None
    snapshot: str = ""
    cut: int = -1  # first offset that it does not cover
    log_time_ms: int = -1  # at the cut

    @classmethod
    def decode(cls, raw: object) -> "LocalSnapshotRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        found = read_map(cls, raw, path=text, snapshot=text, cut=number, log_time_ms=number)
        whole = found.snapshot and found.cut >= 0 and found.log_time_ms >= 0
        return found if whole else found._replace(path=None)  # not to be read: what it holds is not told


class ViewRecord(NamedTuple):
    """A partition that is served here. `path`: its view's directory, None while there is none."""

    path: str | None = None
    slot: int = -1
    state: str = CATCHING_UP
    reason: str = ""  # why it is stopped, or what holds it up
    base: LocalSnapshotRecord | None = None  # read it for what the view does not hold; None: the view holds everything
    older: tuple[LocalSnapshotRecord, ...] = ()  # local snapshots of earlier cuts, oldest first
    reached: bool = False  # it has been at the end of the log: before that, what it lacks is not absent

    def encode(self) -> dict[str, object]:
        """The record as a msgpack value."""
        base = None if self.base is None else self.base._asdict()
        return {**self._asdict(), "base": base, "older": [one._asdict() for one in self.older]}

    @classmethod
    def decode(cls, raw: object) -> "ViewRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        found = read_map(
            cls, raw, path=text, slot=number, state=text, reason=text, base=LocalSnapshotRecord.decode,
            older=each(LocalSnapshotRecord.decode), reached=flag,
        )  # fmt: skip
        if found.state in (LIVE, CATCHING_UP, STOPPED):
            return found
        reason = f"a later version calls this state {found.state!r}; restart the node. {found.reason}".rstrip()
        return found._replace(state=STOPPED, reason=reason)  # it may mean that nothing is to be answered


class DigestRecord(NamedTuple):
    """Digest of a partition's live entries at a cut, 32 hex digits, and how many entries those are."""

    cut: int = -1
    digest: str = ""
    entries: int = -1

    @classmethod
    def decode(cls, raw: object) -> "DigestRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_array(cls, raw, cut=number, digest=text, entries=number)


class LocalProof(NamedTuple):
    """Standing of a local snapshot's partition: proved, unproved, refused."""

    snapshot: str = ""
    proof: str = "unproved"

    @classmethod
    def decode(cls, raw: object) -> "LocalProof":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_array(cls, raw, snapshot=text, proof=text)


class AdoptionRecord(NamedTuple):
    """State of a partition's adoption of snapshots, as `/v1/snapshots` shows it."""

    base: str | None = None  # the snapshot that the view stands on
    cut: int | None = None  # its cut
    candidate: str | None = None  # the snapshot that is to be adopted
    state: str = NONE
    reason: str = ""
    fetched_bytes: int = 0
    total_bytes: int = 0
    digests: tuple[DigestRecord, ...] = ()  # this node's own, newest last
    proof: str = "unproved"  # standing of what the view's fold began with: proved, unproved, refused
    local: tuple[LocalProof, ...] = ()  # of the snapshots that are here; answers for the past stand on proved ones only

    def encode(self) -> object:
        """The record as a msgpack value."""
        return self._asdict()

    @classmethod
    def decode(cls, raw: object) -> "AdoptionRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_map(
            cls, raw, base=text, cut=number, candidate=text, state=text, reason=text, fetched_bytes=number,
            total_bytes=number, digests=each(DigestRecord.decode), proof=text,
            local=each(LocalProof.decode),
        )  # fmt: skip


class AppliedRecord(NamedTuple):
    """Position of a view, and the end of its log as last heard."""

    next_offset: int = 0
    end: int = 0

    def encode(self) -> object:
        """The record as a msgpack value."""
        return tuple(self)

    @classmethod
    def decode(cls, raw: object) -> "AppliedRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_array(cls, raw, next_offset=number, end=number)


class StoodAt(NamedTuple):
    """A log time, and the next offset of a partition that stood there."""

    log_time_ms: int = 2**63 - 1
    next_offset: int = 0

    @classmethod
    def decode(cls, raw: object) -> "StoodAt":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_array(cls, raw, log_time_ms=number, next_offset=number)


class TimesRecord(NamedTuple):
    """Places of one partition's log, each the last that was applied before a tick moved log time on, newest last."""

    stood: tuple[StoodAt, ...] = ()

    def encode(self) -> object:
        """The record as a msgpack value."""
        return tuple(tuple(one) for one in self.stood)

    @classmethod
    def decode(cls, raw: object) -> "TimesRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        return cls(each(StoodAt.decode)(raw))


class PartitionEnd(NamedTuple):
    """End of one partition's log."""

    epoch: str = ""
    partition: int = -1
    end: int = 0

    @classmethod
    def decode(cls, raw: object) -> "PartitionEnd":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_array(cls, raw, epoch=text, partition=number, end=number)


class EndsRecord(NamedTuple):
    """Ends of the logs. `asked_ms`: when Kafka was asked, before it answered, milliseconds since 1970."""

    asked_ms: int = 0
    ends: tuple[PartitionEnd, ...] = ()

    def encode(self) -> object:
        """The record as a msgpack value."""
        return tuple(self)

    @classmethod
    def decode(cls, raw: object) -> "EndsRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_array(cls, raw, asked_ms=number, ends=each(PartitionEnd.decode))


@dataclass(frozen=True, slots=True)
class FeedKey(Generic[R]):
    """Name of a record of class R in the feed's dictionary."""

    word: ClassVar[str]
    record: ClassVar[Any]  # R

    def encode(self) -> object:
        """The key as a msgpack value: the word alone, or an array of the word and what follows it."""
        names: tuple[str, ...] = self.__slots__
        parts = tuple(getattr(self, name) for name in names)
        return (self.word, *parts) if parts else self.word


@dataclass(frozen=True, slots=True)
class TablesKey(FeedKey[TablesRecord]):
    """Key of the definitions of the tables."""

    word, record = "tables", TablesRecord


@dataclass(frozen=True, slots=True)
class NodesKey(FeedKey[NodesRecord]):
    """Key of the workers of all nodes."""

    word, record = "nodes", NodesRecord


@dataclass(frozen=True, slots=True)
class LogKey(FeedKey[LogRecord]):
    """Key of the record that says whether Kafka answers."""

    word, record = "log", LogRecord


@dataclass(frozen=True, slots=True)
class MarkKey(FeedKey[MarkRecord]):
    """Key of the mark that readers send back."""

    word, record = "mark", MarkRecord


@dataclass(frozen=True, slots=True)
class EndsKey(FeedKey[EndsRecord]):
    """Key of the ends of the logs."""

    word, record = "ends", EndsRecord


@dataclass(frozen=True, slots=True)
class ViewKey(FeedKey[ViewRecord]):
    """Key of one partition's view."""

    word, record = "view", ViewRecord
    table: str
    epoch: str
    partition: int


@dataclass(frozen=True, slots=True)
class AdoptionKey(FeedKey[AdoptionRecord]):
    """Key of one partition's adoption of snapshots."""

    word, record = "snapshot", AdoptionRecord
    table: str
    epoch: str
    partition: int


@dataclass(frozen=True, slots=True)
class AppliedKey(FeedKey[AppliedRecord]):
    """Key of one partition's position."""

    word, record = "applied", AppliedRecord
    epoch: str
    partition: int


@dataclass(frozen=True, slots=True)
class TimesKey(FeedKey[TimesRecord]):
    """Key of one partition's places in log time."""

    word, record = "times", TimesRecord
    epoch: str
    partition: int


AnyKey = TablesKey | NodesKey | LogKey | MarkKey | EndsKey | ViewKey | AdoptionKey | AppliedKey | TimesKey
AnyRecord = (
    TablesRecord | NodesRecord | LogRecord | MarkRecord | EndsRecord | ViewRecord | AdoptionRecord | AppliedRecord
    | TimesRecord
)  # fmt: skip
Change = tuple[AnyKey, AnyRecord | None]  # the record is None: the key is removed

_PLAIN = {key.word: key for key in (TablesKey(), NodesKey(), LogKey(), MarkKey(), EndsKey())}
_OF_TABLE = {key.word: key for key in (ViewKey, AdoptionKey)}


class SnapshotPlace(NamedTuple):
    """Name of a local snapshot of one partition."""

    table: str = ""
    epoch: str = ""
    partition: int = -1
    snapshot: str = ""

    @classmethod
    def decode(cls, raw: object) -> "SnapshotPlace":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_array(cls, raw, table=text, epoch=text, partition=number, snapshot=text)


class WantedTick(NamedTuple):
    """A partition of which a reader waits for a record with a later time than this."""

    epoch: str = ""
    partition: int = -1
    time_ms: int = -1

    @classmethod
    def decode(cls, raw: object) -> "WantedTick":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_array(cls, raw, epoch=text, partition=number, time_ms=number)


class Acknowledgement(NamedTuple):
    """State of a reader, as it tells the worker; the latest counts."""

    pid: int = 0
    tables: int = -1  # revision of the definitions whose claimed partitions are all open
    mark: MarkRecord | None = None  # the newest that was taken in
    damaged: tuple[SnapshotPlace, ...] = ()  # local snapshots that were found damaged
    ticks: tuple[WantedTick, ...] = ()  # records with a later time that are waited for

    def encode(self) -> bytes:
        """The acknowledgement as bytes for the way up."""
        return bytes(msgpack.packb(self._asdict()))

    @classmethod
    def decode(cls, raw: object) -> "Acknowledgement":
        """Acknowledgement of a msgpack value; raises UnreadableRecord."""
        return read_map(
            cls, raw, pid=number, tables=number, mark=MarkRecord.decode, damaged=each(SnapshotPlace.decode),
            ticks=each(WantedTick.decode),
        )  # fmt: skip


def encode_change(key: FeedKey[R], record: R | None) -> bytes:
    """Bytes of a change, for the way down."""
    value = None if record is None else record.encode()
    return bytes(msgpack.packb((key.encode(), value)))


def decode_change(raw: object) -> Change | None:
    """The change that a msgpack value says; None when it is of a later version's key. Raises UnreadableRecord."""
    if not (isinstance(raw, tuple) and len(raw) >= 2):
        raise unreadable("a change", raw)
    key = decode_key(raw[0])
    if key is None:
        return None
    return key, None if raw[1] is None else key.record.decode(raw[1])


def decode_key(raw: object) -> AnyKey | None:
    """The key that a msgpack value says; None when it is a later version's."""
    match raw:
        case ("applied", str(epoch), int(partition)):
            return AppliedKey(epoch, partition)
        case ("times", str(epoch), int(partition)):
            return TimesKey(epoch, partition)
        case (str(word), str(table), str(epoch), int(partition)) if word in _OF_TABLE:
            return _OF_TABLE[word](table, epoch, partition)
        case str(word) | (str(word),):
            return _PLAIN.get(word)
    return None
