"""Changes in memory: the change feed of a store that keeps its log and every version of its rows."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import Condition

from logstore.client.changes.changes import ChangeEvent, PollPoint, event_of
from logstore.client.memory.partition import MemoryPartition
from logstore.model.changes.before import before_of, several_versions
from logstore.model.changes.held import held_at
from logstore.model.changes.resume_point import NOW, START, ResumePoint
from logstore.model.changes.row_change import RowChange
from logstore.model.errors import BadToken
from logstore.model.folding.entry import Entry
from logstore.model.point_in_time import read_moment
from logstore.model.position import Position

_LOOK_S = 1.0  # between two looks whether the store was closed


class MemoryChanges(Iterator[ChangeEvent]):
    """Events of a table of the store in memory, as of `RowChanges`; it waits for other threads that write."""

    def __init__(
        self, parts: Sequence[MemoryPartition], asked: PollPoint, changed: Condition, check: Callable[[], None]
    ) -> None:
        """`changed`: of the store's lock; `check` raises when the store is closed. Raises BadToken, UsageError."""
        self._parts, self._asked, self._changed, self._check = parts, asked, changed, check
        self._epoch = parts[0].table.epoch
        self._waiting = deque[tuple[ChangeEvent, str]]()
        self._end: Position | None = None
        with changed:
            self._point = self._begin(asked.id)
        self.id = asked.id if asked.id != NOW else self._point.text

    def __next__(self) -> ChangeEvent:
        with self._changed:
            self._end = self._end or self._stood()
            while not self._waiting:
                self._check()
                self._look()
                if not self._waiting:
                    self.id = self._point.text
                    self._wait()
            event, self.id = self._waiting.popleft()
            return event

    def _wait(self) -> None:
        """Wait for something new; raises StopIteration when nobody wants more than there was at the beginning."""
        if self._point.scanned is not None:
            return
        assert self._end is not None, "it is told before the first event"
        if not self._asked.follow and self._point.position.covers(self._end):
            raise StopIteration
        self._changed.wait(_LOOK_S)

    def _begin(self, since: str) -> ResumePoint:
        if since == NOW:
            return ResumePoint(self._stood())
        if ":" in since:
            moment = read_moment(since)
            assert isinstance(moment, int), "what has a colon is a time"
            return ResumePoint(self._position({part.number: part.offset_at(moment) for part in self._parts}))
        point = ResumePoint.parse(since)
        if point == START or any(epoch == self._epoch for epoch, _ in point.position.pieces):
            return point
        name = self._parts[0].table.name
        raise BadToken(f"the id names no partition of {name!r}; begin with since=beginning or now")

    def _look(self) -> None:
        """Take the rows, or what has changed behind the point."""
        if self._point.scanned is not None:
            self._take_rows(self._point.scanned)
            return
        at = self._point.offsets(self._epoch, range(len(self._parts)))
        for part in self._parts:
            while at[part.number] < part.next_offset:
                offset = at[part.number]
                at[part.number] += 1
                self._take(part, offset, ResumePoint(self._position(at)).text)
        self._point = ResumePoint(self._position(at))

    def _take(self, part: MemoryPartition, offset: int, following: str) -> None:
        """Take what the record at `offset` changed; the id behind it goes with the last row."""
        found = [one for one in part.changed_at(offset) if one[0].startswith(self._asked.prefix)]
        before = self._waiting[-1][1] if self._waiting else self._point.text
        for number, (key, entry) in enumerate(found, 1):
            event = self._event(part, key, entry, part.log_time_ms(offset))
            self._waiting.append((event, following if number == len(found) else before))

    def _take_rows(self, scanned: bytes) -> None:
        tail = ResumePoint(self._point.position or self._stood())
        found = [
            (key, part, entry)
            for part in self._parts
            for key, entry in part.living()
            if key > scanned and key.startswith(self._asked.prefix)
        ]
        found.sort(key=lambda one: one[0])
        for key, part, entry in found:
            self._waiting.append((self._event(part, key, entry, None), ResumePoint(tail.position, key).text))
        if self._waiting:
            self._waiting[-1] = self._waiting[-1][0], tail.text
        self._point = tail

    def _event(self, part: MemoryPartition, key: bytes, entry: Entry, time_ms: int | None) -> ChangeEvent:
        now_ms = part.log_time_ms()
        held, ends = held_at(entry, now_ms)
        before = None if time_ms is None else before_of(entry, several_versions(part.table), now_ms)
        change = RowChange(entry.version, key, held, time_ms, ends=ends, before=before)
        return event_of(change, part.number, before=self._asked.before)

    def _stood(self) -> Position:
        return self._position({part.number: part.next_offset for part in self._parts})

    def _position(self, at: dict[int, int]) -> Position:
        return Position({(self._epoch, number): offset for number, offset in at.items()})


def epochs_of(since: str) -> Position:
    """The position that an id names, of which every log must be known; empty for a word and a time. Raises BadToken."""
    return Position() if since == NOW or ":" in since else ResumePoint.parse(since).position
