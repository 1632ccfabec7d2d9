"""Pipeline: writes to one table without waiting for each, and one place where their failures come together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from logstore.client.checks import (
    Text,
    check_headers,
    check_takes,
    check_timeout,
    check_value,
    seen_header,
    ttl_header,
)  # fmt: skip
from logstore.client.conditional.pipelined_writes import PipelinedWrites
from logstore.client.conditional.record import ConditionalRecord
from logstore.client.write.level import WriteLevel, awaits_outcome, check_decides
from logstore.client.write.pending import Pending, Shared
from logstore.client.write.pipeline_failures import raise_failures
from logstore.log.write.delivery import queue_full
from logstore.log.write.librdkafka import placing
from logstore.log.write.limits import GRACE_S
from logstore.log.write.producer import Producer
from logstore.log.write.topic_proof import TopicProof
from logstore.model.errors import LogStoreError, StillPending, Unknown, UsageError, WriteFailed
from logstore.model.key import MAX_KEY_BYTES, check_key, to_bytes
from logstore.model.table import Table

if TYPE_CHECKING:
    from logstore.client.conditional.outcome_desk import OutcomeDesk
    from logstore.client.conditional.pending_outcome import PendingDecision, PendingOutcome, Undecided
    from logstore.client.conditional.pending_put import PendingPut
    from logstore.client.write.pending_applied import PendingApplied

    Written = Pending | PendingPut | PendingApplied

D = TypeVar("D", bound="PendingDecision")
P = TypeVar("P", bound=Callable[[Any, Any], object])
_POLL_EVERY = 100  # writes; the reports that are due are taken while they are warm in the cache
_ASK_AGAIN_S = 1.0
ReservedHeaders = Sequence[tuple[str, bytes]]


class Pipeline(PipelinedWrites["PendingOutcome"]):
    """Use as a context manager.

    Leaving the block waits for every write and raises what failed; the pipeline takes nothing afterwards. One thread at
    a time.
    """

    def __init__(
        self,
        producer: Producer,
        table: Table,
        kind: type[Pending] = Pending,
        share: Callable[[str, Producer], Shared] = Shared,
        on_failure: Callable[[], object] | None = None,
        ask_again: Callable[[], Table] | None = None,
        proof: TopicProof | None = None,
        desk: "Callable[[], OutcomeDesk] | None" = None,
        outcome_kind: "type[PendingOutcome] | None" = None,
        put_kind: "type[PendingPut] | None" = None,
        level: WriteLevel | None = None,
        waiting: "Callable[[], OutcomeDesk] | None" = None,
        applied_kind: "type[PendingApplied] | None" = None,
    ) -> None:
        """`on_failure` is called when `flush` finds writes that failed.

        `ask_again` gives the definition as it is now: a write that is refused because the table was made again, or
        another one promoted over it, goes to the new log. `proof` tells `flush` whether the log that acknowledged is
        the table's. `desk` has outcomes of conditional writes told. `level`: of its puts and deletes; what is to be
        applied is waited for at `waiting`. Requires: the producer is one for that level.
        """
        self._desk, self._outcome_kind, self._put_kind = desk, outcome_kind, put_kind
        self._undecided: Undecided | None = None  # from the first conditional write on
        self._level, self._waiting, self._applied_kind = level, waiting, applied_kind
        self._unapplied: Undecided | None = None  # from the first write on that is to be applied
        self._producer, self._kind, self._on_failure, self._proof = producer, kind, on_failure, proof
        self._share, self._ask_again = share, ask_again
        self._left, self._count = _POLL_EVERY, 0
        self._ended, self._checked_s, self._reported = "", 0.0, 0
        self._produce: Callable[..., None] = producer.produce
        self._all_shared: list[Shared] = []
        self._aim(table)
        producer.attach(self)

    def put(
        self, key: Text, value: Text, *, headers: Mapping[str, Text] | None = None, ttl_s: float | None = None,
        seen: int | None = None,
    ) -> "Pending | PendingPut | PendingApplied":  # fmt: skip
        """Queue one write. `ttl_s`: seconds after which the row is gone again, in a table whose rows expire.

        `seen`: as of `Store.put`. With it, and in a wide table, the write is done when it has been applied, and fails
        with InvalidWrite where the row as it stands refuses it, unless the pipeline's level says less.

        Raises BadKey, ValueTooLarge, UsageError, NoSuchTable, Overloaded, WriteFailed: then it is not written.
        """
        if not (
            type(key) is bytes
            and 0 < len(key) <= MAX_KEY_BYTES
            and type(value) is bytes
            and len(value) <= self._quick_limit
            and headers is None
            and ttl_s is None
            and seen is None
        ):
            raw = _present(value, self._limit)
            return self.write(check_key(to_bytes(key)), raw, headers, [*seen_header(seen), *ttl_header(ttl_s)])
        pending = self._kind()  # spelled out: this is the path of a million writes a second
        pending._shared = self._shared
        pending._offset = None
        partition = self._place(None, key, len(key), self._partitions, None, None)
        try:
            self._produce(self._topic, value, key, partition, pending)
        except Exception:  # BufferError, KafkaException: `send` waits, or types it
            return self.queue(key, value, None)
        self._left = left = self._left - 1
        if left <= 0:
            self._breathe()
        return pending

    def check_own(self, own: ReservedHeaders) -> ReservedHeaders:
        """Reserved headers that the table takes. Raises NotExpiring, NoSiblings."""
        try:
            check_takes(self._table, own)
        except UsageError:
            if self._ask_again is None or not self.aim_at(self._ask_again()):  # it may be another table by now
                raise
            check_takes(self._table, own)
        return own

    def delete(
        self, key: Text, *, headers: Mapping[str, Text] | None = None, seen: int | None = None
    ) -> "Pending | PendingPut | PendingApplied":  # fmt: skip
        """Queue one delete; raises like `put`."""
        return self.write(check_key(to_bytes(key)), None, headers, seen_header(seen))

    def write(
        self, key: bytes, value: bytes | None, headers: Mapping[str, Text] | None, own: ReservedHeaders, *,
        decided: bool = True,
    ) -> "Written":  # fmt: skip
        """Queue a checked put or delete. `decided`: False for one that counts as written once it is acknowledged."""
        own = self.check_own(own)
        if decided and awaits_outcome(self._level) and (self._table.wide or own):
            from logstore.client.conditional.decided_put import decided_put, may_be_refused  # noqa: PLC0415 - as _deciding

            if may_be_refused(self._table, value, own):
                return self.decide_put(decided_put(key, value, headers, own))
        if self._level == "applied":
            return self.apply(key, value, headers, own)
        return self.queue(key, value, headers, own=own)

    def apply(
        self, key: bytes, value: bytes | None, headers: Mapping[str, Text] | None, own: ReservedHeaders,
        patience_s: float | None = None,
    ) -> "PendingApplied":  # fmt: skip
        """Queue a checked put or delete that is done once a reader has applied it."""
        if self._applied_kind is None:
            from logstore.client.write.pending_applied import PendingApplied  # noqa: PLC0415 - as _deciding

            self._applied_kind = PendingApplied
        self._check_open()
        unapplied, kind = self._to_apply(), self._applied_kind
        patience_s = self._producer.patience_s if patience_s is None else patience_s
        with _place_among(unapplied, patience_s, self._producer):
            return self.queue_as(
                lambda shared, _, partition: kind.begun(unapplied, shared, partition), key, value, headers, patience_s,
                own,
            )  # fmt: skip

    def decide_put(self, record: ConditionalRecord, patience_s: float | None = None) -> "PendingPut":
        """Queue a put or delete that the fold may refuse; raises as `decide`."""
        from logstore.client.conditional.pending_put import PendingPut  # noqa: PLC0415 - as _deciding

        return self._decide(record, self._put_kind or PendingPut, patience_s)

    def decide(self, record: ConditionalRecord, patience_s: float | None = None) -> "PendingOutcome":
        """Queue a record whose outcome is remembered, waiting for room among those without one, too.

        Raises as `put`, NotConditional, NotExpiring.
        """
        if self._outcome_kind is None:
            from logstore.client.conditional.pending_outcome import PendingOutcome  # noqa: PLC0415 - as _deciding

            self._outcome_kind = PendingOutcome
        return self._decide(record, self._outcome_kind, patience_s)

    def _decide(self, record: ConditionalRecord, kind: type[D], patience_s: float | None) -> D:
        self._check_open()
        check_decides(self._level)
        checked = self._check_takes(record)
        check_value(record.value, self._limit)
        undecided = self._deciding()
        patience_s = self._producer.patience_s if patience_s is None else patience_s
        end_s = monotonic() + self._producer.delivery_timeout_s

        def begin(shared: Shared, topic: str, partition: int) -> D:
            if self._table is not checked:  # in a plain one the record would stop the partition
                record.check_takes(self._table)
            pending = kind.begun(undecided, record, end_s, shared)
            pending.aim(topic, partition)
            return pending

        with _place_among(undecided, patience_s, self._producer):
            return self.queue_as(begin, record.key, record.value, record.headers, patience_s, record.own)

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait for every write so far, and for the outcomes of conditional ones.

        Raises the first failure (BatchFailed, BatchUnknown when there are several), StillPending.
        """
        check_timeout(timeout_s)
        end = None if timeout_s is None else monotonic() + timeout_s
        left = self._producer.flush(timeout_s)
        left += self._outcomes_left(end)
        if not left:  # or Kafka does not answer, and the next flush asks it
            self._prove(end)
        total = self.count
        self._raise(total)
        if left:
            raise StillPending(f"{left:,} writes are still on their way; wait longer (timeout_s), or ask each of them")

    @property
    def count(self) -> int:
        """Writes queued by this pipeline."""
        return self._count + _POLL_EVERY - self._left

    @property
    def limit(self) -> int:
        """Bytes of a value, at most."""
        return self._limit

    @property
    def epoch(self) -> str:
        """The log that is written to."""
        return self._table.epoch

    @property
    def table(self) -> Table:
        """The definition by which records are placed."""
        return self._table

    def end(self, why: str) -> None:
        """Take no more writes: each is refused with `why`."""
        self._ended, self._produce = self._ended or why, _refuse

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        except LogStoreError as failure:
            if error is None:
                raise
            error.add_note(f"besides, in the pipeline: {failure}")
        finally:
            self.end("the block of this pipeline has ended; open another one")

    def queue(
        self,
        key: bytes,
        value: bytes | None,
        headers: Mapping[str, Text] | None,
        patience_s: float | None = None,
        own: ReservedHeaders = (),
    ) -> Pending:
        """Queue a checked record (None deletes), waiting up to `patience_s` for room (default: as the Store says).

        `own`: reserved headers, besides those of the writer.
        """
        return self.queue_as(
            lambda shared, _topic, _partition: self._kind.of(shared), key, value, headers, patience_s, own
        )  # fmt: skip

    def queue_as(
        self,
        begin: Callable[[Shared, str, int], P],
        key: bytes,
        value: bytes | None,
        headers: Mapping[str, Text] | None,
        patience_s: float | None,
        own: ReservedHeaders,
    ) -> P:
        """Queue a checked record; `begin` makes what takes its delivery report, of its topic and partition."""
        self._check_open()
        try:
            return self._queue(begin, key, value, headers, patience_s, own)
        except WriteFailed:
            if self._ask_again is None or not self.aim_at(self._ask_again()):
                raise
        check_value(value, self._limit)
        return self._queue(begin, key, value, headers, patience_s, own)

    def aim_at(self, table: Table) -> bool:
        """Write to the table as it is now. False when it is the one that was known."""
        if table.epoch == self._table.epoch:
            return False
        self._aim(table)
        return True

    def _check_takes(self, record: ConditionalRecord) -> Table:
        """The table, which takes the record, as it is known or as it is by now. Raises NotConditional, NotExpiring."""
        try:
            record.check_takes(self._table)
        except UsageError:
            if self._ask_again is None or not self.aim_at(self._ask_again()):
                raise
            record.check_takes(self._table)
        return self._table

    def _deciding(self) -> "Undecided":
        """Writes of this pipeline without outcome."""
        if self._undecided is None:
            from logstore.client.conditional.pending_outcome import Undecided  # noqa: PLC0415 - who only puts does without

            assert self._desk is not None, "who decides has outcomes told"
            self._undecided = Undecided(self._table.name, self._desk())
        return self._undecided

    def _to_apply(self) -> "Undecided":
        """Writes of this pipeline that are to be applied."""
        if self._unapplied is None:
            from logstore.client.conditional.pending_outcome import Undecided  # noqa: PLC0415 - as _deciding

            assert self._waiting is not None, "who has writes applied has a desk that waits for them"
            self._unapplied = Undecided(self._table.name, self._waiting())
        return self._unapplied

    def _outcomes_left(self, end: float | None) -> int:
        """Writes by `end` without an outcome, or not applied; by default they have the delivery timeout."""
        waited = [some for some in (self._undecided, self._unapplied) if some is not None]
        if not waited:
            return 0
        end = monotonic() + self._producer.delivery_timeout_s + GRACE_S if end is None else end
        return sum(some.wait(end - monotonic()) for some in waited)

    def _queue(
        self,
        begin: Callable[[Shared, str, int], P],
        key: bytes,
        value: bytes | None,
        headers: Mapping[str, Text] | None,
        patience_s: float | None,
        own: ReservedHeaders,
    ) -> P:
        partition = self._place(None, key, len(key), self._partitions, None, None)
        pending = begin(self._shared, self._topic, partition)
        every = [*own, *(check_headers(headers) or ())]
        self._producer.send(self._topic, key, value, pending, partition, headers=every, patience_s=patience_s)
        self._produce = self._producer.produce  # of another connection, if the one before met a fatal error
        self._left -= 1
        if self._left <= 0:
            self._breathe()
        return pending

    def _aim(self, table: Table) -> None:
        self._table, self._shared = table, self._share(table.epoch, self._producer)
        self._all_shared.append(self._shared)
        self._topic, self._limit, self._partitions = table.topic, table.max_value_bytes, table.partitions
        self._place = placing(table.partitioning)
        quick = not table.wide and self._level != "applied"
        self._quick_limit = self._limit if quick else -1  # of values that go the short way

    def _breathe(self) -> None:
        self._count += _POLL_EVERY
        self._left = _POLL_EVERY
        self._producer.poll()
        shared = self._shared
        if self._ask_again is not None:
            self._prove()
        failures = shared.failed + shared.unknown
        if self._ask_again is not None and failures > self._reported and monotonic() - self._checked_s > _ASK_AGAIN_S:
            self._reported, self._checked_s = failures, monotonic()
            with suppress(LogStoreError):  # the write that brought us here is queued; a later one meets the same error
                self.aim_at(self._ask_again())

    def _prove(self, end: float | None = None) -> None:
        """Have `flush` raise when what was acknowledged may be in another log."""
        if self._proof is None or not self._proof.is_due(self._table.epoch):
            return
        try:
            self._proof.prove(self._table, end)
        except Unknown as error:
            self._shared.fail(error)

    def _check_open(self) -> None:
        if self._ended:
            raise UsageError(self._ended)

    def _raise(self, total: int) -> None:
        every, self._all_shared, self._reported = self._all_shared, [self._shared], 0
        raise_failures(total, every, self._on_failure)


@contextmanager
def _place_among(some: "Undecided", patience_s: float, producer: Producer) -> Iterator[None]:
    """Count a write in that the block queues; out again where it does not. Raises Overloaded for want of room."""
    if not some.enter(patience_s, producer.release):
        raise queue_full()
    try:
        yield
    except BaseException:
        some.leave()
        raise


def _present(value: Any, limit: int) -> bytes | None:
    """The bytes of a value that is one: `put` does not delete."""
    return check_value(to_bytes(value), limit)


def _refuse(*_: Any) -> None:
    """Stand-in for librdkafka in a pipeline that has ended; `queue` says why."""
    raise BufferError
