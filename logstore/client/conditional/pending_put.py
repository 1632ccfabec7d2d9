"""PendingPut: a put or delete of a pipeline that the fold may refuse, on its way to being applied.

It is what a `Pending` is to its caller: its result is a position. Unlike a conditional write it is never sent twice, so
that the writes of a row keep the order of the calls.
"""

from logstore.client.conditional.decided_put import refusal_of
from logstore.client.conditional.delivery import unknown_write
from logstore.client.conditional.outcome import Outcome
from logstore.client.conditional.pending_outcome import PendingDecision
from logstore.model.errors import LogStoreError, Unknown
from logstore.model.position import Position


class PendingPut(PendingDecision):
    """A write on its way to being applied: wait with `result()`."""

    __slots__ = ()

    def result(self, timeout: float | None = None) -> Position:
        """The position of the write, which has been applied; waits up to `timeout` seconds (default: as `Pending`).

        Raises InvalidWrite (the row as it stands refuses it), WriteFailed (certainly not in the log), Unknown, whose
        `id` tells by `outcome_of` what became of it, StillPending (not known yet: ask again).
        """
        if self._offset is None:
            self._wait(timeout)
        return self._applied()

    def failed(self, error: LogStoreError) -> None:
        """Take the error of the attempt to append it, which is the only one."""
        self.settle(unknown_write(self._record, None, error) if isinstance(error, Unknown) else error)

    def settle(self, became: Outcome | LogStoreError) -> None:
        """Take what became of it: what the fold refused has failed."""
        refusal = refusal_of(became, self.key, self.position()) if isinstance(became, Outcome) else None
        super().settle(refusal or became)

    def _applied(self) -> Position:
        if isinstance(self._offset, LogStoreError):
            raise self._offset
        return self.position()
