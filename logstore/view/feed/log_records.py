"""Kafka in the feed: whether it answers, where the logs ended when it was asked, and where barriers came to lie.

`asked_ns` is the time at which Kafka was asked, before it answered, of the clock that all processes of a machine share
(`clock_ns`): whatever was acknowledged to anybody before that lies below the offset that Kafka then told.

A broker's time is dated by another clock, `boottime_ns`, which goes on while the machine is suspended.
"""

import time
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

    `silent`: followed partitions of which it told none: no leader, or an ACL that lacks. `asked_ns`: `asked_ms` by the
    clock that is never set; 0: not told, and so before anything.
    """

    asked_ms: int = 0
    ends: tuple[PartitionEnd, ...] = ()
    silent: tuple[PartitionEnd, ...] = ()
    asked_ns: int = 0

    def encode(self) -> object:
        """The record as a msgpack value."""
        return tuple(self)

    @classmethod
    def decode(cls, raw: object) -> "EndsRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        ends = each(PartitionEnd.decode)
        return read_array(cls, raw, asked_ms=number, ends=ends, silent=ends, asked_ns=number)


@dataclass(frozen=True, slots=True)
class EndsKey(FeedKey[EndsRecord]):
    """Key of the ends of the logs."""

    word, record = "ends", EndsRecord


class LogPointRecord(NamedTuple):
    """Point of one partition's log that a reader had asked for: nothing acknowledged before `asked_ns` lies behind it.

    `next_offset` -1: Kafka did not tell it, and `why` says the reason.
    """

    asked_ns: int = 0
    next_offset: int = -1
    why: str = ""

    def encode(self) -> object:
        """The record as a msgpack value."""
        return tuple(self)

    @classmethod
    def decode(cls, raw: object) -> "LogPointRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_array(cls, raw, asked_ns=number, next_offset=number, why=text)


@dataclass(frozen=True, slots=True)
class EndKey(FeedKey[LogPointRecord]):
    """Key of the end of one partition's log."""

    word, record = "end", LogPointRecord
    epoch: str
    partition: int


@dataclass(frozen=True, slots=True)
class BarrierKey(FeedKey[LogPointRecord]):
    """Key of the newest barrier that all replicas of one partition's log hold."""

    word, record = "barrier", LogPointRecord
    epoch: str
    partition: int


class ClockRecord(NamedTuple):
    """Time that a broker gave a record, milliseconds since 1970, and when that record was sent, by `boottime_ns`.

    `broker_ms` 0: not told, and so nothing is known of the broker's clock.
    """

    broker_ms: int = 0
    sent_ns: int = 0

    def encode(self) -> object:
        """The record as a msgpack value."""
        return tuple(self)

    @classmethod
    def decode(cls, raw: object) -> "ClockRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_array(cls, raw, broker_ms=number, sent_ns=number)


@dataclass(frozen=True, slots=True)
class ClockKey(FeedKey[ClockRecord]):
    """Key of the newest time of a broker."""

    word, record = "clock", ClockRecord


def boottime_ns() -> int:
    """Nanoseconds since the machine was started, those in which it was suspended too; nobody sets it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def clock_ns() -> int:
    """Nanoseconds of the machine's monotonic clock, one for all processes; nobody sets it."""
    return time.monotonic_ns()
