"""Context of every batch command: log, definitions and storage, and the way of work to executors."""

import gc
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from py4j.protocol import Py4JError  # type: ignore[import-untyped]  # untyped library
from pyspark import TaskContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from batch import failpoints, session
from batch.defaults import MASTER
from logstore.log.connect.cluster import Cluster
from logstore.log.control import check_epoch
from logstore.log.tables.registry import Definitions, Registry
from logstore.model.errors import LogStoreError, UsageError
from logstore.model.table import Table
from logstore.node.addresses import need_bootstrap
from logstore.settings import Settings
from logstore.snapshot.archive import ArchiveIndex
from logstore.snapshot.repository import Repository
from logstore.snapshot.storage import Storage, storage_url

Progress = Callable[[str, int, int], None]  # step, done, of how many
LEASE_S = 60.0  # a job that was killed keeps others from the table for so long
TRIES = 3  # of a task that fails for a passing reason; Spark itself gives up after 4

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
    master: str = MASTER
    spark_conf: dict[str, str] = field(default_factory=dict)
    lease_s: float = LEASE_S

    def __post_init__(self) -> None:
        if Cluster.of(self.bootstrap) != Cluster.of(str(self.bootstrap)):
            raise UsageError(
                "Spark's executors are told Kafka's address alone, and would not be answered: give its properties by "
                "LOGSTORE_KAFKA_CONFIG, a file that executors have too"
            )
        failpoints.warn()

    @cached_property
    def spark(self) -> SparkSession:
        """The session, started at the first use (some seconds)."""
        return session.session(self.master, **self.spark_conf)

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
        """Run `function` over `items` on executors, one task each; results in order.

        Raises what the function raised, where that is a LogStoreError; those that are `retriable` are tried again
        first.
        """
        if not items:
            return []
        spark_context = self.spark.sparkContext
        self.progress(step, 0, len(items))
        work = spark_context.parallelize(items, len(items)).mapPartitions(_guarded(function))
        try:
            found = work.collect()
        except (Py4JError, PySparkException) as error:
            raise LogStoreError(f"{step}: Spark gave up: {_cause(error)}") from error
        self.progress(step, len(items), len(items))
        return [_result(result) for result in found]

    def close(self) -> None:
        """End the session, if one was started."""
        if "spark" in self.__dict__:
            self.spark.stop()
            del self.__dict__["spark"]


def open_context(
    settings: Settings,
    *,
    master: str = MASTER,
    conf: dict[str, str] | None = None,
    progress: Progress = silent,
) -> Context:
    """The store that `settings` name.

    Raises UsageError when Kafka's address is not known, LogUnreachable, SetupError without a store.
    """
    bootstrap = need_bootstrap(settings)
    registry = Registry(bootstrap)
    definitions = registry.read()
    storage = Storage(storage_url(settings.storage, definitions.known_storage(), settings.data_dir))
    return Context(bootstrap, registry, definitions, storage, progress, master, dict(conf or {}))


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


def _guarded(function: Callable[[T], R]) -> Callable[[Iterable[T]], Iterator[R | LogStoreError]]:
    """Errors of ours come back as values: as exceptions they would be tried again in vain, and arrive as text."""

    def run(items: Iterable[T]) -> Iterator[R | LogStoreError]:
        if (
            not gc.get_freeze_count()
        ):  # PySpark collects garbage after every task: 30 ms, if it has to look through all modules again
            gc.freeze()
        for item in items:
            try:
                yield function(item)
            except LogStoreError as error:
                context = TaskContext.get()
                if error.retriable and context is not None and context.attemptNumber() + 1 < TRIES:
                    raise
                yield error

    return run


def _result(found: R | LogStoreError) -> R:
    if isinstance(found, LogStoreError):
        raise found
    return found


def _cause(error: Exception) -> str:
    """The last line of a Python trace in Spark's message, else its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [
        line
        for line in lines
        if line.split(":")[0].endswith(("Error", "Exception")) and not line.startswith(("at ", "py4j", "org."))
    ]
    return (named or lines or [type(error).__name__])[0][:500]
