"""`logstore batch` in a process that runs one command after another, so that Java starts once where Spark is used."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from support_store import cli

SERVE = """
import io, json, os, sys
from logstore.cli.main import main
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # nothing else, Java neither, writes where the answers go
for line in sys.stdin:
    sys.stdout, sys.stderr = kept = [io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2)]
    try:
        main(json.loads(line))
    except SystemExit as ended:
        status = ended.code
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    answers.write(json.dumps([status, *(text.buffer.getvalue().decode() for text in kept)]) + "\\n")
    answers.flush()
"""
ENGINES = {"local": ("--engine", "local"), "spark": ("--engine", "spark", "--conf", "spark.driver.memory=512m")}


class Done(NamedTuple):
    """A command that ended."""

    status: int
    stdout: str
    stderr: str


class Commands:
    """Runs commands against the store of a data directory: in one process, or each in its own, as a user does."""

    def __init__(self, data_dir: Path, engine: str, process: "subprocess.Popen[str] | None") -> None:
        self._data_dir, self._options, self._process = data_dir, ENGINES[engine], process

    def __call__(self, *arguments: str, status: int = 0) -> str:
        """What it prints; it must end with this status."""
        argv = ["batch", *arguments, *self._options]
        done = self._alone(argv) if self._process is None else self._told(self._process, argv)
        assert done.status == status, done.stderr
        return done.stdout

    def json(self, *arguments: str, status: int = 0) -> dict[str, Any]:
        """The JSON that it prints."""
        found: dict[str, Any] = json.loads(self(*arguments, "--json", status=status))
        return found

    def _alone(self, argv: list[str]) -> Done:
        done = cli(*argv, check=False, LOGSTORE_DATA_DIR=str(self._data_dir))
        return Done(done.returncode, done.stdout, done.stderr)

    def _told(self, process: "subprocess.Popen[str]", argv: list[str]) -> Done:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(argv) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, f"it ended instead of running {argv}"
        return Done(*json.loads(line))


@contextmanager
def commands(data_dir: Path, how: str, engine: str = "local") -> Iterator[Commands]:
    """Commands that are run in `how` many processes: "one", or one "each"."""
    if how == "each":
        yield Commands(data_dir, engine, None)
        return
    env = {**os.environ, "LOGSTORE_DATA_DIR": str(data_dir)}
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        try:
            yield Commands(data_dir, engine, process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(60)
            finally:
                process.kill()
