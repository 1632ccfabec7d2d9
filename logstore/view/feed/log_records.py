"""Kafka in the feed: whether it answers, and where the logs ended when it was asked."""

from dataclasses import dataclass
from typing import NamedTuple

from logstore.view.feed.fields import each, flag, number, read_array, read_map, text
from logstore.view.feed.key import FeedKey


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


@dataclass(frozen=True, slots=True)
class LogKey(FeedKey[LogRecord]):
    """Key of the record that says whether Kafka answers."""

    word, record = "log", LogRecord


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
    """Ends of the logs. `asked_ms`: when Kafka was asked, before it answered, milliseconds since 1970.

    `silent`: followed partitions of which it told none: no leader, or an ACL that lacks.
    """

    asked_ms: int = 0
    ends: tuple[PartitionEnd, ...] = ()
    silent: tuple[PartitionEnd, ...] = ()

    def encode(self) -> object:
        """The record as a msgpack value."""
        return tuple(self)

    @classmethod
    def decode(cls, raw: object) -> "EndsRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        ends = each(PartitionEnd.decode)
        return read_array(cls, raw, asked_ms=number, ends=ends, silent=ends)


@dataclass(frozen=True, slots=True)
class EndsKey(FeedKey[EndsRecord]):
    """Key of the ends of the logs."""

    word, record = "ends", EndsRecord
