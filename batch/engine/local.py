"""Local engine: tasks run in a pool of processes on this machine, without Java.

    driver: a thread for each process -- (function, item, attempt) --> pool_child -- result or error --> the thread

The processes are started when the first task comes (or at `start`), with a safe path, and end with the driver however
it ends: the kernel kills them. One that dies is replaced, and its task tried again; what a task has left behind counts
for nothing, as no manifest names it. A process holds one task at a time, so the pool holds as much memory as so many
folds, whatever the table has.
"""

import os
import pickle
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeVar

from batch.defaults import LOCAL, PROCESSES
from batch.engine.protocol import ATTEMPTS, Saw, result
from logstore.model.errors import LogStoreError, SetupError
from logstore.process import child

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 4  # processes that are started before it is known how many tasks there are
_STDERR = 2  # what a task prints is no answer of the command, which may be JSON on stdout


class Failed(NamedTuple):
    """Text of an exception that ended an attempt, and may not do so again."""

    why: str


class ChildDied(Exception):
    """A process of the pool ended before it answered."""


class PoolChild:
    """One process of the pool, seen from the driver. Not for two threads at once, but for `kill`."""

    def __init__(self) -> None:
        """Begin a process, and do not wait until it is there. Raises SetupError."""
        mine, theirs = socket.socketpair()
        with mine, theirs:
            argv = child.python("batch.engine.pool_child", str(theirs.fileno()))
            try:
                self._process = child.spawn(argv, output=_STDERR, pass_fds=[theirs.fileno()])
            except OSError as error:
                raise SetupError(f"a process of the pool cannot be started: {error}; give fewer --processes") from error
            self._connection: Connection[Any, Any] = Connection(mine.detach())

    def ask(self, task: tuple[Callable[[Any], Any], Any, int]) -> Any:
        """Result of an attempt, a LogStoreError that ends the task, or Failed. Raises ChildDied."""
        packed = pickle.dumps(task)
        try:
            self._connection.send_bytes(packed)
            return pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise ChildDied(self._end()) from error

    def kill(self) -> None:
        """End the process; whoever waits for its answer gets ChildDied."""
        self._process.kill()

    def close(self) -> None:
        """End the process and let go of it."""
        self._end()

    def _end(self) -> str:
        self._process.kill()
        status = self._process.wait()
        self._connection.close()
        return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


class LocalEngine:
    """Tasks of one pool. Its `run` is not for two threads at once."""

    name = LOCAL

    def __init__(self, processes: int = PROCESSES) -> None:
        """`processes`: so many at most; 0: one a core that this process may use."""
        self.processes = processes or len(os.sched_getaffinity(0))
        self._lock = threading.Lock()
        self._idle: deque[PoolChild] = deque()
        self._busy: set[PoolChild] = set()
        self._stopping = False

    def start(self) -> None:
        """Begin to start the first processes of the pool; nothing is waited for."""
        with self._lock:
            while len(self._idle) + len(self._busy) < min(self.processes, _AHEAD):
                self._idle.append(PoolChild())

    def run(self, step: str, function: Callable[[T], R], items: Sequence[T], saw: Saw) -> list[R]:
        """Run in the pool; raises as every engine. At the first error what still runs is ended."""
        self._stopping = False
        with ThreadPoolExecutor(min(self.processes, len(items)), "task") as threads:
            pending = [threads.submit(self._task, step, function, item) for item in items]
            try:
                for done, one in enumerate(as_completed(pending), 1):
                    result(one.result())
                    saw(done)
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                self._stop()
                raise
        return [result(one.result()) for one in pending]

    def remote_places(self) -> int:
        """Nothing but 0: tasks run on this machine."""
        return 0

    def at_once(self) -> int:
        """Count of the pool's processes."""
        return self.processes

    def close(self) -> None:
        """End the pool."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def _task(self, step: str, function: Callable[[T], R], item: T) -> R | LogStoreError:
        why = ""
        for number in range(1, ATTEMPTS + 1):
            try:
                with self._borrowed() as process:
                    answer: R | LogStoreError | Failed = process.ask((function, item, number))
            except ChildDied as error:
                if self._stopping:
                    break
                why = f"its process ended with {error}"
                continue
            if not isinstance(answer, Failed):
                return answer
            why = answer.why
        return LogStoreError(f"{step}: a task failed {ATTEMPTS} times, at last so: {why}")

    @contextmanager
    def _borrowed(self) -> Iterator[PoolChild]:
        """A process for one task; one that answered is kept for the next."""
        with self._lock:
            if self._stopping:
                raise ChildDied("the end of the job")
            process = self._idle.popleft() if self._idle else PoolChild()
            self._busy.add(process)
        answered = False
        try:
            yield process
            answered = True
        finally:
            with self._lock:
                self._busy.discard(process)
                if answered and not self._stopping:
                    self._idle.append(process)
                else:
                    process.close()

    def _stop(self) -> None:
        with self._lock:
            self._stopping = True
            for process in self._busy:
                process.kill()
