"""Write level: what an acknowledged write stands for, as its caller says it; judged before anything is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from logstore.model.errors import LogStoreError, NotApplied, UsageError
from logstore.model.position import Position

WriteLevel = Literal["all", "one", "applied"]
WRITE_LEVELS: tuple[str, ...] = get_args(WriteLevel)
MAX_APPLY_MS = 30_000  # of one waiting request


def check_write_level(level: str) -> None:
    """Raise UsageError for what is no write level."""
    if not isinstance(level, str) or level not in WRITE_LEVELS:
        raise UsageError(f"the level of a write is one of {', '.join(WRITE_LEVELS)}, not {level!r:.80}")


def apply_ms(delivery_timeout_s: float) -> int:
    """Milliseconds for which a write that is in the log waits until it is applied."""
    return max(1, min(MAX_APPLY_MS, round(delivery_timeout_s * 1000)))


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
