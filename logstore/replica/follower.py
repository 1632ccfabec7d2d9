"""Follower: the thread that follows a node's workers for all embedded readers of a process.

It is a reader process without its server: the same catalog, feeds and waiting, on an event loop of its own. Threads
that read take what it has published; whoever has to wait for something has that done here.
"""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from logstore.model.errors import NotYet, SetupError
from logstore.replica.published import SharedCatalog
from logstore.serve.read.consistency_wait import ConsistencyWait
from logstore.serve.state.feed_client import FeedClient
from logstore.serve.state.waiters import Waiters
from logstore.serve.wire.problems import Problem

T = TypeVar("T")
MAX_WAITERS = 10_000
_LOOK_S = 1.0  # for workers that the node did not have before
_GRACE_S = 5.0  # beyond a call's own deadline: its thread may wait for a processor
_PASSING = frozenset({"starting"})  # words of problems that end by themselves

Work = Callable[["Follower", float], Awaitable[T]]  # to be done on the loop, until a loop time


class Follower:
    """The follower of one data directory. `call` from any thread."""

    def __init__(self, data_dir: Path) -> None:
        """Begin to follow; what the workers left on disk is read until they speak. Raises SetupError."""
        self.data_dir = data_dir
        waiters = Waiters(MAX_WAITERS)
        self.catalog = SharedCatalog(_node_id(data_dir), waiters)
        self.wait = ConsistencyWait(self.catalog, waiters)
        self._waiters, self._changed = waiters, asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._begun = threading.Event()
        self._main: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="logstore-replica", daemon=True)  # until `close`
        self._thread.start()
        self._begun.wait()

    def call(self, work: Work[T], deadline_ms: int) -> T:
        """Have something done on the loop, again while what prevents it passes by itself.

        Raises Problem, LogStoreError; NotYet when the thread does not get to it.
        """
        if self._loop.is_closed():
            raise NotYet("the thread that follows the node has ended; open the replica again")
        done = asyncio.run_coroutine_threadsafe(self._try(work, deadline_ms / 1_000), self._loop)
        try:
            return done.result(deadline_ms / 1_000 + _GRACE_S)
        except concurrent.futures.CancelledError:
            raise NotYet("the replica was closed meanwhile") from None
        except TimeoutError:
            done.cancel()
            raise NotYet("the thread that follows the node does not get to run; try again") from None

    def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Have something done on the loop after a time, unless what this returns is called before."""
        timers: list[asyncio.TimerHandle] = []
        self._soon(lambda: timers.append(self._loop.call_later(seconds, call)))
        return lambda: self._soon(lambda: timers[0].cancel())  # calls come in their order

    def close(self) -> None:
        """Stop following, and let views and snapshots go; who waits is told so."""
        self._soon(self._end)
        self._thread.join(10)

    def _soon(self, call: Callable[[], None]) -> None:
        """Have something done on the loop, unless that has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    def _end(self) -> None:
        self._waiters.close()
        if self._main is not None:
            self._main.cancel()

    async def _try(self, work: Work[T], seconds: float) -> T:
        deadline = self._loop.time() + seconds
        while True:
            changed = self._changed
            try:
                return await work(self, deadline)
            except Problem as problem:
                if problem.word not in _PASSING or self._loop.time() >= deadline:
                    raise
                await _until(changed, deadline - self._loop.time(), problem)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner, contextlib.suppress(asyncio.CancelledError):
            runner.run(self._follow())  # cancelled by `close`

    async def _follow(self) -> None:
        self._main = asyncio.current_task()
        self._loop.call_soon(self._begun.set)
        feeds = FeedClient(self.data_dir, _workers(self.data_dir), self.catalog, embedded=True)
        snapshots = self.catalog.views.snapshots
        snapshots.on_damage = lambda: self._soon(feeds.tell)  # found by any thread
        self.catalog.on_change = self._change
        feeds.start()
        try:
            while True:
                await asyncio.sleep(_LOOK_S)
                for worker in range(len(feeds.feeds), _workers(self.data_dir)):
                    feeds.follow(worker)
        finally:
            await feeds.stop()
            self.catalog.forget()

    def _change(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


async def _until(changed: asyncio.Event, seconds: float, problem: Problem) -> None:
    """Wait for a change; raises `problem` when none comes in time."""
    try:
        await asyncio.wait_for(changed.wait(), seconds)
    except TimeoutError:
        raise problem from None


def _workers(data_dir: Path) -> int:
    """Workers that the node has, or had when it ran last; at least one."""
    names = [path.stem.removeprefix("worker-") for path in (data_dir / "run").glob("worker-*.sock")]
    names += [path.stem for path in (data_dir / "workers").glob("*.json")]
    return max((int(name) + 1 for name in names if name.isdigit()), default=1)


def _node_id(data_dir: Path) -> str:
    try:
        return (data_dir / "node_id").read_bytes().decode(errors="replace").strip()
    except FileNotFoundError:
        raise SetupError(
            f"{data_dir} is not the data directory of a node that has run here; `logstore dev --data-dir {data_dir}` "
            "starts one"
        ) from None
    except OSError as error:
        raise SetupError(f"{data_dir} cannot be read: {error.strerror}; a node's files are its user's own") from error
