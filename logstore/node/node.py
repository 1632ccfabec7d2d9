"""Node: one machine's share of a store, a process with its children: workers follow the log, readers answer HTTP.

    1. claim      the data directory and the port
    2. log        Kafka answers (`logstore dev` starts it), the store's own topics are there and still the same
    3. children   workers and readers are started, and kept running
    4. ready      said once, when `readiness.Readiness` says so
    5. end        at SIGTERM or SIGINT: workers hand over and close their views while readers answer, then readers,
                  then Kafka; a second signal, or patience running out, ends whatever is left with SIGKILL

The end is ordered so that no read fails: other nodes take over a slot while this one still serves it.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from logstore.broker.embedded import EmbeddedKafka
from logstore.broker.restarter import Restarter
from logstore.log.connect.sources import publish
from logstore.model.errors import SetupError, Stopped
from logstore.node.child_argv import reader_argv, worker_argv
from logstore.node.found_store import PATIENCE_S, FoundStore
from logstore.node.node_dir import NodeDir
from logstore.node.node_figures import NodeFigures
from logstore.node.port import Reservation
from logstore.node.readiness import Readiness
from logstore.node.supervisor import Spec, Supervisor
from logstore.process import logs
from logstore.process.heartbeat import Heartbeat
from logstore.serve.settings import check_bind
from logstore.settings import Settings

STEP_S = 0.5
READY_STEP_S = 0.05
KAFKA_GRACE_S = 20.0

log = logs.get(__name__)

Commands = Callable[["Node"], list[Spec]]


class Interrupted(BaseException):
    """A signal came before there were children to end in order."""


class Node:
    """A node from start to end. `settings.bootstrap` None: Kafka is embedded."""

    def __init__(
        self, settings: Settings, *, commands: Commands | None = None, loud: Callable[[str], None] | None = None
    ) -> None:
        """`commands` says what the children are (default.

        Workers and readers); `loud` gets what a person should see.
        """
        self.settings = settings
        self.id = self.url = ""
        self.bootstrap: str = ""
        self.kafka_config = settings.kafka_config
        self._commands, self._loud = commands or children, loud or log.warning
        self._dir, self._figures = NodeDir(settings.data_dir), NodeFigures(settings.data_dir)
        self._kafka: EmbeddedKafka | None = None
        self._signals = 0
        self._heartbeat = Heartbeat(None)
        self._unrecorded = ""  # why process ids are not on the disk
        self._supervisor: Supervisor | None = None

    def run(self, on_ready: Callable[[dict[str, Any]], None]) -> None:
        """Serve until SIGTERM or SIGINT; `on_ready` is told what `facts` says. Requires: the main thread.

        Raises SetupError, EpochChanged, LogTruncated, AccessDenied; Stopped when a child has found out that none can go
        on.
        """
        check_bind(self.settings.http.host, insecure=self.settings.insecure)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_signals(self._on_signal))
            try:
                self._claim(stack)  # 1
                self._find_log(stack)  # 2
                supervisor = self._supervise(stack)  # 3
            except Interrupted:
                return
            self._wait_ready(supervisor, on_ready)  # 4
            while not self._over(supervisor):
                self._turn(supervisor, STEP_S)
            self._end(supervisor)  # 5
            if supervisor.hopeless is not None:
                raise Stopped(supervisor.hopeless)

    def facts(self) -> dict[str, Any]:
        """Facts of the node that is ready, for machines."""
        recorded = self._recorded()
        pids = {name: recorded[name] for name in ("node", "kafka", "workers", "readers")}
        return {
            "ready": True, "bootstrap": self.bootstrap, "http": self.url, "data_dir": str(self._dir.path),
            "node_id": self.id, "pids": pids, "kafka_config": recorded["kafka_config"],
        }  # fmt: skip

    # 1. claim

    def _claim(self, stack: contextlib.ExitStack) -> None:
        stack.enter_context(self._dir.lock())
        stack.callback(self._dir.unrecord)
        self.id = self._dir.node_id()
        self._figures.begin()
        reservation = Reservation(self.settings.http)
        stack.callback(reservation.close)
        self.address = reservation.address
        self.url = self.settings.advertise or self.address.url

    # 2. log

    def _find_log(self, stack: contextlib.ExitStack) -> None:
        if self.settings.bootstrap is None:
            self._embed(stack)
        else:
            self.bootstrap = self.settings.bootstrap
        self._store = FoundStore(self.bootstrap, self.settings, self._dir, self._loud)
        self._store.wait(self._heartbeat.beat)

    def _embed(self, stack: contextlib.ExitStack) -> None:
        kafka = EmbeddedKafka(
            self._dir.path / "kafka",
            port=self.settings.kafka_port,
            heap_mb=self.settings.kafka_heap_mb,
            secure=self.settings.secure,
        ).start()
        if kafka.security is not None:
            self.kafka_config = kafka.security.client_settings
            publish(self.kafka_config)
        self._kafka, self.bootstrap = kafka, kafka.bootstrap
        restarter = Restarter(kafka, self._loud)
        stack.callback(restarter.close, KAFKA_GRACE_S)
        restarter.start()

    # 3. children

    def _supervise(self, stack: contextlib.ExitStack) -> Supervisor:
        supervisor = Supervisor(
            self._commands(self), self._dir.path / "logs", stall_s=self.settings.stall_s, on_change=self._record,
            loud=self._loud, environ=logs.for_children(self.settings.log_level),
        )  # fmt: skip
        stack.callback(supervisor.close)
        self._supervisor = supervisor
        signal.set_wakeup_fd(supervisor.wake_fd, warn_on_full_buffer=False)
        stack.callback(signal.set_wakeup_fd, -1)
        return supervisor

    def _turn(self, supervisor: Supervisor, timeout_s: float) -> None:
        supervisor.step(timeout_s)
        self._heartbeat.beat()
        self._record()
        self._figures.tell(supervisor)

    def _over(self, supervisor: Supervisor) -> bool:
        return self._signals > 0 or supervisor.hopeless is not None

    def _recorded(self) -> dict[str, Any]:
        workers, readers = (self._supervisor.pids(kind) if self._supervisor else [] for kind in ("worker", "reader"))
        kafka = self._kafka.pid if self._kafka and self._kafka.alive() else None
        return {
            "node": os.getpid(), "kafka": kafka, "workers": workers, "readers": readers,
            "node_id": self.id, "url": self.url, "bootstrap": self.bootstrap,
            "kafka_config": None if self.kafka_config is None else str(self.kafka_config),
        }  # fmt: skip

    def _record(self) -> None:
        try:
            self._dir.record(self._recorded())
            self._unrecorded = ""
        except SetupError as error:  # a full disk ends no node: the next turn tries again
            if self._unrecorded != str(error):
                self._unrecorded = str(error)
                self._loud(f"process ids are not recorded: {error}")

    # 4. ready

    def _wait_ready(self, supervisor: Supervisor, on_ready: Callable[[dict[str, Any]], None]) -> None:
        with contextlib.ExitStack() as stack:
            readiness: Readiness | None = None
            asked_s, lacking = time.monotonic(), ["children start"]
            while lacking and not self._over(supervisor):
                self._turn(supervisor, READY_STEP_S)
                if not self._store.look():
                    lacking = [f"Kafka at {self.bootstrap} does not answer"]
                elif not supervisor.sound():
                    lacking = ["not every child process has got going"]
                else:
                    readiness = readiness or stack.enter_context(contextlib.closing(self._readiness()))
                    lacking = readiness.lacking()
                if lacking and time.monotonic() - asked_s > PATIENCE_S:
                    asked_s = time.monotonic()
                    self._loud(f"not ready yet: {'; '.join(lacking)}")
        if not lacking:
            log.info("the node is ready", node=self.id, url=self.url, bootstrap=self.bootstrap)
            on_ready(self.facts())

    def _readiness(self) -> Readiness:
        s = self.settings
        url = _local_url(self)
        return Readiness(
            self.bootstrap, node=self.id, group=s.group, url=url, workers=s.workers, readers=s.readers,
            slots=self._store.slots or s.slots,
        )  # fmt: skip

    # 5. end

    def _end(self, supervisor: Supervisor) -> None:
        log.info("the node ends: its slots are handed over", node=self.id)
        for kind in ("worker", "reader"):
            supervisor.end(kind, self.settings.drain_s, hurry=lambda: self._signals > 1)
            log.info("the children of a kind have ended", kind=kind)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        if self._supervisor is None:
            raise Interrupted


def children(node: Node) -> list[Spec]:
    """Workers and readers of a node."""
    s, port = node.settings, node.address.port
    workers = [
        Spec(f"worker-{i}", _beating(worker_argv(s, i, node.id, node.url, node.bootstrap))) for i in range(s.workers)
    ]
    readers = [
        Spec(f"reader-{i}", _beating(reader_argv(s, i, node.id, port, node.bootstrap))) for i in range(s.readers)
    ]
    return [*workers, *readers]


def _beating(argv: list[str]) -> Callable[[int], list[str]]:
    """The command line of a child, given the descriptor of its heartbeat pipe."""
    return lambda heartbeat_fd: [*argv, "--heartbeat-fd", str(heartbeat_fd)]


def _local_url(node: Node) -> str:
    """The address to ask one's own readers at."""
    host, port = node.address
    return node.address._replace(host={"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port=port).url


@contextlib.contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
