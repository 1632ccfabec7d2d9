"""A real worker process, and a look at what it shows its readers."""

import random
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from support_forked import Process, start
from support_group import remove_members
from support_log import produce
from support_wait import until

from logstore.log import topics
from logstore.log.tables.registry import Registry
from logstore.model.errors import SetupError
from logstore.model.folding.entry import TOMBSTONE, Entry
from logstore.model.table import TABLES_TOPIC, Table
from logstore.view import paths
from logstore.view.feed.position_records import AppliedKey, AppliedRecord
from logstore.view.feed.stream import FeedReader, connect
from logstore.view.feed.view_records import ViewKey, ViewRecord
from logstore.view.reader import ViewReader

WAIT_S = 100.0


def make_table(bootstrap: str, partitions: int = 2, **more: Any) -> Table:
    """A table of a fresh name, its topic and its definition."""
    registry = Registry(bootstrap)
    registry.ensure_store()
    name = more.pop("name", f"t{random.SystemRandom().randrange(1 << 40):x}")
    if "topic" not in more:
        settings = topics.wal_settings(more.get("max_value_bytes", 1_000_000), 1)
        assert topics.create(registry.admin, name, partitions, 1, settings)
    topic = more.pop("topic", name)
    epoch = topics.epoch_of(registry.admin, topic)
    assert epoch is not None
    table = Table(name, topic, epoch, partitions, **more)
    return replace(table, revision=registry.write(table))


def forget_tables(bootstrap: str) -> None:
    """Write tombstones for all tables of this Kafka: each worker of later tests would open and follow every one."""
    try:
        known = Registry(bootstrap).read()
    except SetupError:
        return  # no test of it made a table
    names = known.tables.keys() | known.unreadable.keys()
    produce(bootstrap, TABLES_TOPIC, [(name.encode(), None) for name in sorted(names)], partition=0)


class Scheduled:
    """Tables whose schedules end with the block: one that is due would keep each later worker of this Kafka busy."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap, self._names = bootstrap, list[str]()

    def __enter__(self) -> "Scheduled":
        return self

    def make(self, partitions: int, mutations: int | None = None, minutes: int | None = None, **more: Any) -> Table:
        """A table that is due after so many mutations, or minutes."""
        schedule = {"every_mutations": mutations, "every_minutes": minutes}
        table = make_table(self._bootstrap, partitions, schedule=schedule, **more)
        self._names.append(table.name)
        return table

    def __exit__(self, *failure: object) -> None:
        registry = Registry(self._bootstrap)
        for table in registry.tables().values():
            if table.name in self._names:
                registry.write(replace(table, schedule=None))


class Watch:
    """A subscriber of a worker's feed."""

    def __init__(self, data_dir: Path, worker: int = 0) -> None:
        self._path = paths.feed_path(data_dir, worker)
        self._sock: Any = None
        self._reader = FeedReader()
        self.values: dict[Any, Any] = {}

    def until(self, what: str, condition: Callable[[dict[Any, Any]], Any], timeout_s: float = WAIT_S) -> Any:
        """Wait until the dictionary fulfils the condition; returns what the condition returned."""
        deadline = time.monotonic() + timeout_s
        while not (found := condition(self.values)):
            left = deadline - time.monotonic()
            assert left > 0, f"after {timeout_s} s still not: {what}; {self.values}"
            self._receive(min(left, 0.2))
        return found

    def position(self, table: Table, partition: int, offset: int, timeout_s: float = WAIT_S) -> None:
        """Wait until the partition's view has applied everything below `offset`."""
        key = AppliedKey(table.epoch, partition)
        self.until(
            f"{table.name}/{partition} at {offset}",
            lambda values: values.get(key, AppliedRecord()).next_offset >= offset,
            timeout_s,
        )

    def state(self, table: Table, partition: int, state: str, timeout_s: float = WAIT_S) -> ViewRecord:
        """Wait until the partition is in this state; returns what the feed shows of it."""
        key = ViewKey(table.name, table.epoch, partition)
        return self.until(
            f"{key} is {state}",
            lambda values: values.get(key, ViewRecord()).state == state and values.get(key),
            timeout_s,
        )

    def _receive(self, timeout_s: float) -> None:
        if self._sock is None:
            try:
                self._sock, self._reader = connect(self._path), FeedReader()
                self.values.clear()
            except OSError:
                select.select([], [], [], timeout_s)
                return
        if select.select([self._sock], [], [], timeout_s)[0]:
            try:
                data = self._sock.recv(1 << 16)
            except ConnectionResetError:  # killed
                data = b""
            if not data:
                self.close()
            for key, value in self._reader.decode(data):
                self.values.pop(key, None) if value is None else self.values.update({key: value})

    def close(self) -> None:
        """Hang up, and forget what was said."""
        self.values.clear()
        if self._sock is not None:
            self._sock.close()
            self._sock = None


