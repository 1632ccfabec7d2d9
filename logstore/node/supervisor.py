"""Supervisor: child processes that are kept running: what dies is started again, and so is what does not progress.

Each child has two pipes to here: its output (stdout and stderr together) goes to <logs>/<name>.log, warnings and errors
also to this process's log; its heartbeat (`logstore.process.heartbeat`) is a byte a second from the loop whose
progress matters. A child that is silent for `stall_s` is killed. Restarts come after 0.1 s, then 0.2, 0.4 ... 10 s; a
child that lived for 30 s begins at 0.1 s again. A child that ends with the status HOPELESS is not started again;
`hopeless` says why. Every child is started by `process.child`: it ends when this process does, however that ends.

One thread, one loop: call `step` again and again.
"""

import logging
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path

from logstore.model.safe_path import below
from logstore.process import environment, logs
from logstore.process.child import spawn
from logstore.process.heartbeat import HOPELESS
from logstore.process.progress import Progress

log = logs.get(__name__)

LOG_BYTES = 8 << 20  # of each child's log, and of the one before it
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.1, 10.0
SOUND_S = 30.0  # a child that lived so long is not in a crash loop
START_S = 60.0  # without a first heartbeat, and without work: imports, connections, opening of views
_CHUNK = 1 << 16
_LOUD = (b" WARNING ", b" ERROR ", b" CRITICAL ")


@dataclass(frozen=True, slots=True)
class Spec:
    """Name and command of a child. `argv` is given the descriptor of the heartbeat pipe."""

    name: str  # "worker-0"; the part before the dash is its kind
    argv: Callable[[int], list[str]]

    @property
    def kind(self) -> str:
        """Kind of the child: its name without the number."""
        return self.name.rpartition("-")[0]


@dataclass(slots=True, eq=False)
class Child:
    """A running child process and what is known of it."""

    spec: Spec
    log: "ChildLog"
    process: subprocess.Popen[bytes] | None = None
    heartbeat_fd: int = -1
    output_fd: int = -1
    started_s: float = 0.0
    progress: Progress | None = None  # of its start
    beat_s: float | None = None  # None: not yet since its start
    backoff_s: float = FIRST_BACKOFF_S
    due_s: float = field(default=0.0)  # when it is to be started
    wanted: bool = True
    starts: int = 0

    @property
    def alive(self) -> bool:
        """True while its process runs."""
        return self.process is not None and self.process.poll() is None


class _File(RotatingFileHandler):
    """File of a child's output that says once, not at each line, that it cannot be written."""

    lost: Callable[[], None] | None = None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002 - logging's own name
        lost, self.lost = self.lost, None
        if lost is not None:
            lost()


