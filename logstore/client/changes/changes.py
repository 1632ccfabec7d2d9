"""Changes: iterators over the change feed of one table, blocking and not, that come back and go on where they stood.

They hold a point and one page. What is temporary (the node is away, the log does not answer, a partition moves) is
tried again for `patience_s` since something was last heard; then its error is raised, and `id` is where to go on.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from logstore.client.checks import Text, check_number, check_table
from logstore.client.read.http import HttpReader
from logstore.client.read.loop_reader import AsyncReader
from logstore.client.transport.answer import HttpAnswer
from logstore.model.changes.before import CellsBefore
from logstore.model.changes.row_change import RowChange
from logstore.model.errors import LogStoreError, NotRetained, UsageError
from logstore.model.folding.sibling import Ends, Sibling, Siblings, ends_of
from logstore.model.key import to_base64url, to_bytes
from logstore.model.position import Position
from logstore.model.wide.cell import RowCells, WideCell

if TYPE_CHECKING:
    from logstore.client.changes.archived import ArchivedChanges, ArchivedPage
    from logstore.client.changes.page_body import EventBody

PATIENCE_S = 60.0
_WAIT_MS = 10_000  # of a poll, while nothing changes
_LOOK_MS = 500  # of a poll that is not to go on for ever
_PAUSE_S = 0.5


class ChangeEvent(NamedTuple):
    """An event: `put` and `delete` tell a row's new state, `reset` that the table is another topic now: drop your copy.

    `version` is the offset of the record, in its partition; of a row the highest one counts. `timestamp_ms` is log
    time, None in the snapshot part, as is `value` of a delete. `epoch` stands in a reset only. `siblings`: the values
    of a row that has several side by side, the oldest first, `cells`: the newest value of each cell of a wide row; then
    `value` is None. `ends_ms`: when the value, or each sibling or cell, ends by itself; empty: nothing of the row does.
    An end is no event: who keeps the rows keeps it, too. Where it was asked for, `before` has what each cell that was
    written held before, or `before_reason` says why nothing is told of it (docs/changes.md).
    """

    event: Literal["put", "delete", "reset"]
    key: bytes
    value: bytes | None
    version: int
    partition: int
    timestamp_ms: int | None
    epoch: str | None = None
    siblings: Siblings = ()
    cells: tuple[WideCell, ...] = ()
    ends_ms: Ends = ()
    before: CellsBefore = ()
    before_reason: str | None = None

    @property
    def expires_ms(self) -> int | None:
        """Milliseconds since the epoch from which on nothing of the row is left; None: something stays."""
        ends = [end for end in self.ends_ms if end is not None]
        return max(ends) if ends and len(ends) == len(self.ends_ms) else None


class PollPoint:
    """Point where an iterator stands, and what it asks next."""

    def __init__(
        self, table: str, since: Position | str, prefix: Text | None, patience_s: float, *, follow: bool,
        before: bool = False,
    ) -> None:  # fmt: skip
        check_table(table)
        check_number("patience_s", patience_s, 0)
        for name, flag in (("follow", follow), ("before", before)):
            if not isinstance(flag, bool):
                raise UsageError(f"{name} is True or False, not {flag!r:.80}")
        if not isinstance(since, Position | str):
            raise UsageError(f"since is beginning, now, an id, a token or a time, not {since!r:.40}")
        self.table, self._patience_s = table, patience_s
        self.id = since.token if isinstance(since, Position) else since
        self._following, self._page = self.id, list[ChangeEvent]()
        self.live, self.follow, self.before = False, follow, before
        self._end: Position | None = None
        self.prefix = b"" if prefix is None else to_bytes(prefix)
        self._heard_s = monotonic()

    @property
    def wait_ms(self) -> int:
        """Milliseconds that the next poll waits for a change."""
        if self.id == "now" or self.lacks_end:
            return 0
        return _WAIT_MS if self.follow else _LOOK_MS

    def query(self) -> Mapping[str, bytes | str]:
        """Parameters of the next poll."""
        if self.lacks_end:
            return {"since": "now", "wait": "0"}
        query: dict[str, bytes | str] = {"since": self._following, "wait": str(self.wait_ms)}
        if self.prefix:
            query |= {"prefix": to_base64url(self.prefix), "key_encoding": "base64url"}
        if self.before:
            query["before"] = "true"
        return query

    def took(self, answer: HttpAnswer) -> None:
        """Take a page over. Raises ServerError when it is none."""
        from logstore.client.changes.page_body import changes_body  # noqa: PLC0415 - loads msgspec

        page = changes_body(answer)
        if self.lacks_end:
            self._end = Position.parse(page.next)
            return
        self._page = [_event(one) for one in reversed(page.events)]
        self._following, self.live, self._heard_s = page.next, page.live, monotonic()
        if any(one.event == "reset" for one in page.events):
            self._end = None  # that of another topic
        if not self._page:
            self.id = self._following

    def took_archived(self, page: "ArchivedPage") -> None:
        """Take a page of the archive over."""
        self._page, self._following = list(reversed(page.events)), page.following
        self.live, self._heard_s = False, monotonic()
        if not self._page:
            self.id = self._following

    def pop(self) -> ChangeEvent | None:
        """The next event of the page; `id` goes on with the last one. None: another page is to be asked for."""
        if not self._page:
            return None
        found = self._page.pop()
        if not self._page:
            self.id = self._following
        return found

    @property
    def has_events(self) -> bool:
        """True while the page is not taken whole."""
        return bool(self._page)

    @property
    def is_over(self) -> bool:
        """True when all has been taken that there was at the beginning, and nobody wants to wait for more."""
        if self.follow or self._end is None or self._page or not self.live:
            return False
        return Position.parse(self._following).covers(self._end)

    @property
    def lacks_end(self) -> bool:
        """True while it is to be asked where the feed stands, since it is read as far as that."""
        return not self.follow and self._end is None

    def failed(self, error: LogStoreError) -> None:
        """Raise an error that would come again, or has come for too long."""
        if not error.retriable or monotonic() - self._heard_s > self._patience_s:
            raise error


def _event(one: "EventBody") -> ChangeEvent:
    siblings = tuple(Sibling(each.version, each.value) for each in one.siblings or ())
    cells = tuple(
        WideCell(each.family, each.qualifier, each.version, each.timestamp, each.value) for each in one.cells or ()
    )
    ends_ms = ends_of(each.expires for each in one.siblings or one.cells or (one,))
    return ChangeEvent(
        one.event, one.key, one.value, one.version, one.partition, one.timestamp, one.epoch, siblings, cells, ends_ms,
        tuple(each.cell for each in one.before or ()), one.before_reason,
    )  # fmt: skip


def event_of(change: RowChange, partition: int, *, before: bool) -> ChangeEvent:
    """The event of a row's change. `before`: with what the row was before."""
    held = change.value
    value = held if isinstance(held, bytes) else None
    siblings: Siblings = held if isinstance(held, tuple) else ()
    cells = held.cells if isinstance(held, RowCells) else ()
    return ChangeEvent(
        "delete" if held is None else "put", change.key, value, change.version, partition, change.time_ms,
        siblings=siblings, cells=tuple(cells), ends_ms=change.ends, before=change.before or () if before else (),
        before_reason=change.before_reason if before else None,
    )  # fmt: skip


