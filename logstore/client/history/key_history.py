"""KeyHistory: the mutations of one key, read from its partition's log and archive as they are taken."""

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from types import TracebackType
from typing import NamedTuple, Self

from logstore.client.checks import check_kind, check_number
from logstore.client.history.asked_together import Judged, asked_together, is_asked
from logstore.client.history.mutation import HistoryRecord, KeyMutation, KeyStanding
from logstore.client.history.span import Decide, HistorySources, OutcomeWords, Scanned, Span
from logstore.client.read.point import AsOfBound, PointInTime, when
from logstore.model.errors import EpochChanged, UsageError
from logstore.model.history.judged import judge
from logstore.model.point_in_time import read_moment
from logstore.model.position import Position
from logstore.model.table import Table

_NOBODY = "what stands below it decides, and no node that remembers its outcome was asked"


class _NobodyListens(Exception):
    """Raised inside, where nobody wants the rest."""


class Selection(NamedTuple):
    """Selection of the mutations that are wanted; see `Store.history`."""

    since: PointInTime = None
    until: PointInTime = None
    limit: int | None = None
    oldest_first: bool = False
    values: bool = True

    def check(self) -> "Selection":
        """Itself. Raises UsageError, BadToken."""
        if self.limit is not None:
            check_number("limit", self.limit, 1, whole=True)
        _check_flag("oldest_first", self.oldest_first)
        _check_flag("values", self.values)
        for point in (self.since, self.until):
            if point is not None:
                _moment(point)
        return self


def check_archive(archive: object, storage: object) -> None:
    """Raise UsageError for what does not say whether, and where, the archive is asked."""
    _check_flag("archive", archive)
    check_kind("storage", storage, str, "a URL")


def _check_flag(name: str, flag: object) -> None:
    if not isinstance(flag, bool):
        raise UsageError(f"{name} is True or False, not {flag!r:.80}")


