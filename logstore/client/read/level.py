"""Level of a read: how far its answer must have come, as the caller says it; judged before anything is sent."""

from typing import Literal, NamedTuple, get_args

from logstore.client.read.session_floor import SessionFloor
from logstore.model.errors import UsageError

Level = Literal["eventual", "session", "bounded", "latest", "linearizable"]
LEVELS: tuple[str, ...] = get_args(Level)
_MAX_LAG_MS = 2**53  # of the read API


class LevelBound(NamedTuple):
    """Read at a level for which the log is asked, and at least what `token` says where it is not empty.

    `floor`: that of the session that the read belongs to, if it does.
    """

    level: str
    max_lag_ms: int | None
    token: str
    floor: SessionFloor | None = None

    def headers(self) -> dict[str, str]:
        """Headers of a request."""
        lag = {} if self.max_lag_ms is None else {"LS-Max-Lag": str(self.max_lag_ms)}
        token = self.token if self.floor is None else self.floor.token
        return {"LS-Consistency": self.level, **lag, **({"LS-Token": token} if token else {})}


def level_of(consistency: str | None, max_lag_ms: int | None, *, after: bool, as_of: bool) -> str | None:
    """Level of a read, None where nothing is said of one; `after`, `as_of`: whether the read has such a bound.

    Raises UsageError for what is none, or contradicts itself.
    """
    if consistency is None and max_lag_ms is None:
        return None
    if consistency is not None and (not isinstance(consistency, str) or consistency not in LEVELS):
        raise UsageError(f"consistency is one of {', '.join(LEVELS)}, not {consistency!r:.80}")
    if max_lag_ms is not None and (type(max_lag_ms) is not int or not 0 <= max_lag_ms <= _MAX_LAG_MS):
        raise UsageError(f"max_lag_ms is a whole number from 0 to {_MAX_LAG_MS:,}, not {max_lag_ms!r:.80}")
    level = consistency or "bounded"
    if (level == "bounded") != (max_lag_ms is not None):
        raise UsageError("the level bounded needs max_lag_ms, how old its answer may be, and no other level takes it")
    if as_of:
        raise UsageError("a read has `as_of` (exactly that) or `consistency` (how fresh at least), not both")
    if (level, after) in (("session", False), ("eventual", True)):
        raise UsageError("the level session needs `after`, the position to see at least, and eventual waits for none")
    return level
