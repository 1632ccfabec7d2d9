"""Span: offsets of a key's partition that one source tells; and what such sources have to say."""

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple, Protocol

from logstore.model.history.logged import LoggedRecord
from logstore.model.table import Table

Scanned = Callable[[int], None]  # count of records that were looked through
OutcomeWords = tuple[str, str | None]  # outcome of a conditional mutation, and the reason
Decide = Callable[[Sequence[int]], Sequence[OutcomeWords]]  # of the mutations at these offsets, in their order


class KeyPlace(NamedTuple):
    """Place of a key: its partition's log."""

    bootstrap: str
    table: Table
    partition: int
    key: bytes


class Span(NamedTuple):
    """Offsets `[start, end)` that one of the sources tells."""

    start: int
    end: int
    archived: bool


class HistorySources(Protocol):
    """Sources of a key's history, whatever holds its records: `sources.Sources`, or a store in memory."""

    place: KeyPlace
    reach: int  # of the archive
    end: int

    @property
    def missing(self) -> tuple[int, int] | None: ...  # noqa: D102 - see `sources.Sources`
    @property
    def known_from(self) -> int: ...  # noqa: D102 - see `sources.Sources`
    def timestamp_of_first(self) -> int | None: ...  # noqa: D102 - see `sources.Sources`
    def first_later(self, time_ms: int) -> int: ...  # noqa: D102 - see `sources.Sources`
    def spans(self, start: int, end: int) -> list[Span]: ...  # noqa: D102 - see `sources.Sources`
    def records(  # noqa: D102 - see `sources.Sources`
        self, span: Span, *, newest: bool, scanned: Scanned
    ) -> Generator[LoggedRecord, None, None]: ...
