"""Running: the `logstore` command as a child process, the way a user starts it, but isolated from the user's settings.

It is a `logstore.process.child`: however this process ends, the store ends too, and its children with
it.
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

from logstore.model.errors import LogStoreError, SetupError
from logstore.process import child

READY_S = 600.0  # the first start on a machine downloads Kafka
STOP_S = 60.0
CALL_S = 600.0
STORE = "store"  # the data directory of a `Dev`, below its own


class RunningStore:
    """A command that runs until it is stopped; use as a context manager: leaving stops it."""

    def __init__(self, data_dir: Path, *words: str) -> None:
        """Start `logstore WORDS`.

        `ready` waits. Raises SetupError when the package is not installed. Requires: the main thread.
        """
        self._name, self._log, self._stopped = f"`logstore {words[0]}`", data_dir / f"{words[0]}.log", False
        data_dir.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command(*words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(data_dir),
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the store in order
            )

    def ready(self, seconds: float = READY_S) -> dict[str, Any]:
        """What the store says of itself when it is ready.

        Raises LogStoreError with the end of its log when it does not get there.
        """
        assert self._process.stdout is not None, "a pipe was asked for"
        descriptor, line, deadline = self._process.stdout.fileno(), b"", time.monotonic() + seconds
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(descriptor, 65_536) if readable else b""
            if not piece:
                raise LogStoreError(
                    f"{self._name} did not start; the end of its log:\n{self._log.read_text()[-2_000:]}"
                )
            line += piece
        facts: dict[str, Any] = orjson.loads(line)
        return facts

    def stop(self) -> None:
        """End it in order, with SIGKILL if it takes too long.

        Again: nothing. Raises LogStoreError when it did not end well.
        """
        if self._stopped:
            return
        self._stopped = True
        try:
            self._process.terminate()
            status = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired as error:
            raise LogStoreError(f"{self._name} did not end within {STOP_S:g} s and was killed") from error
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
        if status != 0:
            raise LogStoreError(
                f"{self._name} ended with status {status}; the end of its log:\n{self._log.read_text()[-2_000:]}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except LogStoreError:
            if error is None:  # else it has been said what went wrong
                raise


class Dev(RunningStore):
    """A store of its own in `data_dir`: Kafka, a worker, readers."""

    def __init__(self, data_dir: Path) -> None:
        """Start it, as `RunningStore` does."""
        super().__init__(data_dir, "dev", "--data-dir", str(data_dir / STORE), "--http", "127.0.0.1:0")


def command(*words: str) -> list[str]:
    """`logstore WORDS`, ended with this process. Raises SetupError when the package is not installed."""
    return child.command([str(_program()), *words], signal.SIGTERM)


def environment(data_dir: Path) -> dict[str, str]:
    """This process's, without what a user's settings would change; `data_dir` gets an empty settings file."""
    config = data_dir / "logstore.toml"
    config.touch()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LOGSTORE_") or name == "LOGSTORE_CACHE"
    }
    return {**kept, "LOGSTORE_CONFIG": str(config)}


def call(data_dir: Path, *words: str, seconds: float = CALL_S) -> dict[str, Any]:
    """Run `logstore WORDS --json` to its end; what it says. Safe from any thread that waits for it.

    Raises LogStoreError when it fails or takes too long.
    """
    with subprocess.Popen(
        command(*words, "--json"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(data_dir),
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise LogStoreError(f"`logstore {' '.join(words)}` did not end within {seconds:g} s") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # Spark's Java too
    if process.returncode != 0:
        raise LogStoreError(
            f"`logstore {' '.join(words)}` ended with status {process.returncode}: {errors.decode()[-2_000:]}"
        )
    said: dict[str, Any] = orjson.loads(output)
    return said


def _program() -> Path:
    program = Path(sysconfig.get_path("scripts")) / "logstore"
    if not program.exists():
        raise SetupError(f"there is no {program}: install the package first (`make .venv`)")
    return program
