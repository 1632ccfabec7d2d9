"""Wakeups: how the producer's thread tells an event loop what is done."""

import asyncio
from collections import deque


class Wakeups:
    """Wake-ups of the loop by the producer's thread: one `call_soon_threadsafe` for all that is done meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._done = loop, deque[asyncio.Future[None]]()
        self._called = False  # the loop was called and has not begun to look

    def tell(self, future: "asyncio.Future[None]") -> None:
        """Complete `future` in its loop. Called on any thread."""
        if (loop := future.get_loop()) is not self._loop:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_complete, future)
            return
        self._done.append(future)  # before it is looked whether the loop was called: it may be at the end of its round
        if not self._called and not self._loop.is_closed():
            self._called = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._called = False  # what comes from here on calls again
        while self._done:
            _complete(self._done.popleft())


def _complete(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
