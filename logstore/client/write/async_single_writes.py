"""Single writes for asyncio: the steps of `single_writes`, none of which blocks the event loop."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from logstore.client.checks import Text, check_seen, check_table
from logstore.client.loop_connections import LoopConnections
from logstore.client.tables import renewing
from logstore.client.write.async_pending import AsyncWritten, within
from logstore.client.write.async_pipeline import AsyncPipeline
from logstore.client.write.level import WriteLevel, apply_ms, awaits_outcome, raising_as_put, waiting_for
from logstore.client.write.pipeline import ReservedHeaders
from logstore.model.errors import InvalidWrite, WriteFailed
from logstore.model.key import check_key, to_bytes
from logstore.model.position import Position
from logstore.model.table import Table


class AsyncSingleWrites(LoopConnections):
    """Writes of a client for asyncio that wait for their acknowledgement."""

    async def _write_at(
        self, level: WriteLevel | None, table: str, key: Text, value: bytes | None,
        headers: Mapping[str, Text] | None, own: ReservedHeaders, seen: int | None,
    ) -> Position:  # fmt: skip
        """Write one record, acknowledged, and applied where that is wanted. Raises NotApplied."""
        self._store.check_level(level)
        raw, decided = check_key(to_bytes(key)), awaits_outcome(level)
        with raising_as_put(level, seen):
            position = await self._write(
                table, lambda pipeline: pipeline.write(raw, value, headers, own, decided=decided), level=level
            )
        check_seen(seen, position)
        if level == "applied":
            with waiting_for(position):
                await self._reads().reach(table, position, apply_ms(self._store.delivery_timeout_s))
        return position

    async def _write(
        self, table: str, queue: Callable[[AsyncPipeline], Awaitable[AsyncWritten]],
        timeout_s: float | None = None, level: WriteLevel | None = None,
    ) -> Position:  # fmt: skip
        """Write one record, as `SingleWrites._write` does."""
        with renewing(partial(self._forget, table)):
            pipeline = await self._singles(table, level)
            before = self._store.acknowledged(pipeline.epoch)
            try:
                return await self._proved(pipeline.table, await within(await queue(pipeline), timeout_s), before)
            except InvalidWrite:  # by the table itself
                raise
            except WriteFailed as error:
                self._forget(table)
                await asyncio.to_thread(self._store.moved, table, pipeline.epoch, error)
            return await within(await queue(await self._singles(table, level)), timeout_s)

    async def _proved(self, table: Table, position: Position, before: Mapping[int, int] | None) -> Position:
        proof = self._store.tables.proof
        if proof is not None and proof.is_due(table.epoch, position, before):
            await asyncio.to_thread(proof.prove, table)
        return position

    async def _singles(self, table: str, level: WriteLevel | None = None) -> AsyncPipeline:
        self._here()
        known = self._singles_of_leaders if level == "one" else self._pipelines
        pipeline = known.get(check_table(table))
        if pipeline is None:
            pipeline = known[table] = await self.open_pipeline(table, level)
        return pipeline
