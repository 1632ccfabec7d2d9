"""Faults of the soak: processes of two nodes and their broker that are killed, stand still, and come back."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson

from examples.flights.running import command, environment
from logstore.broker.embedded import EmbeddedKafka
from logstore.model.errors import LogStoreError

READY_S = 240.0
_FORKS = ThreadPoolExecutor(1)  # a child ends with the thread that forked it: this one outlives every fault


class SoakNode:
    """One `logstore node` that keeps its port and its data through every kill."""

    def __init__(self, directory: Path, *options: str) -> None:
        """Nothing runs before `start`."""
        self._directory, self._options = directory, options
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        directory.mkdir(parents=True)

    @property
    def url(self) -> str:
        """Address of its readers. Requires: it was ready once."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and return when it is ready. Raises LogStoreError when it ends instead."""
        words = ("node", "--data-dir", str(self._directory / "data"), "--http", f"127.0.0.1:{self._port}")
        self._process = _FORKS.submit(self._spawn, command(*words, *self._options)).result()
        assert self._process.stdout is not None, "a pipe was asked for"
        line = self._process.stdout.readline()
        if not line:
            raise LogStoreError(f"{self._directory.name} ended with status {self._process.wait()} before it was ready")
        self._port = int(orjson.loads(line)["http"].rpartition(":")[2])

    def _spawn(self, argv: list[str]) -> subprocess.Popen[bytes]:
        with (self._directory / "node.log").open("ab") as log:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(self._directory),
            )

    def pids(self) -> dict[str, Any]:
        """Processes as the supervisor recorded them last."""
        found: dict[str, Any] = orjson.loads((self._directory / "data" / "run" / "node.json").read_bytes())
        return found

    def kill(self, *, wipe: bool = False) -> None:
        """SIGKILL the supervisor, which takes the others with it; `wipe`: it comes back on an empty disk."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if wipe:
            shutil.rmtree(self._directory / "data", ignore_errors=True)

    def alive(self) -> bool:
        """True while the supervisor runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> int:
        """End it in order; returns its status."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(90)
        finally:
            self._process.kill()


class Faults(threading.Thread):
    """A schedule of faults, until `seconds` are over; every process runs again when it has ended."""

    def __init__(self, kafka: EmbeddedKafka, nodes: list[SoakNode], rng: random.Random, seconds: float) -> None:
        """Make it; `start` starts it."""
        super().__init__(name="faults", daemon=True)
        self._kafka, self._nodes, self._rng, self._seconds = kafka, nodes, rng, seconds
        self.counts: Counter[str] = Counter()
        self.error: BaseException | None = None
        self.ending = threading.Event()

    def run(self) -> None:
        """One fault after the other."""
        kinds = [
            (self._kill_worker, 4), (self._kill_reader, 3), (self._kill_node, 2), (self._kill_broker, 1),
            (self._freeze_worker, 2), (self._freeze_broker, 1), (self._end_node, 1),
        ]  # fmt: skip
        deadline = time.monotonic() + self._seconds
        try:
            while time.monotonic() < deadline and not self.ending.is_set():
                self.ending.wait(self._rng.uniform(0.5, 6))
                (fault,) = self._rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
                fault()
                self._ended_by_themselves()
        except BaseException as error:
            self.error = error

    def _ended_by_themselves(self) -> None:
        for node in self._nodes:
            if not node.alive():
                raise LogStoreError(f"a node ended by itself: {node.url}")

    def _kill_worker(self) -> None:
        self._signal("workers", signal.SIGKILL)

    def _kill_reader(self) -> None:
        self._signal("readers", signal.SIGKILL)

    def _freeze_worker(self) -> None:
        pid = self._signal("workers", signal.SIGSTOP)
        if pid is not None:
            self.ending.wait(self._rng.uniform(1, 8))
            with contextlib.suppress(ProcessLookupError):  # its supervisor has ended it meanwhile
                os.kill(pid, signal.SIGCONT)

    def _freeze_broker(self) -> None:
        pid = self._kafka.pid
        if pid is not None:
            self.counts["broker stands still"] += 1
            os.kill(pid, signal.SIGSTOP)
            self.ending.wait(self._rng.uniform(1, 12))
            os.kill(pid, signal.SIGCONT)

    def _kill_broker(self) -> None:
        self.counts["broker killed"] += 1
        self._kafka.kill()
        self.ending.wait(self._rng.uniform(0, 6))
        self._kafka.start(READY_S)

    def _kill_node(self) -> None:
        node, wipe = self._rng.choice(self._nodes), self._rng.random() < 0.3
        self.counts["node killed and wiped" if wipe else "node killed"] += 1
        node.kill(wipe=wipe)
        self.ending.wait(self._rng.uniform(0, 6))
        node.start()

    def _end_node(self) -> None:
        node = self._rng.choice(self._nodes)
        self.counts["node ended"] += 1
        status = node.stop()
        if status != 0:
            raise LogStoreError(f"{node.url} was told to end, and did with status {status}")
        node.start()

    def _signal(self, kind: str, number: signal.Signals) -> int | None:
        pid: int = self._rng.choice(self._rng.choice(self._nodes).pids()[kind])
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return None
        self.counts[f"{kind} {number.name}"] += 1
        return pid
