"""Single writes: each is acknowledged before its caller goes on, by the log that its table has by then.

    1 aim      at the log that the table is known to have
    2 send     and wait for the acknowledgement
    3 prove    that the log which acknowledged is the table's own
    4 again    once, where that log refuses and the table has another one by now
    5 reach    where the level asks for it: wait until a reader has applied it

`async_single_writes` takes the same steps in an event loop.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from logstore.client.checks import Pair, Text, check_seen, check_table, check_value
from logstore.client.connections import ClientConnections
from logstore.client.lazily import Lazily
from logstore.client.tables import renewing
from logstore.client.write.level import (
    WriteLevel,
    apply_ms,
    awaits_outcome,
    check_write_level,
    raising_as_put,
    waiting_for,
)  # fmt: skip
from logstore.model.errors import EpochChanged, InvalidWrite, LogStoreError, NotYet, WriteFailed
from logstore.model.key import check_key, to_bytes
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.client.write.batch import WriteBatch
    from logstore.client.write.pipeline import Pipeline, Written
    from logstore.log.write.producer import Producer
    from logstore.model.table import Table


class SingleWrites(ClientConnections):
    """Writes of a client that wait for their acknowledgement."""

    def _put_many(
        self, table: str, pairs: "Mapping[Text, Text | None] | Iterable[Pair]", producer: "Lazily[Producer]"
    ) -> Position:  # fmt: skip
        with renewing(partial(self.forget, table)):
            self.check_open()
            check_table(table)
            batch = self._batch(self.tables.get(table), producer)
            before = self.acknowledged(batch.epoch)
            try:
                return self.proved(batch.table, batch.run(pairs), before)
            except WriteFailed as error:
                if not batch.unwritten():
                    raise
                moved = self.moved(table, batch.epoch, error)
            return self._batch(moved, producer).run(batch.over_again(pairs))

    def _put_many_decided(
        self, table: str, pairs: "Mapping[Text, Text | None] | Iterable[Pair]", pipeline: "Pipeline"
    ) -> Position:  # fmt: skip
        """Pairs whose puts a row may refuse. `pipeline`: of this call alone."""
        from logstore.client.write.decided_batch import DecidedBatch  # noqa: PLC0415 - only who writes so

        with renewing(partial(self.forget, table)):
            before = self.acknowledged(pipeline.epoch)
            return self.proved(pipeline.table, DecidedBatch(pipeline).run(pairs), before)

    def _singles(self, table: str, level: WriteLevel | None = None) -> "Pipeline":
        """The pipeline of single writes to a table: their failures are raised by each `result`, never collected."""
        self.check_open()
        known = self._singles_of_leaders if level == "one" else self._pipelines
        pipeline = known.get(check_table(table))
        if pipeline is None:
            from logstore.client.write.pipeline import Pipeline  # noqa: PLC0415 - loads librdkafka

            pipeline = known[table] = Pipeline(
                self.producer_at(level).get(), self.tables.get(table), desk=lambda: self.desk
            )
        return pipeline

    def check_level(self, level: WriteLevel | None) -> None:
        """Raise UsageError for what is no level, or one that could not be waited for."""
        check_write_level(level)
        if level == "applied":
            self.need_url()

    def _write_at(
        self, level: WriteLevel | None, table: str, key: Text, value: bytes | None,
        headers: Mapping[str, Text] | None, own: Sequence[tuple[str, bytes]], seen: int | None,
    ) -> Position:  # fmt: skip
        """One put, or delete (None), acknowledged, and applied where that is wanted."""
        self.check_level(level)
        raw, decided = check_key(to_bytes(key)), awaits_outcome(level)
        bare = value if not own and headers is None else None

        def queue(pipeline: "Pipeline") -> "Written":
            if bare is not None and (decided or not pipeline.table.wide):
                return pipeline.put(raw, bare)  # it says the same, and is the short way to the queue
            return pipeline.write(raw, check_value(value, pipeline.limit), headers, own, decided=decided)

        with raising_as_put(level, seen):
            position = self._write(table, queue, level=level)
        check_seen(seen, position)
        return self._reached(level, table, position)

    def _reached(self, level: WriteLevel | None, table: str, position: Position) -> Position:
        """The position, once it has been applied where `level` says so. Raises NotApplied."""
        if level == "applied" and position:
            with waiting_for(position):
                self.reader.reach(table, position, apply_ms(self.delivery_timeout_s))
        return position

    def _write(
        self, table: str, queue: "Callable[[Pipeline], Written]", timeout_s: float | None = None,
        level: WriteLevel | None = None,
    ) -> Position:  # fmt: skip
        """One write, acknowledged; to the log that the table has by now, if the one that was known refuses it."""
        with renewing(partial(self.forget, table)):
            pipeline = self._singles(table, level)
            before = self.acknowledged(pipeline.epoch)
            try:
                return self.proved(pipeline.table, queue(pipeline).result(timeout_s), before)
            except InvalidWrite:  # by the table itself
                raise
            except WriteFailed as error:
                self.moved(table, pipeline.epoch, error)
            return queue(self._singles(table, level)).result(timeout_s)

    def moved(self, table: str, epoch: str, error: LogStoreError) -> "Table":
        """The table as it is now. Raises `error` when it still has the log of that epoch, NoSuchTable."""
        try:
            found = self.ask_again(table)
        except (NotYet, EpochChanged):
            raise error from None
        if found.epoch == epoch:
            raise error
        return found

    def acknowledged(self, epoch: str) -> Mapping[int, int] | None:
        """Ends of what this client knows to be acknowledged, by partition, for `proved` of a write that begins."""
        proof = self.tables.proof
        return None if proof is None else proof.ends(epoch)

    def proved(self, table: "Table", position: Position, before: Mapping[int, int] | None) -> Position:
        """The position of a write that was acknowledged by the table's own log. Raises Unknown."""
        proof = self.tables.proof
        if proof is not None and proof.is_due(table.epoch, position, before):
            proof.prove(table)
        return position

    def _batch(self, table: "Table", producer: "Lazily[Producer]") -> "WriteBatch":
        from logstore.client.write.batch import WriteBatch  # noqa: PLC0415 - loads librdkafka

        return WriteBatch(producer.get(), table)
