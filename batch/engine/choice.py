"""Choice of an engine: Spark where a job is large or Spark was asked for, else the pool of this machine.

Starting Spark takes longer than a small job does; one machine is not enough for a large one.
"""

import logging
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import NamedTuple

from batch.defaults import AUTO, LOCAL, MASTER, PROCESSES, SPARK
from batch.engine.local import LocalEngine
from batch.engine.protocol import Engine
from logstore.extras import needing
from logstore.model.errors import UsageError
from logstore.settings import LOCAL_MB, LOCAL_RECORDS

log = logging.getLogger(__name__)


class JobSize(NamedTuple):
    """Records and bytes that a job reads: those of the log and the archive, and the entries of what it continues."""

    records: int = 0
    size_bytes: int = 0


MOST = JobSize(LOCAL_RECORDS, LOCAL_MB << 20)


@dataclass
class Engines:
    """Engines of a command, each started at its first use and kept for all its jobs.

    `master` or `conf` of Spark say that Spark is meant.
    """

    wanted: str = AUTO
    master: str | None = None
    conf: dict[str, str] = field(default_factory=dict)
    processes: int = PROCESSES
    most: JobSize = MOST  # of a job that `auto` gives to this machine's pool
    made: dict[str, Engine] = field(default_factory=dict)  # by name

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other. Raises UsageError."""
        if self.wanted == LOCAL and (self.master or self.conf):
            raise UsageError("--master and --conf are Spark's; leave them out, or leave --engine local out")

    def take(self, size: JobSize) -> Engine:
        """The engine for a job. Raises SetupError where Spark is wanted and not installed."""
        name = self.name_for(size)
        if name not in self.made:
            log.debug("engine %s begins, for a job of %d records and those after it", name, size.records)
            self.made[name] = LocalEngine(self.processes) if name == LOCAL else self._spark()
        return self.made[name]

    def name_for(self, size: JobSize) -> str:
        """The name of the engine for a job."""
        if self.wanted != AUTO:
            return self.wanted
        if self.master or self.conf or SPARK in self.made:  # one that runs costs nothing more
            return SPARK
        if size.records <= self.most.records and size.size_bytes <= self.most.size_bytes:
            return LOCAL
        if find_spec("pyspark") is None:
            log.warning("a job of %d records runs in one machine's processes: Spark is not installed", size.records)
            return LOCAL
        return SPARK

    def close(self) -> None:
        """End every engine."""
        for engine in self.made.values():
            engine.close()

    def _spark(self) -> Engine:
        with needing("batch"):
            from batch.engine.spark import SparkEngine  # noqa: PLC0415 - only who needs it waits for its import
        return SparkEngine(self.master or MASTER, self.conf)
