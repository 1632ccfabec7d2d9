"""PendingApplied: a put or delete of a pipeline at the level "applied", on its way to a reader's view.

The delivery report has its position waited for at the client's `OutcomeDesk`; many of one partition share a request.
"""

from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from logstore.client.conditional.outcome_desk import Answer, Ask, AskedPlace, OutcomeDesk
from logstore.client.write.level import apply_ms, waiting_for
from logstore.client.write.pending import PendingWrite, Shared
from logstore.log.write.delivery import delivery_error, unproved
from logstore.model.errors import LogStoreError, NotApplied
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.client.conditional.pending_outcome import Undecided
    from logstore.client.read.http import HttpReader


class PendingApplied(PendingWrite):
    """A write on its way to being applied: wait with `result()`."""

    __slots__ = ("_unapplied", "end_s", "offset", "place")

    _unapplied: "Undecided"
    end_s: float  # monotonic; from its acknowledgement on it is waited for until then
    offset: int
    place: AskedPlace

    @classmethod
    def begun(cls, unapplied: "Undecided", shared: Shared, partition: int) -> Self:
        """A write that is about to be queued. `unapplied`: those of its pipeline, this one among them."""
        pending = cls.of(shared)
        pending._unapplied, pending.place = unapplied, unapplied.place(shared.epoch, partition)
        return pending

    def __call__(self, error: Any, message: Any) -> None:
        """Take the delivery report (called by librdkafka's binding)."""
        producer = self._shared.producer
        if error is None and (offset := message.offset()) is not None:
            self.offset, self.end_s = offset, monotonic() + apply_ms(producer.delivery_timeout_s) / 1000
            self._unapplied.desk.want(self)
            return
        typed = unproved() if error is None else delivery_error(error, message.topic(), producer.access)
        self._shared.fail(typed)
        self._settle(typed)

    def resolve(self, outcome: Answer) -> None:
        """Take the word that it has been applied (None), or the error for which nobody can tell."""
        if not isinstance(outcome, LogStoreError):
            self._settle(self.offset)
            return
        try:
            with waiting_for(self._position()):
                raise outcome
        except NotApplied as error:
            self._shared.be_late(error, self._position())
            self._settle(error)

    def result(self, timeout: float | None = None) -> Position:
        """The position of the write, which a reader has applied; waits up to `timeout` seconds.

        Raises NotApplied (it is in the log, and nobody has told that it is applied), WriteFailed (certainly not in the
        log), Unknown (perhaps in the log), StillPending (not known yet: ask again).
        """
        if self._offset is None:
            self._wait(timeout)
        return self._applied()

    def _applied(self) -> Position:
        if isinstance(self._offset, LogStoreError):
            raise self._offset
        return self._position()

    def _position(self) -> Position:
        return Position.of_write(self.place.epoch, self.place.partition, self.offset)

    def _settle(self, became: int | LogStoreError) -> None:
        self._offset = became
        if self._shared.waiting:
            self._tell()
        self._unapplied.leave()


def reaching(reader: "HttpReader") -> Ask:
    """The way an `OutcomeDesk` waits for writes to be applied: with `reader`, blocking."""

    def ask(writes: Sequence[PendingApplied], end_s: float) -> Sequence[Answer]:
        place = writes[0].place
        last = Position.of_write(place.epoch, place.partition, max(write.offset for write in writes))
        reader.reach(place.table, last, max(1, round((end_s - monotonic()) * 1000)))
        return [None] * len(writes)

    return ask


def waiting_desk(reader: "HttpReader") -> OutcomeDesk:
    """A desk at which writes wait until they are applied."""
    return OutcomeDesk(reaching(reader))
