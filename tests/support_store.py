"""A whole store, as a user starts it: `logstore dev` or `logstore node`, and the means to hurt it."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from support_log import until

from logstore.process import child

LOGSTORE = str(Path(sys.executable).parent / "logstore")  # the command as it is installed


class Running:
    """One `logstore dev` or `logstore node` process and what it said when it was ready."""

    def __init__(self, command: str, data_dir: Path, *options: str, within: Sequence[str] = ()) -> None:
        argv = [*within, LOGSTORE, command, "--data-dir", str(data_dir), *options]
        self.data_dir = data_dir
        self._log = data_dir.with_suffix(".log")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(child.command(argv), stdout=subprocess.PIPE, stderr=log)
        self.facts: dict[str, Any] = {}

    def ready(self) -> "Running":
        """Wait for the line that it prints when it is ready."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log()
        self.facts = orjson.loads(line)
        return self

    @property
    def bootstrap(self) -> str:
        """Kafka's address."""
        return str(self.facts["bootstrap"])

    @property
    def url(self) -> str:
        """Where its readers answer."""
        return str(self.facts["http"])

    def pids(self, kind: str) -> list[int]:
        """Process ids as the supervisor recorded them last."""
        found: list[int] = orjson.loads((self.data_dir / "run" / "node.json").read_bytes())[kind]
        return found

    def kill_one(self, kind: str, number: int = 0) -> None:
        """SIGKILL a worker or reader and wait until the supervisor has started another in its place."""
        before = self.pids(kind)
        if number < len(before):
            with contextlib.suppress(ProcessLookupError):
                os.kill(before[number], signal.SIGKILL)
            until(f"{kind} {before[number]} is replaced", lambda: self._replaced(kind, before, number))

    def _replaced(self, kind: str, before: list[int], number: int) -> bool:
        now = self.pids(kind)
        return before[number] not in now and len(now) >= len(before)

    def kill(self) -> None:
        """SIGKILL the supervisor, which takes everything else with it."""
        self.process.kill()
        self._reap()

    def stop(self) -> int:
        """SIGTERM, and wait; returns the exit status."""
        self.process.terminate()
        return self._reap()

    def ended(self, timeout_s: float) -> int:
        """Wait for it to end by itself; returns the exit status."""
        try:
            return self.process.wait(timeout_s)
        finally:
            self.stop()

    def log(self) -> str:
        """What it and its children said."""
        logs = [self._log, *sorted((self.data_dir / "logs").glob("*.log"))]
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}" for path in logs if path.exists()
        )

    def _reap(self) -> int:
        status = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@contextmanager
def running(command: str, data_dir: Path, *options: str, within: Sequence[str] = ()) -> Iterator[Running]:
    """A store that is ready, ended with the block.

    Its logs are shown when the test fails. `within` goes before the command.
    """
    store = Running(command, data_dir, *options, within=within)
    try:
        yield store.ready()
    finally:
        store.stop()
        print(store.log())


def cli(*arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the `logstore` command."""
    argv = [LOGSTORE, *arguments]
    return subprocess.run(
        argv, capture_output=True, text=True, check=check, timeout=300, env={**os.environ, **environment}
    )


def pasted(text: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What bash does with these lines, for somebody whose home is empty; it ends at the first that fails."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("LOGSTORE_", "XDG_"))}
    path = f"{Path(LOGSTORE).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-e"], input=text, capture_output=True, text=True, timeout=300, check=False, cwd=home,
        env={**plain, "HOME": str(home), "PATH": path, **environment},
    )  # fmt: skip
