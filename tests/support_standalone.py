"""A standalone Spark cluster on loopback: one master and two workers, each a process of its own."""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyspark
from support_jobs import ROOT
from support_wait import until

from batch.session import java_home
from logstore.process import child

HOME = Path(pyspark.__file__).parent
EXECUTORS_NEED = ("__init__.py", "settings.py", "model", "process", "log", "snapshot")
_LOG4J = """rootLogger.level = info
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %m%n
"""


def library(directory: Path) -> Path:
    """A zip of what executors need of this project."""
    path = directory / "logstore.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for part in EXECUTORS_NEED:
            for file in sorted(Path(ROOT, "logstore").glob(f"{part}/**/*.py" if "." not in part else part)):
                archive.write(file, file.relative_to(ROOT))
    return path


def bare_python(directory: Path) -> Path:
    """A Python with the libraries of this one, and without this project on its path."""
    path = directory / "python"
    purelib = sysconfig.get_path("purelib")
    path.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{purelib}" exec {sys.executable} -S "$@"\n')
    path.chmod(0o755)  # -S: without the .pth file that puts this project on the path
    return path


@contextmanager
def standalone(directory: Path, workers: int = 2) -> Iterator[str]:
    """The URL of a master to which so many workers of one core have registered; all are ended with the block."""
    directory.mkdir()
    (directory / "log4j2.properties").write_text(_LOG4J)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        logs = [_start(processes, directory, "master", "Master")]
        url = _until(logs[0], r"Starting Spark master at (spark://127\.0\.0\.1:\d+)")
        for number in range(workers):
            options = ("--cores", "1", "--memory", "1g", "--work-dir", str(directory / f"work-{number}"), url)
            logs.append(_start(processes, directory, f"worker-{number}", "Worker", *options))
        for log in logs[1:]:
            _until(log, rf"Successfully registered with master ({re.escape(url)})")
        yield url
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait(90)


def _start(processes: list[subprocess.Popen[bytes]], directory: Path, name: str, role: str, *options: str) -> Path:
    """Start a master or worker; returns its log."""
    home = java_home()
    main = f"org.apache.spark.deploy.{role.lower()}.{role}"
    quiet = f"-Dlog4j2.configurationFile={(directory / 'log4j2.properties').as_uri()}"
    where = ("--host", "127.0.0.1", "--port", "0", "--webui-port", "0")
    argv = [str(home / "bin" / "java"), "-Xmx128m", quiet, "-cp", f"{HOME}/jars/*", main, *where, *options]
    env = {**os.environ, "JAVA_HOME": str(home), "SPARK_HOME": str(HOME), "SPARK_LOCAL_IP": "127.0.0.1"}
    env["SPARK_SCALA_VERSION"] = next(HOME.glob("jars/spark-core_*.jar")).name.split("_")[1].split("-")[0]
    env.pop("PYTHONPATH", None)
    log = directory / f"{name}.log"
    with log.open("wb") as output:
        processes.append(child.spawn(argv, output=output, env=env, cwd=directory))
    return log


def _until(log: Path, pattern: str) -> str:
    found = until(f"{log.name} says {pattern}", lambda: re.search(pattern, log.read_text(errors="replace")))
    return found[1]
