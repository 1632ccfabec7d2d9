"""Steps of a read: a generator that yields what it asks of its driver, and returns what the caller wanted.

    Ask         send this; the driver gives the HttpAnswer, or just the time when the server cannot be reached
    Pause       wait so long; it gives the time
    SendAhead   send this for later, if there is a connection to spare; it gives an Ahead, or None
    TakeAhead   wait for what was sent ahead; it gives the HttpAnswer, or None: ask again

A driver knows sockets and clocks, and nothing of reads: `read.http` blocks, `read.loop_reader` awaits. Times are
monotonic seconds.
"""

from collections.abc import Generator, Mapping
from typing import Any, NamedTuple, TypeVar

from logstore.client.read.budget import Budget
from logstore.client.transport.answer import HttpAnswer
from logstore.model.errors import ConsistencyTimeout, LogStoreError

FIRST_PAUSE_S, LAST_PAUSE_S = 0.02, 0.5


class Ask(NamedTuple):
    """A request to send."""

    method: str
    base: str  # URL of the node
    path: str  # and query, quoted
    headers: Mapping[str, str]
    content: bytes | None
    end: float  # of the whole exchange, monotonic seconds


class Pause(NamedTuple):
    """A wait before the next attempt."""

    seconds: float


class SendAhead(NamedTuple):
    """A request whose answer nobody waits for yet."""

    ask: Ask


class TakeAhead(NamedTuple):
    """A request that was sent ahead, whose answer is waited for now."""

    sent: Any  # Ahead or LoopAhead: what the driver gave


T = TypeVar("T")
Step = Ask | Pause | SendAhead | TakeAhead
Steps = Generator[Step, Any, T]


def time_now() -> Steps[float]:
    """The time now."""
    now = yield Pause(0.0)
    assert isinstance(now, float), "a pause is answered with the time"
    return now


def pause(seconds: float, budget: Budget, error: LogStoreError) -> Steps[float]:
    """Wait before the next attempt and return the pause after that.

    Raises `error` when it is final or the deadline would pass.
    """
    now = yield from time_now()
    if not error.retriable or isinstance(error, ConsistencyTimeout) or now + seconds >= budget.end:
        raise error
    yield Pause(seconds)
    return min(seconds * 2, LAST_PAUSE_S)


def begun(steps: Steps[T], first: HttpAnswer | float | None) -> Steps[T]:
    """The steps, of which the first is answered already; None: it is not."""
    if first is None:
        return (yield from steps)
    next(steps)
    try:
        step = steps.send(first)
        while True:
            step = steps.send((yield step))
    except StopIteration as end:
        result: T = end.value
        return result
