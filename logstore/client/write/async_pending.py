"""Pending writes that are awaited.

Acknowledged by the producer's thread, which wakes the loop once per batch of acknowledgements, not once per write.
"""

import asyncio
from collections.abc import Generator
from typing import Any

from logstore.client.conditional.outcome import Outcome
from logstore.client.conditional.pending_outcome import PendingOutcome
from logstore.client.conditional.pending_put import PendingPut
from logstore.client.write.pending import Pending, PendingWrite, Shared
from logstore.client.write.pending_applied import PendingApplied
from logstore.client.write.wakeups import Wakeups
from logstore.log.write.limits import GRACE_S
from logstore.log.write.producer import Producer
from logstore.model.errors import StillPending
from logstore.model.position import Position


class AsyncShared(Shared):
    """State that the writes of an `AsyncPipeline` share."""

    def __init__(self, epoch: str, producer: Producer, wakeups: Wakeups) -> None:
        super().__init__(epoch, producer)
        self.wakeups = wakeups


class Awaited(PendingWrite):
    """A write that is waited for in an event loop."""

    __slots__ = ()

    async def _arrival(self) -> None:
        shared = self._shared
        assert isinstance(shared, AsyncShared), "made by an AsyncPipeline"
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.add_done_callback(lambda _: shared.wakeups.tell(future))
        shared.producer.release()
        try:
            await asyncio.wait_for(future, shared.producer.delivery_timeout_s + GRACE_S)
        except TimeoutError as error:
            raise StillPending(
                "no acknowledgement within the delivery timeout; the write is still on its way: await it again"
            ) from error


class AsyncPending(Awaited, Pending):
    """A write on its way: `await` it for its position, or ask `done()`."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Position]:
        """Wait for the acknowledgement; raises like `Pending.result`."""
        if not self.done():
            yield from self._arrival().__await__()
        return self._outcome()


class AsyncPendingOutcome(Awaited, PendingOutcome):
    """A conditional write on its way: `await` it for its outcome, or ask `done()`."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Outcome]:
        """Wait for the outcome; raises like `PendingOutcome.result`."""
        if not self.done():
            yield from self._arrival().__await__()
        return self.result()


class AsyncPendingPut(Awaited, PendingPut):
    """A put or delete that the fold may refuse, on its way: `await` it for its position, or ask `done()`."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Position]:
        """Wait until it is applied; raises like `PendingPut.result`."""
        if not self.done():
            yield from self._arrival().__await__()
        return self._applied()


class AsyncPendingApplied(Awaited, PendingApplied):
    """A put or delete that is to be applied, on its way: `await` it for its position, or ask `done()`."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Position]:
        """Wait until it is applied; raises like `PendingApplied.result`."""
        if not self.done():
            yield from self._arrival().__await__()
        return self._applied()


AsyncWritten = AsyncPending | AsyncPendingPut | AsyncPendingApplied


async def within(pending: AsyncWritten, timeout_s: float | None) -> Position:
    """The position of a write. Raises StillPending after `timeout_s`, where it is given."""
    if timeout_s is None:
        return await pending
    try:
        return await asyncio.wait_for(pending, timeout_s)
    except TimeoutError as error:
        raise StillPending(f"no acknowledgement within {timeout_s:g} s; the write is still on its way") from error