def check_from_archive(from_archive: object, storage: object) -> None:
    """Raise UsageError unless these say whether the archive is read, and where it is."""
    if not isinstance(from_archive, bool):
        raise UsageError(f"from_archive is True or False, not {from_archive!r:.80}")
    if not isinstance(storage, str | None):
        raise UsageError(f"storage is a URL or None, not {storage!r:.80}")


class RowChanges(Iterator[ChangeEvent]):
    """Events of a table, blocking. `id`: where to go on, at least once: behind the last page that was taken whole."""

    def __init__(self, reader: HttpReader, point: PollPoint, archived: "ArchivedChanges | None" = None) -> None:
        """Ask at once where now is, when it begins there; else nothing is asked yet.

        `archived`: the source of changes that the log holds no more.
        """
        self._reader, self._point, self._archived = reader, point, archived
        self._behind: Iterator[ArchivedPage] = iter(())
        if point.id == "now":
            self._poll()

    @property
    def id(self) -> str:
        """Point to go on from, for `since`."""
        return self._point.id

    def __next__(self) -> ChangeEvent:
        while (found := self._point.pop()) is None:
            if not self._poll() and self._point.is_over:
                raise StopIteration
        return found

    def _poll(self) -> bool:
        """True when there is an event."""
        point = self._point
        while True:
            try:
                if (page := next(self._behind, None)) is not None:
                    point.took_archived(page)
                else:
                    point.took(self._reader.changes(point.table, point.query(), point.wait_ms))
            except NotRetained as error:
                if self._archived is None:
                    raise
                self._behind = self._archived.behind(point, error)
            except LogStoreError as error:
                point.failed(error)
                time.sleep(_PAUSE_S)
            else:
                return point.has_events


class AsyncRowChanges(AsyncIterator[ChangeEvent]):
    """Events of a table, with `async for`; otherwise as `RowChanges`. Where now is it asks with the first event."""

    def __init__(self, reader: AsyncReader, point: PollPoint, archived: "ArchivedChanges | None" = None) -> None:
        """`archived`: the source of changes that the log holds no more, which other threads read."""
        self._reader, self._point, self._archived = reader, point, archived
        self._behind: Iterator[ArchivedPage] | None = None
        self._reading: asyncio.Future[ArchivedPage | None] | None = None

    @property
    def id(self) -> str:
        """Point to go on from, for `since`."""
        return self._point.id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChangeEvent:
        while (found := self._point.pop()) is None:
            if not await self._poll() and self._point.is_over:
                raise StopAsyncIteration
        return found

    async def _poll(self) -> bool:
        point = self._point
        while True:
            try:
                if (page := await self._archived_page()) is not None:
                    point.took_archived(page)
                else:
                    point.took(await self._reader.changes(point.table, point.query(), point.wait_ms))
            except NotRetained as error:
                if self._archived is None:
                    raise
                self._behind = await asyncio.to_thread(self._archived.behind, point, error)
            except LogStoreError as error:
                point.failed(error)
                await asyncio.sleep(_PAUSE_S)
            else:
                return point.has_events

    async def _archived_page(self) -> "ArchivedPage | None":
        """The next page of the archive; who is cancelled meanwhile loses none. None: the log has what follows."""
        if self._behind is None:
            return None
        if self._reading is None:
            self._reading = asyncio.ensure_future(asyncio.to_thread(next, self._behind, None))
        reading = self._reading
        await asyncio.wait([reading])
        if self._reading is reading:
            self._reading = None
        page = reading.result()
        self._behind = None if page is None else self._behind
        return page