class ChildLog:
    """A child's output: all of it to a bounded file, warnings and errors to this process's log too."""

    def __init__(self, name: str, path: Path, loud: Callable[[str], None]) -> None:
        self._name, self._loud, self._rest = name, loud, b""
        self._file = _File(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8", errors="replace")
        self._file.lost = lambda: loud(f"what {name} says cannot be written to {path}; is the disk full?")
        self.last = ""  # the last line that said something

    def write(self, data: bytes) -> None:
        """Take output in, in pieces of any length."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _CHUNK:  # no line: bounded all the same
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._line(line)

    def close(self) -> None:
        """Write what is left, close the file."""
        if self._rest:
            self._line(self._rest)
            self._rest = b""
        self._file.close()

    def _line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        self._file.emit(logging.LogRecord(self._name, logging.INFO, "", 0, "%s", (text,), None))
        fields = logs.read(line)
        said = text if fields is None else str(fields["event"])
        self.last = said if any(map(str.isalnum, said)) and said.isprintable() else self.last
        if fields is None and any(word in line for word in _LOUD):
            self._loud(f"[{self._name}] {text}")
        elif fields is not None and logs.is_loud(fields):
            logs.relay(fields)


class Supervisor:
    """Supervisor of child processes: keeps them running. One thread."""

    def __init__(
        self,
        specs: Iterable[Spec],
        folder: Path,
        *,
        stall_s: float,
        on_change: Callable[[], None] = lambda: None,
        loud: Callable[[str], None] = log.warning,
        start_s: float = START_S,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`on_change` is called when process ids have changed; `loud` gets what a person should see.

        `environ`: what children have in their environment besides this process's.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._environ = dict(environ or {})
        self._logs, self._stall_s, self._start_s, self._on_change, self._loud = (
            folder,
            stall_s,
            start_s,
            on_change,
            loud,
        )
        self._looked_s = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self.hopeless: str | None = None  # why a child ended for good
        self.children = [Child(spec, ChildLog(spec.name, below(folder, f"{spec.name}.log"), loud)) for spec in specs]

    @property
    def wake_fd(self) -> int:
        """A descriptor that ends a waiting `step` when something is written to it (for `signal.set_wakeup_fd`)."""
        return self._wake

    def pids(self, kind: str) -> list[int]:
        """Process ids of the running children of a kind, by name."""
        return [c.process.pid for c in self.children if c.spec.kind == kind and c.process is not None and c.alive]

    def sound(self) -> bool:
        """True when every child runs and has beaten since its start."""
        return all(child.alive and child.beat_s is not None for child in self.children)

    def restarts(self) -> dict[str, int]:
        """Starts of each child, by name, but for its first."""
        return {child.spec.name: max(child.starts - 1, 0) for child in self.children}

    def step(self, timeout_s: float) -> None:
        """Wait for something to happen, at most `timeout_s`, and deal with it.

        1. read what children say   2. notice who died   3. kill who is silent   4. start who is due
        """
        self._read(timeout_s)
        self._excuse(timeout_s)
        for child in self.children:
            if child.process is not None and not child.alive:
                self._bury(child)
            elif child.process is not None and child.wanted:
                self._judge(child)
            elif child.wanted and time.monotonic() >= child.due_s:
                self._start(child)

    def end(self, kind: str, grace_s: float, hurry: Callable[[], bool] = lambda: False) -> None:
        """End all children of a kind.

        SIGTERM, and SIGKILL after `grace_s` or when `hurry` says so; returns when they are gone.
        """
        ending = [child for child in self.children if child.spec.kind == kind]
        for child in ending:
            child.wanted = False
            if child.process is not None:
                child.process.terminate()
        deadline = time.monotonic() + grace_s
        killed = False
        while any(child.process is not None for child in ending):
            if not killed and (time.monotonic() > deadline or hurry()):
                killed = True
                for child in ending:
                    self._kill(child, f"{child.spec.name} did not end within {grace_s:g} s and was killed")
            self.step(0.2)

    def close(self) -> None:
        """Kill what still runs, and let go of everything."""
        for child in self.children:
            child.wanted = False
            if child.process is not None:
                child.process.kill()
                self._bury(child)
            child.log.close()
        self._selector.close()
        os.close(self._woken)
        os.close(self._wake)

    # 1. read

    def _read(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            child: Child | None = key.data
            data = os.read(key.fd, _CHUNK)
            if child is None:
                continue
            if not data:  # its end of the pipe is closed; its death is noticed elsewhere
                self._selector.unregister(key.fd)
            elif key.fd == child.heartbeat_fd:
                child.beat_s = time.monotonic()
            else:
                child.log.write(data)

    def _excuse(self, timeout_s: float) -> None:
        """Leave out of every child's silence the time in which this process was stopped, or the whole machine."""
        before_s, self._looked_s = self._looked_s, time.monotonic()
        away_s = self._looked_s - before_s - timeout_s
        if away_s < self._stall_s / 2:
            return
        for child in self.children:
            if child.beat_s is not None:
                child.beat_s = min(child.beat_s + away_s, self._looked_s)

    # 2. notice

    def _bury(self, child: Child) -> None:
        assert child.process is not None
        status = child.process.wait()
        self._drain(child)
        if status == HOPELESS:
            child.wanted, self.hopeless = False, child.log.last
        if child.wanted:
            lived_s = time.monotonic() - child.started_s
            child.backoff_s = FIRST_BACKOFF_S if lived_s >= SOUND_S else min(child.backoff_s * 2, LAST_BACKOFF_S)
            child.due_s = time.monotonic() + child.backoff_s
            said = f": {child.log.last}" if child.log.last else ""
            self._loud(
                f"{child.spec.name} {_ended(status)} and is started again in {child.backoff_s:g} s "
                f"(see {self._logs / child.spec.name}.log{said})"
            )
        child.process, child.beat_s = None, None
        self._on_change()

    def _drain(self, child: Child) -> None:
        """Take what the dead child still had to say."""
        for fd in (child.output_fd, child.heartbeat_fd):
            if fd in self._selector.get_map():
                self._selector.unregister(fd)
        os.set_blocking(child.output_fd, False)
        try:
            while data := os.read(child.output_fd, _CHUNK):
                child.log.write(data)
        except BlockingIOError:  # a grandchild holds the other end
            pass
        os.close(child.output_fd)
        os.close(child.heartbeat_fd)

    # 3. kill

    def _judge(self, child: Child) -> None:
        now = time.monotonic()
        if child.beat_s is None and child.progress is not None and child.progress.hangs():
            limit_s = max(self._start_s, self._stall_s)
            self._kill(child, f"{child.spec.name} did not get going, has done nothing for {limit_s:g} s and is killed")
        elif child.beat_s is not None and now - child.beat_s > self._stall_s:
            self._kill(child, f"{child.spec.name} has made no progress for {self._stall_s:g} s and is killed")

    def _kill(self, child: Child, why: str) -> None:
        if child.process is not None:
            self._loud(why)
            child.process.kill()
            child.beat_s = time.monotonic()  # said once is enough, should the kernel take its time

    # 4. start

    def _start(self, child: Child) -> None:
        child.heartbeat_fd, beat = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        child.output_fd, output = os.pipe2(os.O_CLOEXEC)
        try:
            env = environment.for_python() | self._environ
            child.process = spawn(child.spec.argv(beat), output=output, env=env, pass_fds=[beat])
        finally:
            os.close(beat)
            os.close(output)
        child.started_s, child.beat_s = time.monotonic(), None
        child.starts += 1
        child.progress = Progress(child.process.pid, max(self._start_s, self._stall_s))
        self._selector.register(child.heartbeat_fd, selectors.EVENT_READ, child)
        self._selector.register(child.output_fd, selectors.EVENT_READ, child)
        log.info("a child was started", child=child.spec.name, pid=child.process.pid, restarts=child.starts - 1)
        self._on_change()


def _ended(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
