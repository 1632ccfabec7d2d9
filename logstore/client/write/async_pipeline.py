"""AsyncPipeline: writes to one table without waiting for each, for asyncio; nothing here blocks the event loop."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

from logstore.client.checks import Text, check_value, seen_header, ttl_header
from logstore.client.conditional.decided_put import decided_put, may_be_refused
from logstore.client.conditional.outcome_desk import OutcomeDesk
from logstore.client.conditional.pipelined_writes import PipelinedWrites
from logstore.client.conditional.record import ConditionalRecord
from logstore.client.write.async_pending import (
    AsyncPending,
    AsyncPendingApplied,
    AsyncPendingOutcome,
    AsyncPendingPut,
    AsyncShared,
    AsyncWritten,
)
from logstore.client.write.level import WriteLevel, awaits_outcome
from logstore.client.write.pending import PendingWrite
from logstore.client.write.pipeline import Pipeline, ReservedHeaders
from logstore.client.write.wakeups import Wakeups
from logstore.log.write.producer import Producer
from logstore.log.write.topic_proof import TopicProof
from logstore.model.errors import LogStoreError, Overloaded, UsageError, WriteFailed
from logstore.model.key import check_key, to_bytes
from logstore.model.table import Table

P = TypeVar("P", bound=PendingWrite)
_NOT_ENTERED = (
    "a pipeline takes writes inside its block: `async with store.pipeline(table) as pipe: await pipe.put(...)`"
)


class AsyncPipeline(PipelinedWrites[Coroutine[Any, Any, AsyncPendingOutcome]]):
    """Writes to one table without waiting for each.

    Leaving the `async with` block waits for all and raises what failed.
    """

    def __init__(
        self,
        producer: Producer,
        table: Table,
        wakeups: Wakeups,
        on_failure: Callable[[], object] | None = None,
        ask_again: Callable[[], Table] | None = None,
        proof: TopicProof | None = None,
        desk: Callable[[], OutcomeDesk] | None = None,
        level: WriteLevel | None = None,
        waiting: Callable[[], OutcomeDesk] | None = None,
    ) -> None:
        """See `Pipeline`; `ask_again` is called on another thread."""
        self._producer, self._ask_again, self._level = producer, ask_again, level
        self._inner = Pipeline(
            producer, table, AsyncPending, lambda epoch, to: AsyncShared(epoch, to, wakeups), on_failure, proof=proof,
            desk=desk, outcome_kind=AsyncPendingOutcome, put_kind=AsyncPendingPut, level=level, waiting=waiting,
            applied_kind=AsyncPendingApplied,
        )  # fmt: skip

    async def put(
        self, key: Text, value: Text, *, headers: Mapping[str, Text] | None = None, ttl_s: float | None = None,
        seen: int | None = None,
    ) -> AsyncWritten:  # fmt: skip
        """Queue one write; waits only while the queue is full. Parameters as of `Pipeline.put`.

        Raises BadKey, ValueTooLarge, UsageError, NoSuchTable, Overloaded, WriteFailed: then it is not written.
        """
        own = [*seen_header(seen), *ttl_header(ttl_s)]
        return await self.write(check_key(to_bytes(key)), to_bytes(value), headers, own)

    async def delete(
        self, key: Text, *, headers: Mapping[str, Text] | None = None, seen: int | None = None
    ) -> AsyncWritten:  # fmt: skip
        """Queue one delete; waits and raises like `put`."""
        return await self.write(check_key(to_bytes(key)), None, headers, seen_header(seen))

    async def write(
        self, key: bytes, value: bytes | None, headers: Mapping[str, Text] | None, own: ReservedHeaders, *,
        decided: bool = True,
    ) -> AsyncWritten:  # fmt: skip
        """Queue a put or delete with a checked key, as `Pipeline.write`; waits and raises like `put`."""
        own = await self._own(own)
        if not (decided and awaits_outcome(self._level) and may_be_refused(self.table, value, own)):
            return await self._queue(key, value, headers, own)
        record = decided_put(key, value, headers, own)
        return await self._decided(record, lambda: self._inner.decide_put(record, patience_s=0.0), AsyncPendingPut)

    @property
    def epoch(self) -> str:
        """The log that is written to."""
        return self._inner.epoch

    @property
    def table(self) -> Table:
        """The definition by which records are placed."""
        return self._inner.table

    async def flush(self, timeout_s: float | None = None) -> None:
        """Wait for every write so far, and for the outcomes of conditional ones.

        Raises the first failure (BatchFailed, BatchUnknown when there are several), StillPending.
        """
        await asyncio.to_thread(self._inner.flush, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.flush()
        except LogStoreError as failure:
            if error is None:
                raise
            error.add_note(f"besides, in the pipeline: {failure}")
        finally:
            self._inner.end("the block of this pipeline has ended; open another one")

    async def queue(self, record: ConditionalRecord) -> AsyncPending:
        """Queue a record whose outcome is remembered; waits and raises like `put`. Raises NotConditional too."""
        record.check_takes(self.table)  # as it is by now: in a plain one the record would stop the partition
        pending = await self._queue(record.key, record.value, record.headers, record.own)
        assert isinstance(pending, AsyncPending), "a pipeline of single writes has no level"
        return pending

    async def _own(self, own: ReservedHeaders) -> ReservedHeaders:
        """Reserved headers that the table takes. Raises NotExpiring, NoSiblings."""
        try:
            return self._inner.check_own(own)
        except UsageError:
            if self._ask_again is None:
                raise
        self._inner.aim_at(await asyncio.to_thread(self._ask_again))  # it may be another table by now
        return self._inner.check_own(own)

    async def _queue(
        self, key: bytes, value: bytes | None, headers: Mapping[str, Text] | None, own: ReservedHeaders = ()
    ) -> AsyncPending | AsyncPendingApplied:
        try:
            return await self._queue_there(key, value, headers, own)
        except WriteFailed:
            if self._ask_again is None or not self._inner.aim_at(await asyncio.to_thread(self._ask_again)):
                raise
        return await self._queue_there(key, value, headers, own)

    async def decide(self, record: ConditionalRecord) -> AsyncPendingOutcome:
        """Queue a record whose outcome is remembered; waits while too many have none.

        Raises like `put`, NotConditional.
        """
        return await self._decided(record, lambda: self._inner.decide(record, patience_s=0.0), AsyncPendingOutcome)

    async def _decided(self, record: ConditionalRecord, queue: Callable[[], PendingWrite], kind: type[P]) -> P:
        try:
            record.check_takes(self.table)
        except UsageError:  # it may be another table by now
            if self._ask_again is None or not self._inner.aim_at(await asyncio.to_thread(self._ask_again)):
                raise
        try:
            return await self._with_room(queue, kind)
        except WriteFailed:
            if self._ask_again is None or not self._inner.aim_at(await asyncio.to_thread(self._ask_again)):
                raise
        return await self._with_room(queue, kind)

    async def _queue_there(
        self, key: bytes, value: bytes | None, headers: Mapping[str, Text] | None, own: ReservedHeaders
    ) -> AsyncPending | AsyncPendingApplied:
        check_value(value, self._inner.limit)
        if self._level == "applied":
            return await self._with_room(
                lambda: self._inner.apply(key, value, headers, own, patience_s=0.0), AsyncPendingApplied
            )
        return await self._with_room(
            lambda: self._inner.queue(key, value, headers, patience_s=0.0, own=own), AsyncPending
        )

    async def _with_room(self, queue: Callable[[], PendingWrite], kind: type[P]) -> P:
        """Queue a write, once there is room for it."""
        deadline = asyncio.get_running_loop().time() + self._producer.delivery_timeout_s
        while True:
            try:
                pending = queue()
                assert isinstance(pending, kind), "the kind this pipeline makes"
                return pending
            except Overloaded:
                if self._producer.on_full == "error" or asyncio.get_running_loop().time() >= deadline:
                    raise
            self._producer.release()
            await asyncio.sleep(0.001)  # bounded by the deadline; the queue drains on the producer's thread


class PipelineOpening:
    """An `AsyncPipeline` that is connected when its block is entered."""

    def __init__(self, open_pipeline: Callable[[], Awaitable[AsyncPipeline]]) -> None:
        self._open = open_pipeline
        self._pipeline: AsyncPipeline | None = None

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(AsyncPipeline, name):
            raise UsageError(_NOT_ENTERED)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __await__(self) -> NoReturn:
        raise UsageError(_NOT_ENTERED)

    def __enter__(self) -> NoReturn:
        raise UsageError(_NOT_ENTERED)

    def __exit__(self, *error: object) -> None:
        """Never reached: Python looks for it before it calls `__enter__`."""

    async def __aenter__(self) -> AsyncPipeline:
        self._pipeline = await self._open()
        return self._pipeline

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pipeline is None:
            raise UsageError("the block of this pipeline was never entered")
        await self._pipeline.__aexit__(kind, error, trace)
