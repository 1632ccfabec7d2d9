"""Budget: the time that a read may take."""

from time import monotonic
from typing import NamedTuple

from logstore.model.errors import UsageError

DEADLINE_MS = 2_000  # of a read; the read API has the same default, so it needs not be said
_MAX_DEADLINE_MS = 30_000
GRACE_S = 1.0  # for the way there and back, beyond the server's own deadline
_new = tuple.__new__  # of a NamedTuple, without a frame of its own


class Budget(NamedTuple):
    """Time that a read may take, from when it begins."""

    deadline_ms: int
    end: float  # monotonic seconds

    @classmethod
    def of(cls, deadline_ms: int) -> "Budget":
        """Deadline from now on; raises UsageError for one that the read API does not take."""
        if type(deadline_ms) is not int or not 1 <= deadline_ms <= _MAX_DEADLINE_MS:
            raise UsageError(f"deadline_ms is a whole number from 1 to {_MAX_DEADLINE_MS:,}, not {deadline_ms!r}")
        budget: Budget = _new(cls, (deadline_ms, monotonic() + deadline_ms / 1000))
        return budget

    @property
    def began(self) -> float:
        """Beginning of the read, monotonic seconds."""
        return self.end - self.deadline_ms / 1000

    @property
    def last_answer(self) -> float:
        """Time at which an answer of the last moment has come, monotonic seconds."""
        return self.end + GRACE_S

    def left_ms(self, now: float) -> int:
        """Milliseconds that are left, at least one."""
        return max(1, round((self.end - now) * 1000))

    def said_in(self, headers: dict[str, str]) -> dict[str, str]:
        """The headers of a request, with the deadline where the server does not take it for granted."""
        if self.deadline_ms != DEADLINE_MS:
            headers["LS-Deadline"] = str(self.deadline_ms)
        return headers
