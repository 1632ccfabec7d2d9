"""Context of every batch command: log, definitions and storage, and the way of work to an engine."""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from batch import failpoints, shared_storage
from batch.engine.choice import Engines, JobSize
from batch.engine.protocol import Engine
from logstore.log.connect.cluster import Cluster
from logstore.log.control import check_epoch
from logstore.log.tables.registry import Definitions, Registry
from logstore.model.errors import UsageError
from logstore.model.table import Table
from logstore.node.addresses import need_bootstrap
from logstore.settings import TASK_BYTES, Settings
from logstore.snapshot.archive.index import ArchiveIndex
from logstore.snapshot.repository import Repository
from logstore.snapshot.storage import Storage, storage_url

Progress = Callable[[str, int, int], None]  # step, done, of how many
LEASE_S = 60.0  # a job that was killed keeps others from the table for so long

T = TypeVar("T")
R = TypeVar("R")


def silent(_step: str, _done: int, _total: int) -> None:
    """Progress that nobody looks at."""


@dataclass
class Context:
    """A store, as a batch job sees it."""

    bootstrap: str
    registry: Registry
    definitions: Definitions
    storage: Storage
    progress: Progress = silent
    engines: Engines = field(default_factory=Engines)
    lease_s: float = LEASE_S
    task_bytes: int = TASK_BYTES  # that one task folds at most
    engine: Engine | None = field(default=None, init=False)  # of the job that runs
    _nonce: shared_storage.Nonce | None = field(default=None, init=False)  # of a disk, for executors elsewhere

    def __post_init__(self) -> None:
        if Cluster.of(self.bootstrap) != Cluster.of(str(self.bootstrap)):
            raise UsageError(
                "Spark's executors are told Kafka's address alone, and would not be answered: give its properties by "
                "LOGSTORE_KAFKA_CONFIG, a file that executors have too"
            )
        failpoints.warn()

    def start(self, size: JobSize) -> None:
        """Begin a job of this size: choose its engine, and start it.

        Raises SetupError, UsageError where executors do not see the storage.
        """
        self.engine = self.engines.take(size)
        self.engine.start()
        places = self.engine.remote_places()
        if places and self.storage.url.startswith("file:") and self._nonce is None:
            self._nonce = shared_storage.write_nonce(self.storage)
            self.run("see the storage", partial(shared_storage.check_seen, nonce=self._nonce), range(places))

    def table(self, name: str) -> Table:
        """The definition as of now.

        Raises NoSuchTable, EpochChanged when the topic is another one now, LogUnreachable.
        """
        table = self.registry.table(name)
        check_epoch(self.bootstrap, table)
        return table

    def repository(self, table: Table) -> Repository:
        """Repository of the table's snapshots."""
        return Repository(self.storage, table.topic, table.epoch)

    def archive(self, table: Table) -> ArchiveIndex:
        """Index of the table's archive."""
        return ArchiveIndex(self.storage, table.topic, table.epoch)

    def run(self, step: str, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Run `function` over `items`, one task each; results in order. Raises as `engine.protocol.Engine.run`."""
        if not items:
            return []
        engine = self._taken()
        self.progress(step, 0, len(items))
        if self._nonce is not None and engine.remote_places():
            function = partial(shared_storage.run_seen, function=function, nonce=self._nonce)
        return engine.run(step, function, items, partial(self._saw, step, len(items)))

    def at_once(self) -> int:
        """Count of tasks that the job's engine runs at once; 0: it is not known."""
        return self._taken().at_once()

    def close(self) -> None:
        """End the engines that were started."""
        self.engine = None
        self.engines.close()
        if self._nonce is not None:
            shared_storage.remove(self._nonce)
            self._nonce = None

    def _taken(self) -> Engine:
        return self.engine or self.engines.take(JobSize())

    def _saw(self, step: str, of: int, done: int) -> None:
        self.progress(step, done, of)


def open_context(
    settings: Settings,
    *,
    engines: Engines | None = None,
    progress: Progress = silent,
) -> Context:
    """The store that `settings` name.

    Raises UsageError when Kafka's address is not known, LogUnreachable, SetupError without a store.
    """
    bootstrap = need_bootstrap(settings)
    registry = Registry(bootstrap)
    definitions = registry.read()
    storage = Storage(storage_url(settings.storage, definitions.known_storage(), settings.data_dir))
    return Context(
        bootstrap, registry, definitions, storage, progress, engines or Engines(), task_bytes=settings.task_bytes
    )


def new_id() -> str:
    """A job's name: 8 hex digits."""
    return secrets.token_hex(4)


class Clock:
    """Seconds that each step took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a step; one of the same name adds up."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
