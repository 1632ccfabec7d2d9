"""Running: `logstore dev` as a child process, the way a user starts it, but isolated from the user's settings.

It is on a leash (see `logstore.log.leash`): however this process ends, the store ends too, and its children with it.
"""

import os
import select
import signal
import subprocess
import sysconfig
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from logstore.log import leash
from logstore.model.errors import LogStoreError, SetupError

READY_S = 600.0  # the first start on a machine downloads Kafka
STOP_S = 60.0


class Dev:
    """A store of its own in `data_dir`; use as a context manager: leaving stops it."""

    def __init__(self, data_dir: Path) -> None:
        """Start it; `ready` waits. Raises SetupError when the package is not installed. Requires: the main thread."""
        self._log, self._stopped = data_dir / "dev.log", False
        data_dir.mkdir(parents=True, exist_ok=True)
        config = data_dir / "logstore.toml"
        config.touch()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGSTORE_") or name == "LOGSTORE_CACHE"}
        argv = [str(_program()), "dev", "--data-dir", str(data_dir / "store"), "--http", "127.0.0.1:0"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                leash.command(argv, signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**environment, "LOGSTORE_CONFIG": str(config)},
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the store in order
            )

    def ready(self, seconds: float = READY_S) -> dict[str, Any]:
        """What the store says of itself when it is ready. Raises LogStoreError with the end of its log when it does not get there."""
        assert self._process.stdout is not None, "a pipe was asked for"
        descriptor, line, deadline = self._process.stdout.fileno(), b"", time.monotonic() + seconds
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(descriptor, 65_536) if readable else b""
            if not piece:
                raise LogStoreError(f"`logstore dev` did not start; the end of its log:\n{self._log.read_text()[-2_000:]}")
            line += piece
        facts: dict[str, Any] = orjson.loads(line)
        return facts

    def stop(self) -> None:
        """End it in order, with SIGKILL if it takes too long; again: nothing. Raises LogStoreError when it did not end well."""
        if self._stopped:
            return
        self._stopped = True
        try:
            self._process.terminate()
            status = self._process.wait(STOP_S)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
        if status != 0:
            raise LogStoreError(f"`logstore dev` ended with status {status}; the end of its log:\n{self._log.read_text()[-2_000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.stop()
        except LogStoreError:
            if error is None:  # else it has been said what went wrong
                raise


def _program() -> Path:
    program = Path(sysconfig.get_path("scripts")) / "logstore"
    if not program.exists():
        raise SetupError(f"there is no {program}: install the package first (`make .venv`)")
    return program
