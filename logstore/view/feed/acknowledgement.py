"""Acknowledgement: what a reader tells its worker, and the mark in the feed that it sends back."""

from dataclasses import dataclass
from typing import NamedTuple

import msgpack

from logstore.view.feed.fields import each, flag, number, read_array, read_map, text
from logstore.view.feed.key import FeedKey


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


@dataclass(frozen=True, slots=True)
class MarkKey(FeedKey[MarkRecord]):
    """Key of the mark that readers send back."""

    word, record = "mark", MarkRecord


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


class LogDemand(NamedTuple):
    """A partition of which a point of the log is wanted that was asked for at this time or later (`clock_ns`)."""

    epoch: str = ""
    partition: int = -1
    since_ns: int = -1

    @classmethod
    def decode(cls, raw: object) -> "LogDemand":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_array(cls, raw, epoch=text, partition=number, since_ns=number)


class Acknowledgement(NamedTuple):
    """State of a reader, as it tells the worker; the latest counts."""

    pid: int = 0
    tables: int = -1  # revision of the definitions whose claimed partitions are all open
    mark: MarkRecord | None = None  # the newest that was taken in
    damaged: tuple[SnapshotPlace, ...] = ()  # local snapshots that were found damaged
    ticks: tuple[WantedTick, ...] = ()  # records with a later time that are waited for
    ends: tuple[LogDemand, ...] = ()  # of which the end of the log is wanted
    barriers: tuple[LogDemand, ...] = ()  # of which a barrier is
    embedded: bool = False  # a reader in a program of its own, on which nothing of the node waits

    def encode(self) -> bytes:
        """The acknowledgement as bytes for the way up; readers of the node leave out that they are not embedded."""
        fields = self._asdict()
        if not self.embedded:
            del fields["embedded"]
        return bytes(msgpack.packb(fields))

    @classmethod
    def decode(cls, raw: object) -> "Acknowledgement":
        """Acknowledgement of a msgpack value; raises UnreadableRecord."""
        return read_map(
            cls, raw, pid=number, tables=number, mark=MarkRecord.decode, damaged=each(SnapshotPlace.decode),
            ticks=each(WantedTick.decode), ends=each(LogDemand.decode), barriers=each(LogDemand.decode), embedded=flag,
        )  # fmt: skip
