"""PendingOutcome: a conditional write of a pipeline, on its way to its outcome.

It goes the steps of `delivery` without a thread of its own: the delivery report has the outcome asked for at the
`OutcomeDesk`, whose threads tell it. Nearly every write needs one report and one answer, so the steps proper begin only
where one of the two is an error.
"""

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Self

from logstore.client.checks import check_headers
from logstore.client.conditional.delivery import Append, Learn, Rest, Steps, delivery
from logstore.client.conditional.outcome import Outcome
from logstore.client.conditional.outcome_desk import Answer, AskedPlace, OutcomeDesk
from logstore.client.conditional.record import ConditionalRecord
from logstore.client.write.pending import PendingWrite, Shared
from logstore.log.write.delivery import delivery_error, unproved
from logstore.model.errors import LogStoreError, StillPending
from logstore.model.position import Position

MOST_UNDECIDED = 20_000  # writes of one pipeline whose outcome is not known


class Undecided:
    """Conditional writes of one pipeline that have no outcome yet: so many at most."""

    def __init__(self, table: str, desk: OutcomeDesk, most: int = MOST_UNDECIDED) -> None:
        self.table, self.desk = table, desk
        self._most, self._count, self._changed = most, 0, threading.Condition()
        self._places: dict[tuple[str, int], AskedPlace] = {}

    def place(self, epoch: str, partition: int) -> AskedPlace:
        """The partition, as the desk knows it."""
        found = self._places.get((epoch, partition))
        if found is None:
            found = self._places[epoch, partition] = AskedPlace(self.table, epoch, partition)
        return found

    def enter(self, patience_s: float, release: Callable[[], object]) -> bool:
        """Count one more; False where there is no room for it in time. `release`: before it waits."""
        with self._changed:
            if self._count >= self._most:
                release()
                if not self._changed.wait_for(lambda: self._count <= self._most * 3 // 4, patience_s):
                    return False
            self._count += 1
            return True

    def leave(self) -> None:
        """Count one less."""
        with self._changed:
            self._count -= 1
            if self._count in (0, self._most * 3 // 4):
                self._changed.notify_all()

    def wait(self, timeout_s: float) -> int:
        """Wait until there is none; returns how many there still are."""
        with self._changed:
            self._changed.wait_for(lambda: not self._count, max(timeout_s, 0.0))
            return self._count


class PendingDecision(PendingWrite):
    """A write on its way to what the log decides of it."""

    __slots__ = ("_outcome", "_record", "_steps", "_topic", "_undecided", "end_s", "offset", "place")

    _outcome: Outcome
    _record: ConditionalRecord
    _steps: Steps | None  # begun at the first error
    _topic: str
    _undecided: Undecided
    end_s: float  # monotonic; by then it has its outcome, or none is known
    offset: int
    place: AskedPlace

    @classmethod
    def begun(cls, undecided: Undecided, record: ConditionalRecord, end_s: float, shared: Shared) -> Self:
        """A write that is about to be queued."""
        pending = cls.of(shared)
        pending._undecided, pending._record, pending.end_s, pending._steps = undecided, record, end_s, None
        return pending

    def aim(self, topic: str, partition: int) -> None:
        """Note where the record goes."""
        self._topic, self.place = topic, self._undecided.place(self._shared.epoch, partition)

    @property
    def key(self) -> bytes:
        """Key of the row."""
        return self._record.key

    @property
    def id(self) -> bytes:
        """The mutation id, for `outcome_of`."""
        return self._record.id

    def __call__(self, error: Any, message: Any) -> None:
        """Take the delivery report (called by librdkafka's binding)."""
        if error is None and (offset := message.offset()) is not None:
            self.offset = offset
            if self._steps is None:
                self._undecided.desk.want(self)
            else:
                self._go_on(self.position())
            return
        access = self._shared.producer.access
        self.failed(unproved() if error is None else delivery_error(error, message.topic(), access))

    def failed(self, error: LogStoreError) -> None:
        """Take the error of an attempt to append it."""
        self._begin_steps()
        self._go_on(error)

    def resolve(self, outcome: Answer) -> None:
        """Take the outcome, or the error for which it cannot be told."""
        if self._steps is None:
            if isinstance(outcome, Outcome):
                self.settle(outcome)
                return
            self._begin_steps().send(self.position())
        self._go_on(outcome)

    def position(self) -> Position:
        """The position of the record. Requires: it is acknowledged."""
        return Position.of_write(self.place.epoch, self.place.partition, self.offset)

    def _begin_steps(self) -> Steps:
        """The steps, begun: the first one is to append."""
        if self._steps is None:
            self._steps = delivery(self._record, self.end_s - monotonic())
            next(self._steps)
        return self._steps

    def _go_on(self, answer: object) -> None:
        """Do the step after the one that was answered so."""
        assert self._steps is not None, "they have begun"
        try:
            step = self._steps.send(answer)
        except StopIteration as end:
            self.settle(end.value)
        except LogStoreError as error:
            self.settle(error)
        else:
            self._do(step)

    def _do(self, step: Append | Learn | Rest) -> None:
        desk = self._undecided.desk
        if isinstance(step, Rest):
            desk.later(step.seconds, lambda: self._go_on(None))
        elif isinstance(step, Learn):
            desk.want(self)
        else:
            self._append(step.timeout_s)

    def _append(self, timeout_s: float) -> None:
        """Have the record in the log once more."""
        attempt, record = _Redelivery(self), self._record
        self._undecided.desk.later(timeout_s, attempt.give_up)
        try:
            self._shared.producer.send(
                self._topic, record.key, record.value, attempt, self.place.partition,
                headers=[*record.own, *(check_headers(record.headers) or ())], patience_s=0.0,
            )  # fmt: skip
        except LogStoreError as error:
            attempt.end(error)

    def settle(self, became: Outcome | LogStoreError) -> None:
        """Take what became of it; once."""
        shared = self._shared
        if isinstance(became, Outcome):
            self._outcome, self._offset = became, became.offset
        else:
            shared.fail(became)
            self._offset = became
        if shared.waiting:
            self._tell()
        self._undecided.leave()


class PendingOutcome(PendingDecision):
    """A conditional write on its way: wait for its outcome with `result()`."""

    __slots__ = ()

    def result(self, timeout: float | None = None) -> Outcome:
        """The outcome, waiting up to `timeout` seconds (default: the delivery timeout and some).

        Raises WriteFailed (certainly not in the log), Unknown, whose `id` tells by `outcome_of` what became of it,
        StillPending (not known yet: ask again).
        """
        if self._offset is None:
            self._wait(timeout)
        if isinstance(self._offset, LogStoreError):
            raise self._offset
        return self._outcome


class _Redelivery:
    """Delivery of a record once more, which ends once: with its report, with an error, or when it is given up."""

    def __init__(self, pending: PendingDecision) -> None:
        self._pending, self._lock, self._over = pending, threading.Lock(), False

    def __call__(self, error: Any, message: Any) -> None:
        if self._ends():
            self._pending(error, message)

    def give_up(self) -> None:
        """Wait for no report any more."""
        self.end(StillPending("no acknowledgement came"))

    def end(self, error: LogStoreError) -> None:
        """Go on with an error, unless it has ended."""
        if self._ends():
            self._pending.failed(error)

    def _ends(self) -> bool:
        with self._lock:
            over, self._over = self._over, True
        return not over
