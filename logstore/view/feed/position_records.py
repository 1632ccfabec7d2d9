"""Positions in the feed: where a view and its log stand, and where a partition stood in log time before ticks."""

from dataclasses import dataclass
from typing import NamedTuple

from logstore.view.feed.fields import each, number, read_array
from logstore.view.feed.key import FeedKey


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


@dataclass(frozen=True, slots=True)
class AppliedKey(FeedKey[AppliedRecord]):
    """Key of one partition's position."""

    word, record = "applied", AppliedRecord
    epoch: str
    partition: int


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


@dataclass(frozen=True, slots=True)
class TimesKey(FeedKey[TimesRecord]):
    """Key of one partition's places in log time."""

    word, record = "times", TimesRecord
    epoch: str
    partition: int
