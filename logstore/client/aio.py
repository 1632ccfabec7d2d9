"""AsyncStore: the client for asyncio. Same names as `Store`; nothing here blocks the event loop."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from logstore.client.checks import Pair, Text, check_table, seen_header, ttl_header
from logstore.client.conditional.asking import AskedWrite, late, outcome_or_error, place_of
from logstore.client.conditional.async_writes import AsyncConditionalWrites
from logstore.client.conditional.delivery import deliver_async, delivery
from logstore.client.conditional.outcome import Outcome, outcome_of_answer
from logstore.client.conditional.outcome_desk import Answer, AskedPlace, OutcomeDesk
from logstore.client.conditional.outcome_pages import at_position, page_of
from logstore.client.conditional.record import ConditionalRecord, named_after, read_name
from logstore.client.read.budget import DEADLINE_MS
from logstore.client.read.level import Level
from logstore.client.read.point import After, PointInTime, when
from logstore.client.read.row import Row
from logstore.client.read.scan_pages import ScanPages
from logstore.client.wide.async_reads import AsyncWideReads
from logstore.client.wide.reads import ScanBounds
from logstore.client.write.async_pipeline import PipelineOpening
from logstore.client.write.async_single_writes import AsyncSingleWrites
from logstore.client.write.level import WriteLevel
from logstore.client.write.wakeups import Wakeups
from logstore.log.write.limits import GRACE_S
from logstore.model.errors import EpochChanged, UsageError
from logstore.model.key import check_key, to_bytes
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.client.changes.changes import AsyncRowChanges
    from logstore.client.history.async_history import AsyncKeyHistory
    from logstore.client.session.async_session import AsyncSession
    from logstore.client.typed.async_table import AsyncTypedTable
    from logstore.client.wide.row import WideRow
    from logstore.codecs import Codec
    from logstore.model.wide.selection import CellSelection

T = TypeVar("T")


class AsyncStore(AsyncSingleWrites, AsyncConditionalWrites, AsyncWideReads):
    """A connection to one store, for asyncio: the methods of `Store`, awaitable; many tasks may use it at once.

    It belongs to the event loop that it is used in first; once that is closed, to the next one.
    """

    async def put(
        self, table: str, key: Text, value: Text, *, headers: Mapping[str, Text] | None = None,
        ttl_s: float | None = None, seen: int | None = None, level: WriteLevel | None = None,
    ) -> Position:  # fmt: skip
        """Write one row and wait for the acknowledgement; returns its position.

        `headers`: the writer's own. `ttl_s`: seconds after which the row is gone again, in a table whose rows expire.
        `seen`: the version of the row that this value was made of, -1 where there was none, in a table that keeps
        siblings: newer values than that stay beside this one; without it the value replaces all (docs/siblings.md).
        `level`: as of `Store.put`.

        Raises BadKey, ValueTooLarge, NoSuchTable, NotExpiring, NoSiblings, Overloaded, WriteFailed, LogUnreachable:
        then it is not written; InvalidWrite: the row refused it; Unknown: perhaps it is written.
        """
        own = [*seen_header(seen), *ttl_header(ttl_s)]
        return await self._write_at(level, table, key, to_bytes(value), headers, own, seen)

    async def delete(
        self, table: str, key: Text, *, headers: Mapping[str, Text] | None = None, seen: int | None = None,
        level: WriteLevel | None = None,
    ) -> Position:  # fmt: skip
        """Delete one row and wait for the acknowledgement; raises like `put`.

        `seen`: values newer than that stay, as of `put`. `level` as of `put`.
        """
        return await self._write_at(level, table, key, None, headers, seen_header(seen), seen)

    async def put_many(
        self, table: str, pairs: Mapping[Text, Text | None] | Iterable[Pair], *, level: WriteLevel | None = None
    ) -> Position:  # fmt: skip
        """Write pairs (key, value), or the items of a mapping; a value None deletes.

        Returns when all are acknowledged, with the position that covers them. Order per key is the order given. `pairs`
        is consumed on another thread. `level` as of `put`.

        Raises BatchFailed, BatchUnknown (both say which), and what `put` raises. A pair that cannot be written is found
        before anything is written when `pairs` is a list, a tuple or a mapping, or an iterator of up to 20,000 pairs;
        of a longer iterator the pairs before it may be written by then: a note of the error says how many.
        """
        return await asyncio.to_thread(partial(self._store.put_many, table, pairs, level=level))

    def pipeline(self, table: str, *, level: WriteLevel | None = None) -> PipelineOpening:
        """Write without waiting for each: `async with store.pipeline(table) as pipe`; see `AsyncPipeline`.

        `level`: as of `Store.pipeline`.
        """
        self._store.check_level(level)
        self._store.check_open()
        return PipelineOpening(partial(self.open_pipeline, check_table(table), level, waits=True))

    async def get(
        self,
        table: str,
        key: Text,
        *,
        after: Position | str | None = None,
        as_of: PointInTime = None,
        consistency: Level | None = None,
        max_lag_ms: int | None = None,
        deadline_ms: int = DEADLINE_MS,
    ) -> Row | None:
        """Read a row, or None.

        With `after` (a position or token) at least that has been seen; with `as_of` (those, or a time) exactly that.
        `consistency`: "latest" and "linearizable" hold all that was acknowledged before, "bounded" all that was
        `max_lag_ms` before (docs/consistency.md).

        Raises ConsistencyTimeout, ServerUnreachable, NoSuchTable, Stopped, ServerError; NotRetained when that past is
        not kept.
        """
        try:
            return await self._reads().get(
                table, key, after=when(after, as_of, consistency, max_lag_ms), deadline_ms=deadline_ms
            )
        except EpochChanged:
            self._forget(table)
            raise

    async def get_many(
        self, table: str, keys: Sequence[Text], *, after: Position | str | None = None, as_of: PointInTime = None,
        consistency: Level | None = None, max_lag_ms: int | None = None, deadline_ms: int = DEADLINE_MS,
    ) -> list[Row | None]:  # fmt: skip
        """Rows in the order of `keys`, None where there is none.

        Raises like `get`. The deadline is for each 1,000 keys.
        """
        try:
            return await self._reads().get_many(
                table, keys, after=when(after, as_of, consistency, max_lag_ms), deadline_ms=deadline_ms
            )
        except EpochChanged:
            self._forget(table)
            raise

    def scan(
        self,
        table: str,
        *,
        prefix: Text | None = None,
        start: Text | None = None,
        end: Text | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
        after: Position | str | None = None,
        as_of: PointInTime = None,
        consistency: Level | None = None,
        max_lag_ms: int | None = None,
        deadline_ms: int = DEADLINE_MS,
    ) -> AsyncIterator[Row]:
        """Rows in key order, page by page as they are taken, with `async for`.

        `prefix`, or `start` and `end` (exclusive), bound the keys; `limit`: rows at most; `reverse`: keys fall;
        `keys_only`: values are empty; the deadline is for each page. While a page is taken the next one is asked for,
        at once with a `limit`, else from the second one on; what is not begun within its deadline, and a second, is
        asked for again. A level counts from when a page is asked for. Raises like `get`.
        """
        check_table(table)
        pages = ScanPages(prefix=prefix, start=start, end=end, limit=limit, reverse=reverse, keys_only=keys_only)
        return self._reads().scan(
            table, pages, after=when(after, as_of, consistency, max_lag_ms), deadline_ms=deadline_ms
        )

    async def _wide_row(
        self, table: str, key: Text, cells: "CellSelection", bound: After, deadline_ms: int
    ) -> "WideRow | None":
        try:
            return await self._reads().get_wide(table, key, cells, after=bound, deadline_ms=deadline_ms)
        except EpochChanged:
            self._forget(table)
            raise

    async def _wide_rows(
        self, table: str, keys: Sequence[Text], cells: "CellSelection", bound: After, deadline_ms: int
    ) -> "list[WideRow | None]":
        try:
            return await self._reads().get_many_wide(table, keys, cells, after=bound, deadline_ms=deadline_ms)
        except EpochChanged:
            self._forget(table)
            raise

    def _wide_scan(
        self, table: str, rows: ScanBounds, cells: "CellSelection", bound: After, deadline_ms: int
    ) -> "AsyncIterator[WideRow]":
        pages = ScanPages(**rows._asdict(), cells=cells)
        return self._reads().scan(table, pages, after=bound, deadline_ms=deadline_ms)

    async def history(
        self, table: str, key: Text, *, since: PointInTime = None, until: PointInTime = None, limit: int | None = None,
        oldest_first: bool = False, values: bool = True, archive: bool = True, storage: str | None = None,
    ) -> "AsyncKeyHistory":  # fmt: skip
        """Every mutation of a key that log and archive still hold, with `async for`; see `Store.history`."""
        from logstore.client.history.async_history import AsyncKeyHistory  # noqa: PLC0415 - only who uses it

        self._here()
        inner = await asyncio.to_thread(
            self._store.history, table, key, since=since, until=until, limit=limit, oldest_first=oldest_first,
            values=values, archive=archive, storage=storage,
        )  # fmt: skip
        return AsyncKeyHistory(inner)

    def changes(
        self, table: str, *, since: Position | str = "now", prefix: Text | None = None, follow: bool = True,
        patience_s: float = 60.0, from_archive: bool = False, storage: str | None = None, before: bool = False,
    ) -> "AsyncRowChanges":  # fmt: skip
        """Changes of a table's rows, with `async for`, as `Store.changes`; "now" is when the first one is asked for."""
        from logstore.client.changes.changes import AsyncRowChanges, PollPoint, check_from_archive  # noqa: PLC0415 - only who uses it

        check_from_archive(from_archive, storage)
        point, reads = PollPoint(table, since, prefix, patience_s, follow=follow, before=before), self._reads()
        archived = self._store.archived_changes(point.table, storage) if from_archive else None
        return AsyncRowChanges(reads, point, archived)

    async def outcome_of(
        self, table: str, key: Text, id: bytes | str | Position, *, after: Position | str | None = None,  # noqa: A002 - as the header is called
        consistency: Level | None = "latest", max_lag_ms: int | None = None, deadline_ms: int = DEADLINE_MS,
    ) -> Outcome | None:  # fmt: skip
        """Find the outcome of a write by its id (16 bytes, or in hex) or its position, as `Store.outcome_of`."""
        name, key_bytes = read_name(id), check_key(to_bytes(key))
        bound = when(named_after(after, name), None, consistency, max_lag_ms)
        answer = await self._reads().about_row(
            table, key_bytes, page_of(key_bytes, name), after=bound, deadline_ms=deadline_ms
        )  # fmt: skip
        return outcome_of_answer(answer, name)

    async def decide(self, table: str, record: ConditionalRecord) -> Outcome:
        """Have the record in the log, and its outcome; see `conditional.delivery`."""
        self._reads()  # who cannot hear of outcomes writes nothing
        steps = delivery(record, self._store.delivery_timeout_s)
        return await deliver_async(steps, partial(self._append, table, record), partial(self._learn, table, record))

    def session(self, token: Position | str | None = None) -> "AsyncSession":
        """A session, whose reads see what it wrote and read before, from the `token` of an earlier one on."""
        from logstore.client.session.async_session import AsyncSession  # noqa: PLC0415 - only who uses it

        self._store.check_open()
        return AsyncSession(self, token)

    def table(self, name: str, codec: "Codec[T]") -> "AsyncTypedTable[T]":
        """One table with values of the program's own types (`codec=logstore.codecs.json`); see `AsyncTypedTable`."""
        from logstore.client.typed.async_table import AsyncTypedTable  # noqa: PLC0415 - only who uses it

        self._store.check_open()
        return AsyncTypedTable(self, name, codec)

    def __repr__(self) -> str:
        return f"Async{self._store!r}"

    async def __aenter__(self) -> Self:
        self._here()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _append(self, table: str, record: ConditionalRecord, timeout_s: float) -> Position:
        """One conditional write, acknowledged, as `Store._append`."""
        known = (await self._singles(table)).table
        try:
            record.check_takes(known)
        except UsageError:
            self._pipelines.pop(table, None)
            await asyncio.to_thread(self._store.check_takes, table, record, known)
        return await self._write(table, lambda pipeline: pipeline.queue(record), timeout_s)

    async def _learn(
        self, table: str, record: ConditionalRecord, position: Position, deadline_ms: int
    ) -> Outcome | None:  # fmt: skip
        desk, place = self._store.desk, place_of(table, position)
        with desk.lead(place) as leads:
            if leads:
                answer = await self._reads().about_row(
                    table, record.key, at_position(position), after=position, deadline_ms=deadline_ms
                )  # fmt: skip
                return outcome_of_answer(answer, record.id)
        return await self._joined(desk, place, record, position, deadline_ms)

    async def _joined(
        self, desk: OutcomeDesk, place: AskedPlace, record: ConditionalRecord, position: Position, deadline_ms: int
    ) -> Outcome | None:
        """The outcome, which somebody else asks for."""
        loop = self._here()
        found: list[Answer] = []
        arrived: asyncio.Future[None] = loop.create_future()
        wakeups = self._wakeups = self._wakeups or Wakeups(loop)

        def tell(answer: Answer) -> None:
            found.append(answer)
            wakeups.tell(arrived)

        desk.want(AskedWrite(place, position.offset, record, monotonic() + deadline_ms / 1000, tell))
        try:
            await asyncio.wait_for(arrived, deadline_ms / 1000 + GRACE_S)
        except TimeoutError as error:
            raise late(position) from error
        return outcome_or_error(found[0])
