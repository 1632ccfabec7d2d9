"""A real `logstore dev`, and the command called against it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson


class Dev:
    """A running `logstore dev`, and a way to call the command against it."""

    COMMAND: tuple[str, ...] = ("dev", "--kafka-heap-mb", "256")

    def __init__(self, data: Path, *more: str) -> None:
        self.data, self._err = data, data.with_suffix(".err")
        argv = [
            sys.executable,
            "-m",
            "logstore.cli.main",
            *self.COMMAND,
            "--data-dir",
            str(data),
            "--http",
            "127.0.0.1:0",
        ]
        self.began_s = time.monotonic()
        with self._err.open("wb") as err:
            self.process = subprocess.Popen([*argv, *more], stdout=subprocess.PIPE, stderr=err)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.stderr
        self.ready_s = time.monotonic() - self.began_s
        self.facts: dict[str, Any] = orjson.loads(line)

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def __call__(self, *argv: str, stdin: bytes = b"", status: int = 0) -> subprocess.CompletedProcess[bytes]:
        done = call(
            *argv,
            stdin=stdin,
            LOGSTORE_BOOTSTRAP=self.facts["bootstrap"],
            LOGSTORE_URL=self.facts["http"],
            LOGSTORE_DEADLINE_MS="30000",
        )
        assert done.returncode == status, (argv, done.returncode, done.stderr.decode())
        assert b"Traceback" not in done.stderr
        return done

    def json(self, *argv: str, **more: Any) -> Any:
        return orjson.loads(self(*argv, "--json", **more).stdout)

    def pids(self) -> dict[str, Any]:
        return orjson.loads((self.data / "run" / "node.json").read_bytes())

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()


class Node(Dev):
    """A running `logstore node`, on a Kafka that is there."""

    COMMAND = ("node",)


def call(*argv: str, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "logstore.cli.main", *argv],
        input=stdin,
        capture_output=True,
        timeout=180,
        check=False,
        env=os.environ | environ,
    )
