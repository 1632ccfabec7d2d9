"""Log writer: the producer of a reader, used on its event loop: records in, positions out.

    1 open     the producer is made with the first write, beside the event loop; until Kafka answers nothing is written
    2 prove    the table's topic is the one that its definition names (`log.write.topic_proof`)
    3 queue    idempotent, acks=all, to the partition of the row; a full queue refuses, and nothing waits for room. (The
               writer of the level `one` has acks=1, as the client's.)
    4 await    the acknowledgement, until the deadline. A write that is not acknowledged then is unknown, not undone:
               it stays counted (`writes_in_flight`) until the producer has told what became of it

The producer tells that on a thread of its own, which wakes the loop once for all that is done meanwhile.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from functools import partial
from time import monotonic
from typing import Any, Literal

from logstore.log import topics
from logstore.log.kafka import clients
from logstore.log.write.delivery import delivery_error, unproved
from logstore.log.write.producer import Producer
from logstore.log.write.topic_proof import TopicProof
from logstore.model.errors import LogStoreError, StillPending, Unknown, WriteFailed
from logstore.model.position import Position
from logstore.model.table import Table
from logstore.process import logs
from logstore.serve.settings import MAX_DEADLINE_MS, MAX_WRITES_BYTES, MAX_WRITES_RECORDS
from logstore.serve.wire.problems import Problem
from logstore.serve.writes.row_record import RowRecord
from logstore.serve.writes.writes_in_flight import WritesInFlight

_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.02, 0.5  # before a write with an id is sent again
_LEAST_S = 0.05

log = logs.get(__name__)


class Delivery:
    """A record on its way: the callback of librdkafka, and what became of it once that was called."""

    __slots__ = ("_epoch", "_found", "_writer", "arrived", "partition", "size_bytes")

    def __init__(self, writer: "LogWriter", epoch: str, size_bytes: int) -> None:
        self._writer, self._epoch, self.size_bytes = writer, epoch, size_bytes
        self.arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._found: Position | LogStoreError | None = None

    def __call__(self, error: Any, message: Any) -> None:
        """Take the report, on the producer's thread."""
        if error is None and (offset := message.offset()) is not None:
            self._found = Position.of_write(self._epoch, message.partition(), offset)
        else:
            self._found = unproved() if error is None else self._writer.error_of(error, message.topic())
        self._writer.tell(self)

    @property
    def found(self) -> Position | LogStoreError | None:
        """Position of the acknowledged record, or the error of one that is not; None: it is on its way."""
        return self._found

    def position(self) -> Position:
        """The position. Raises the error; StillPending."""
        if isinstance(self._found, Position):
            return self._found
        raise self._found or StillPending("no acknowledgement came by the deadline; the write may still reach the log")


