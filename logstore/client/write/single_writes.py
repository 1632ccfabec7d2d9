"""Single writes: each is acknowledged before its caller goes on, by the log that its table has by then.

    1 aim      at the log that the table is known to have
    2 send     and wait for the acknowledgement
    3 prove    that the log which acknowledged is the table's own
    4 again    once, where that log refuses and the table has another one by now
    5 reach    where the level asks for it: wait until a reader has applied it

`async_single_writes` takes the same steps in an event loop.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from logstore.client.checks import Pair, Text, check_table
from logstore.client.connections import ClientConnections
from logstore.client.lazily import Lazily
from logstore.client.tables import renewing
from logstore.client.write.level import WriteLevel, apply_ms, check_write_level, waiting_for
from logstore.model.errors import EpochChanged, LogStoreError, NotYet, WriteFailed
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.client.write.batch import WriteBatch
    from logstore.client.write.pending import Pending
    from logstore.client.write.pipeline import Pipeline
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

    def _singles(self, table: str, level: WriteLevel = "all") -> "Pipeline":
        """The pipeline of single writes to a table: their failures are raised by each `result`, never collected."""
        self.check_open()
        known = self._singles_of_leaders if level == "one" else self._pipelines
        pipeline = known.get(check_table(table))
        if pipeline is None:
            from logstore.client.write.pipeline import Pipeline  # noqa: PLC0415 - loads librdkafka

            pipeline = known[table] = Pipeline(self.producer_at(level).get(), self.tables.get(table))
        return pipeline

    def check_level(self, level: WriteLevel) -> None:
        """Raise UsageError for what is no level, or one that could not be waited for."""
        check_write_level(level)
        if level == "applied":
            self.need_url()

    def _write_at(self, level: WriteLevel, table: str, queue: "Callable[[Pipeline], Pending]") -> Position:
        """One write, acknowledged, and applied where that is wanted."""
        self.check_level(level)
        return self._reached(level, table, self._write(table, queue, level=level))

    def _reached(self, level: WriteLevel, table: str, position: Position) -> Position:
        """The position, once it has been applied where `level` says so. Raises NotApplied."""
        if level == "applied" and position:
            with waiting_for(position):
                self.reader.reach(table, position, apply_ms(self.delivery_timeout_s))
        return position

    def _write(
        self, table: str, queue: "Callable[[Pipeline], Pending]", timeout_s: float | None = None,
        level: WriteLevel = "all",
    ) -> Position:  # fmt: skip
        """One write, acknowledged; to the log that the table has by now, if the one that was known refuses it."""
        with renewing(partial(self.forget, table)):
            pipeline = self._singles(table, level)
            before = self.acknowledged(pipeline.epoch)
            try:
                return self.proved(pipeline.table, queue(pipeline).result(timeout_s), before)
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