class WorkerProcess:
    """`python -m streaming` on a data directory."""

    def __init__(
        self,
        bootstrap: str,
        data_dir: Path,
        *,
        node: str = "",
        group: str = "",
        worker: int = 0,
        workers: int = 1,
        url: str = "",
        readers: int = 0,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        node = node or f"{data_dir.name}-{random.SystemRandom().randrange(1 << 40):x}"
        self._own_group = "" if group else node
        self._arguments = [
            "--bootstrap", bootstrap, "--data-dir", str(data_dir), "--node", node, "--url", url or f"http://{node}",
            "--group", group or node, "--worker", str(worker), "--workers", str(workers), "--readers", str(readers),
        ]  # fmt: skip
        data_dir.mkdir(parents=True, exist_ok=True)
        self._environ = dict(environ or {})
        self._log = data_dir / f"worker-{worker}.log"
        self.data_dir, self.bootstrap = data_dir, bootstrap
        self.watch = Watch(data_dir, worker)
        self.process: Process | None = None
        self._killed = False

    def start(self) -> "WorkerProcess":
        """Start it; use `watch` to wait for what it does.

        The one that was killed before it does not keep the slots for the rest of its session, if nobody else is in its
        group.
        """
        with self._log.open("ab") as log:
            self.process = start(
                "streaming", self._arguments, output=log.fileno(), errors=log.fileno(), environ=self._environ
            )
        if self._killed and self._own_group:
            remove_members(self.bootstrap, self._own_group)
        self._killed = False
        return self

    def running(self) -> "WorkerProcess":
        """Start it if it has ended."""
        if self.process is not None and self.process.poll() is None:
            return self
        self.kill()
        return self.start()

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)
        self._killed = True

    def stop(self) -> int:
        """SIGTERM, and wait; returns the exit status."""
        return self._end(signal.SIGTERM)

    def log(self) -> str:
        """What it printed."""
        return self._log.read_text(errors="replace")

    def _end(self, how: int) -> int:
        self.watch.close()
        if self.process is None:
            return 0
        self.process.send_signal(how)
        status = self.process.wait(40)
        self.process = None
        return status


@contextmanager
def running_worker(bootstrap: str, data_dir: Path, **more: Any) -> Iterator[WorkerProcess]:
    """A worker that is ended with the block."""
    worker = WorkerProcess(bootstrap, data_dir, **more).start()
    try:
        yield worker
    finally:
        worker.kill()
        print(worker.log())


@contextmanager
def opened(data_dir: Path, table: Table, partition: int) -> Iterator[ViewReader]:
    """The newest view of a partition, opened for reading."""
    directory = paths.partition_dir(data_dir, table.name, table.epoch, partition)
    until(f"{table.name}/{partition} has a view", lambda: directory.exists() and paths.newest_generation(directory) > 0)
    reader = ViewReader.open(directory / str(paths.newest_generation(directory)))
    try:
        yield reader
    finally:
        reader.close()


def rows(data_dir: Path, table: Table) -> dict[bytes, bytes]:
    """Key -> value of every live row of all partitions, read from the views."""
    found = {}
    for partition in range(table.partitions):
        with opened(data_dir, table, partition) as reader, reader.reading() as reading:
            decoded = ((key, Entry.decode(raw)) for key, raw in reading.scan())
            found.update({key: entry.payload for key, entry in decoded if entry.kind != TOMBSTONE})
    return found
