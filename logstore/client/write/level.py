"""Write level: what an acknowledged write stands for, as its caller says it; judged before anything is written.

Where the caller says nothing it is "all", and "applied" for the writes that the fold may refuse (`decided_put`).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, get_args

from logstore.client.checks import unseen_version
from logstore.model.errors import InvalidWrite, LogStoreError, NotApplied, Unknown, UsageError
from logstore.model.position import Position

WriteLevel = Literal["all", "one", "applied"]
WRITE_LEVELS: tuple[str, ...] = get_args(WriteLevel)
MAX_APPLY_MS = 30_000  # of one waiting request
_AS_IT_IS = nullcontext()


def check_write_level(level: str | None) -> None:
    """Raise UsageError for what is no write level; None: the caller leaves it to the table."""
    if level is None:
        return
    if not isinstance(level, str) or level not in WRITE_LEVELS:
        raise UsageError(f"the level of a write is one of {', '.join(WRITE_LEVELS)}, not {level!r:.80}")


def awaits_outcome(level: WriteLevel | None) -> bool:
    """True when a write that the fold may refuse is to return once it is applied: unless its caller wants less."""
    return level in (None, "applied")


def check_decides(level: WriteLevel | None) -> None:
    """Raise UsageError for a level at which nothing is decided."""
    if level == "one":
        raise UsageError(
            "a pipeline of the level one takes puts and deletes: what the log decides is in all replicas when its "
            "outcome is known; open another pipeline for it, without a level"
        )


def apply_ms(delivery_timeout_s: float) -> int:
    """Milliseconds for which a write that is in the log waits until it is applied."""
    return max(1, min(MAX_APPLY_MS, round(delivery_timeout_s * 1000)))


def raising_as_put(level: WriteLevel | None, seen: int | None) -> AbstractContextManager[None]:
    """Raise what a single put raises for what became of it.

    NotApplied for one that is known to be in the log, and not to be decided, where "applied" is asked; UsageError for
    one that says to have seen what was still to come.
    """
    if seen is None and level != "applied":  # most puts, of which each pays for a generator that changes nothing
        return _AS_IT_IS
    return _raising_as_put(level, seen)


@contextmanager
def _raising_as_put(level: WriteLevel | None, seen: int | None) -> Iterator[None]:
    try:
        yield
    except InvalidWrite as error:
        if error.reason != "bad-seen" or seen is None or not isinstance(error.position, Position):
            raise
        raise unseen_version(seen, error.position) from error
    except Unknown as error:
        if level != "applied" or error.position is None:
            raise
        raise NotApplied(str(error), error.position) from error


@contextmanager
def waiting_for(position: Position) -> Iterator[None]:
    """Raise NotApplied for whatever keeps readers from telling that a write has been applied."""
    try:
        yield
    except LogStoreError as error:
        places = ", ".join(f"partition {p} below {following:,}" for (_, p), following in position.pieces.items())
        raise NotApplied(
            f"the write is in the log ({places}), and no reader has told that it has applied it: {error}; do not write "
            "it again: read with `after` its position",
            position,
        ) from error
