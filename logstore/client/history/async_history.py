"""AsyncKeyHistory: a key's history for asyncio; it is read on another thread, some mutations at a time."""

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

from logstore.client.history.key_history import KeyHistory
from logstore.client.history.mutation import KeyMutation

_MANY = 256


class AsyncKeyHistory:
    """Asynchronous iterator over the mutations of one key; `bounds` is what was opened, with all that it tells.

    Take it to its end, or use it in an `async with` block.
    """

    def __init__(self, bounds: KeyHistory) -> None:
        self.bounds, self._taken = bounds, deque[KeyMutation]()
        self._reading: asyncio.Future[list[KeyMutation]] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> KeyMutation:
        """The next mutation; raises as `KeyHistory.__next__`."""
        if not self._taken:
            await self._take()
        if not self._taken:
            raise StopAsyncIteration
        return self._taken.popleft()

    async def _take(self) -> None:
        """Take some from the thread that reads. Who is cancelled meanwhile loses none: the next call gets them."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(asyncio.to_thread(self.bounds.take, _MANY))
        reading = self._reading
        await asyncio.wait([reading])
        if self._reading is reading:
            self._reading = None
            self._taken.extend(reading.result())

    async def close(self) -> None:
        """Let go of log and archive, once the stretch that is looked through is over."""
        self.bounds.stop()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)  # nobody wants what it found, or met
        await asyncio.to_thread(self.bounds.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
