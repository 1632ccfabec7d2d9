"""Spark engine: tasks are placed and retried by Spark, on this machine or on a cluster."""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TypeVar

from py4j.protocol import Py4JError  # type: ignore[import-untyped]  # untyped library
from pyspark import TaskContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from batch import session
from batch.defaults import MASTER, SPARK
from batch.engine.protocol import Saw, attempt, result
from logstore.model.errors import LogStoreError, SetupError

T = TypeVar("T")
R = TypeVar("R")


class SparkEngine:
    """Tasks of one Spark session, which is started at the first use (some seconds)."""

    name = SPARK

    def __init__(self, master: str = MASTER, conf: dict[str, str] | None = None) -> None:
        self.master, self.conf = master, dict(conf or {})

    @cached_property
    def session(self) -> SparkSession:
        """The session. Raises UsageError, SetupError."""
        try:
            return session.session(self.master, **self.conf)
        except (Py4JError, PySparkException) as error:
            raise SetupError(
                f"Spark does not start at {self.master}: {_cause(error)}; the logs of its master and workers say more"
            ) from error

    def start(self) -> None:
        """Start the session. Raises UsageError, SetupError."""
        _ = self.session

    def run(self, step: str, function: Callable[[T], R], items: Sequence[T], saw: Saw) -> list[R]:
        """Run on executors; raises as every engine."""
        work = self.session.sparkContext.parallelize(items, len(items)).mapPartitions(_guarded(function))
        try:
            found = work.collect()
        except (Py4JError, PySparkException) as error:
            raise LogStoreError(f"{step}: Spark gave up: {_cause(error)}") from error
        saw(len(items))
        return [result(one) for one in found]

    def remote_places(self) -> int:
        """Count of the executors' cores, as many as are known by now; 0 where Spark runs on this machine alone."""
        return 0 if self._is_here else int(self.session.sparkContext.defaultParallelism)

    def at_once(self) -> int:
        """Count of this machine's cores that it may use; not known of a cluster, whose executors come and go."""
        return int(self.session.sparkContext.defaultParallelism) if self._is_here else 0

    @property
    def _is_here(self) -> bool:
        return self.master.startswith("local")

    def close(self) -> None:
        """End the session, if one was started."""
        if "session" in self.__dict__:
            self.session.stop()
            del self.__dict__["session"]


def _guarded(function: Callable[[T], R]) -> Callable[[Iterable[T]], Iterator[R | LogStoreError]]:
    """Errors of ours come back as values: as exceptions they would be tried again in vain, and arrive as text."""

    def run(items: Iterable[T]) -> Iterator[R | LogStoreError]:
        if not gc.get_freeze_count():  # else PySpark looks through all modules after every task: 30 ms
            gc.freeze()
        context = TaskContext.get()
        number = context.attemptNumber() + 1 if context is not None else 1
        for item in items:
            yield attempt(function, item, number)

    return run


def _cause(error: Exception) -> str:
    """The last line of a Python trace in Spark's message, else its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [
        line
        for line in lines
        if line.split(":")[0].endswith(("Error", "Exception")) and not line.startswith(("at ", "py4j", "org."))
    ]
    return (named or lines or [type(error).__name__])[0][:500]