class KeyHistory(Iterator[KeyMutation]):
    """Iterator over the mutations of one key, the newest first unless it was asked for the other way.

    table, key, partition   what it is of
    start, end              offsets of the partition that are looked through: `[start, end)`
    known_from              offset from which on log and archive hold every mutation; 0: from the first one on
    known_from_ms           the time of that; None where it is 0
    missing                 offsets (first, last) that nobody holds any more; None: there are none
    archived_to             the archive tells what is below this offset; 0: it has nothing, or was not asked
    copied_from             table that this one was restored from: what came before is in the history of that one

    Bounded in memory, whatever the key has been through. Close it, or take it to its end.
    """

    def __init__(
        self,
        sources: HistorySources,
        selection: Selection,
        scanned: Scanned = lambda _: None,
        decide: Decide | None = None,
    ) -> None:
        """Find the bounds. Raises UsageError, EpochChanged, LogTruncated, LogUnreachable, StorageUnreachable.

        `scanned` hears of offsets as they are looked through, `decide` tells outcomes that records alone do not.
        """
        self._place = sources.place
        table, self.partition, self.key = self._place.table, self._place.partition, self._place.key
        self.table, self.copied_from = table.name, (table.origin or {}).get("table")
        self.missing, self.known_from, self.archived_to = sources.missing, sources.known_from, sources.reach
        self.known_from_ms = sources.timestamp_of_first()
        self._sources, self._selection, self._hear, self._decide = sources, selection, scanned, decide
        self._is_stopped = False
        self.start = 0 if selection.since is None else self._offset(selection.since)
        self.end = sources.end if selection.until is None else self._offset(selection.until)
        self._spans = sources.spans(self.start, self.end)
        self._mutations = self._ascending() if selection.oldest_first else self._descending()
        self._wanted = islice(self._mutations, selection.limit)

    @property
    def span(self) -> int:
        """Count of offsets to look through, about as many as `scanned` will hear of."""
        return sum(one.end - one.start for one in self._spans)

    def __next__(self) -> KeyMutation:
        """The next mutation. Raises LogGap, LogTruncated, LogUnreachable, Corrupted, StorageUnreachable."""
        try:
            return next(self._wanted)
        except (StopIteration, _NobodyListens):
            self.close()
            raise StopIteration from None

    def take(self, most: int, most_bytes: int = 8 << 20) -> list[KeyMutation]:
        """The next mutations, so many and so many bytes at most; none at the end. Raises as `__next__`."""
        taken, size = list[KeyMutation](), 0
        for mutation in self:
            taken.append(mutation)
            size += mutation.size_bytes
            if len(taken) >= most or size >= most_bytes:
                break
        return taken

    def stop(self) -> None:
        """Have the thread that takes mutations meet StopIteration soon. From any thread."""
        self._is_stopped = True

    def close(self) -> None:
        """Let go of log and archive; nothing more comes. In the thread that takes mutations."""
        self._mutations.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _descending(self) -> Generator[KeyMutation, None, None]:
        standing = KeyStanding()
        with closing(self._found(self._spans[::-1], newest=True)) as records:
            for found in records:
                standing.see(found)
                yield found.as_mutation(standing.of(found), values=self._selection.values)

    def _ascending(self) -> Generator[KeyMutation, None, None]:
        """The oldest first. Which one made the row what it is, is looked for from the end before."""
        standing = KeyStanding()
        with closing(self._found(self._spans[::-1], newest=True)) as records:
            for found in records:
                standing.see(found)
                if standing.is_found:
                    break
        with closing(self._found(self._spans, newest=False)) as records:
            for found in records:
                yield found.as_mutation(standing.of(found), values=self._selection.values)

    def _found(self, spans: list[Span], *, newest: bool) -> Generator[HistoryRecord, None, None]:
        table, partition, key = self._place.table, self.partition, self.key
        for span in spans:
            with closing(self._sources.records(span, newest=newest, scanned=self._scanned)) as records:
                judged = ((one, judge(one, one.carrier or key, table, partition)) for one in records)
                for some in asked_together(judged, self._selection.limit):
                    found = self._outcomes(some)
                    for (record, meant), outcome in zip(some, found, strict=True):
                        yield HistoryRecord(record, meant, *outcome, span.archived)

    def _scanned(self, offsets: int) -> None:
        if self._is_stopped:
            raise _NobodyListens
        self._hear(offsets)

    def _outcomes(self, some: list[Judged]) -> list[OutcomeWords]:
        """Outcomes of these records, and the reasons, in their order."""
        asked = [record.offset for record, meant in some if is_asked(meant)]
        found = dict(zip(asked, self._decide(asked), strict=True)) if asked and self._decide is not None else {}
        return [
            found.get(record.offset, ("undecided", _NOBODY)) if is_asked(meant) else (meant.outcome, meant.reason)
            for record, meant in some
        ]

    def _offset(self, point: PointInTime) -> int:
        moment = _moment(point)
        if isinstance(moment, Position):
            return _piece(moment, self._place.table, self.partition, self._sources.end)
        if moment > time.time_ns() // 1_000_000:
            raise UsageError(f"{point} is still to come; what will be written until then is not known yet")
        return self._sources.first_later(moment)


def _moment(point: PointInTime) -> Position | int:
    """A point in time: a position, or milliseconds since 1970. Raises UsageError, BadToken."""
    if isinstance(point, Position):
        return point
    bound = when(None, point)
    assert isinstance(bound, AsOfBound), "a point was given"
    return read_moment(bound.text)


def _piece(position: Position, table: Table, partition: int, end: int) -> int:
    """The offset that a token says of a partition. Raises UsageError, EpochChanged."""
    offset = position.pieces.get((table.epoch, partition))
    if offset is None and any(epoch in table.former_epochs for epoch, _ in position.pieces):
        raise EpochChanged(f"the token is of an earlier topic of {table.name}, whose offsets mean something else")
    if offset is None:
        raise UsageError(
            f"the token has no piece for partition {partition} of {table.name} ({table.epoch}), where this key is; "
            "give a time, or the token of a write to the key"
        )
    if offset > end:
        raise UsageError(
            f"the token says {offset:,} for partition {partition} of {table.name}; its log ends at {end:,}"
        )
    return offset