class LogWriter:
    """Writer of one reader. `counts`: records by what became of them, for the metrics."""

    def __init__(self, bootstrap: str, flight: WritesInFlight, acks: Literal["all", "1"] = "all") -> None:
        self._bootstrap, self._flight, self._acks = bootstrap, flight, acks
        self._producer: Producer | None = None
        self._opening: asyncio.Task[Producer] | None = None
        self._reported = deque[Delivery]()
        self._called = False  # the loop was called and has not begun to look
        self._proof = TopicProof(self._topic_id)
        self._proving = asyncio.Lock()
        self._proved: set[str] = set()  # epochs of which a write has been proved possible
        self.counts = {"acknowledged": 0, "failed": 0, "unknown": 0}

    async def begin(self, table: Table, deadline: float) -> Mapping[int, int]:
        """Steps 1 and 2; returns what is acknowledged by now. Raises Problem, LogStoreError: nothing is written."""
        self.loop = asyncio.get_running_loop()
        if self._producer is None:
            self._producer = await self._open(deadline)
        if table.epoch not in self._proved:
            await asyncio.to_thread(self._proof.check, table, max(deadline - self.loop.time(), _LEAST_S))
            self._proved.add(table.epoch)
        return self._proof.ends(table.epoch)

    def queue(self, table: Table, record: RowRecord) -> Delivery:
        """Step 3. Requires: `begin`. Raises Problem, Overloaded, WriteFailed: the record is not in the log."""
        assert self._producer is not None, "begun"
        self._flight.enter(1, record.size_bytes)
        delivery = Delivery(self, table.epoch, record.size_bytes)
        try:
            self._producer.send(
                table.topic, record.key, record.value, delivery, record.partition(table), record.headers(),
                patience_s=0.0,
            )  # fmt: skip
        except BaseException:
            self._flight.leave(1, record.size_bytes)
            raise
        return delivery

    async def settled(
        self, table: Table, record: RowRecord, delivery: Delivery, before: Mapping[int, int], deadline: float
    ) -> Position:
        """Step 4. Raises WriteFailed, Unknown, StillPending."""
        position = await self._acknowledged(table, record, delivery, deadline)
        await self._prove(table, position, before, deadline)
        return position

    async def _acknowledged(self, table: Table, record: RowRecord, delivery: Delivery, deadline: float) -> Position:
        """The position. A record with an id whose acknowledgement is lost is sent again: both of them are one write."""
        pause, lost = _FIRST_PAUSE_S, None
        while True:
            try:
                await asyncio.wait((delivery.arrived,), timeout=max(deadline - self.loop.time(), 0.0))
                return delivery.position()
            except Unknown as error:
                lost = error
            except WriteFailed:
                if lost is None:
                    raise
            if record.id is None or self.loop.time() + pause >= deadline:
                raise lost
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE_S)
            try:
                delivery = self.queue(table, record)
            except (Problem, LogStoreError) as error:
                raise lost from error

    def error_of(self, error: Any, topic: str) -> LogStoreError:
        """The typed error of a failed delivery."""
        assert self._producer is not None, "it has delivered"
        return delivery_error(error, topic, self._producer.access)

    def tell(self, delivery: Delivery) -> None:
        """Wake the loop for what is done. Called on the producer's thread."""
        self._reported.append(delivery)  # before it is looked whether the loop was called: it may be about to end
        if not self._called and not self.loop.is_closed():
            self._called = True
            self.loop.call_soon_threadsafe(self._drain)

    async def close(self, timeout_s: float) -> None:
        """Flush, and let go. What has no acknowledgement by then is in the log, or is not."""
        if self._opening is None:
            return
        await asyncio.wait((self._opening,), timeout=timeout_s)
        if not self._opening.done() or self._opening.exception() is not None:
            return
        try:
            await asyncio.to_thread(self._opening.result().close, timeout_s)
        except Unknown as error:
            log.warning("the reader stops with writes on their way", cause=str(error))

    def _drain(self) -> None:
        self._called = False  # what comes from here on calls again
        while self._reported:
            delivery = self._reported.popleft()
            self._flight.leave(1, delivery.size_bytes)
            self.counts[_word(delivery.found)] += 1
            if not delivery.arrived.done():
                delivery.arrived.set_result(None)

    async def _open(self, deadline: float) -> Producer:
        """The producer, once Kafka answers. Raises Problem at the deadline, and what a producer raises."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(asyncio.to_thread(self._connect))
            self._opening.add_done_callback(_retrieve)
        await asyncio.wait((self._opening,), timeout=max(deadline - self.loop.time(), 0.0))
        if not self._opening.done():
            raise Problem("log-unreachable", "Kafka has not answered by the deadline; nothing was written")
        return self._opening.result()

    def _connect(self) -> Producer:
        return Producer(
            self._bootstrap, acks=self._acks, on_full="error", queue_records=MAX_WRITES_RECORDS,
            queue_bytes=2 * MAX_WRITES_BYTES, delivery_timeout_s=MAX_DEADLINE_MS / 1000,
        )  # fmt: skip

    def _topic_id(self, topic: str, timeout_s: float) -> str | None:
        return topics.epoch_to_write(clients.admin(self._bootstrap), topic, timeout_s)

    async def _prove(self, table: Table, position: Position, before: Mapping[int, int], deadline: float) -> None:
        """Raise Unknown where the acknowledgement may be another log's."""
        if not self._proof.is_due(table.epoch, position, before):
            return
        doubtful = any(following <= before.get(where[1], 0) for where, following in position.pieces.items())
        async with self._proving:  # one asks for all that became due meanwhile
            if doubtful or self._proof.is_due(table.epoch):
                end = monotonic() + deadline - self.loop.time()
                try:
                    await asyncio.to_thread(partial(self._proof.prove, table, end))
                except Unknown:
                    self._proved.discard(table.epoch)
                    raise


def _word(found: Position | LogStoreError | None) -> str:
    if isinstance(found, Position):
        return "acknowledged"
    return "unknown" if isinstance(found, Unknown) else "failed"


def _retrieve(task: "asyncio.Task[Producer]") -> None:
    """Take the error of a task that nobody may be waiting for any more; who waits is told it all the same."""
    if not task.cancelled():
        task.exception()
