"""One Spark session for all tests of what Spark does with batch jobs."""

import functools
import subprocess
from pathlib import Path

import support_jobs
from pyspark.sql import SparkSession

from batch.context import Context
from batch.defaults import SPARK
from batch.engine.choice import Engines
from batch.engine.spark import SparkEngine
from logstore.model.table import Table

MASTER = "local[2,4]"
CONF = {"spark.driver.memory": "512m", "spark.sql.shuffle.partitions": "2"}


@functools.cache
def engine() -> SparkEngine:
    """The engine that tests share."""
    return SparkEngine(MASTER, CONF)


def spark() -> SparkSession:
    """Its session: starting one takes some five seconds."""
    return engine().session


def context(bootstrap: str, directory: Path) -> Context:
    """A batch context on a broker, with storage under `directory` and the shared session."""
    made = support_jobs.context(bootstrap, directory)
    made.engines = Engines(SPARK, made={SPARK: engine()})
    return made


def drive(
    ctx: Context, table: Table, job: str, master: str = MASTER, conf: dict[str, str] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a job in a process and a JVM of its own, which may be told to die."""
    engines = {"wanted": SPARK, "master": master, "conf": {"spark.driver.memory": "512m", **(conf or {})}}
    return support_jobs.drive(ctx, table, job, engines, **environment)
