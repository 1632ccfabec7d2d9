"""Detached start: `logstore dev` in the background, and what it says until it is ready.

Its log is <data>/logs/node.log from then on, bounded; what it says besides is in <data>/logs/dev.err.
"""

import select
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import click
import httpx
import orjson

from logstore.model.errors import SetupError
from logstore.node import node_page
from logstore.process import child, environment
from logstore.process.private_files import private_dir
from logstore.process.running_node import lock_of, running_on

START_S = 1_200.0  # the first start fetches Kafka
LOOK_S = 0.1
PAGE_S = 2.0


def start(data_dir: Path, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of the node on `data_dir`, started with these options if none runs, as soon as it is ready.

    Raises SetupError when it does not get ready.
    """
    deadline_s = time.monotonic() + START_S
    logs_dir = data_dir / "logs"
    try:
        if lock_of(data_dir).holder() is not None:
            return _running(data_dir, deadline_s)
        private_dir(logs_dir)
        with (logs_dir / "dev.err").open("wb") as err, (logs_dir / "node.log").open("ab"):
            argv = [
                *child.python("logstore.cli.main"),
                "dev",
                *arguments(flags),
                "--log-file",
                str(logs_dir / "node.log"),
            ]
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, start_new_session=True,
                env=environment.for_python(),
            )  # fmt: skip
    except OSError as error:
        raise SetupError(f"cannot write {logs_dir}: {error.strerror}; choose another --data-dir") from error
    try:
        return _started(process, [_Growing(logs_dir / "dev.err"), _Growing(logs_dir / "node.log")], deadline_s)
    except BaseException:  # Ctrl-C too: what is not ready does not stay behind
        process.terminate()
        raise


def arguments(flags: Mapping[str, Any]) -> list[str]:
    """Command-line arguments that give these options."""
    found: list[str] = []
    for name, value in flags.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            found.append(option)
        elif value is not None and value is not False:
            found += [text for one in (value if isinstance(value, tuple) else (value,)) for text in (option, str(one))]
    return found


def _started(process: "subprocess.Popen[bytes]", tails: list["_Growing"], deadline_s: float) -> dict[str, Any]:
    assert process.stdout is not None
    with process.stdout as ready:
        while not select.select([ready], [], [], LOOK_S)[0]:
            for tail in tails:
                tail.show()
            if time.monotonic() > deadline_s:
                raise SetupError(f"the store is not ready after {START_S:g} s and is ended; its log is {tails[1].path}")
        line = ready.readline()
    if line:
        facts: dict[str, Any] = orjson.loads(line)
        return facts
    status = process.wait(PAGE_S * 10)
    for tail in tails:
        tail.show()
    raise SetupError(f"the store did not start (exit status {status}); what it said is above and in {tails[0].path}")


def _running(data_dir: Path, deadline_s: float) -> dict[str, Any]:
    """Facts of the node that somebody else has started."""
    while (record := running_on(data_dir)) is None or not _is_ready(record["url"]):
        if lock_of(data_dir).holder() is None:
            raise SetupError(f"the node that was starting on {data_dir} has ended; try again")
        if time.monotonic() > deadline_s:
            raise SetupError(f"the node that runs on {data_dir} does not get ready; `logstore status --check` says why")
        time.sleep(LOOK_S)
    pids = {name: record[name] for name in ("node", "kafka", "workers", "readers")}
    return {
        "ready": True, "bootstrap": record["bootstrap"], "http": record["url"], "data_dir": str(data_dir),
        "node_id": record["node_id"], "pids": pids, "kafka_config": record["kafka_config"],
    }  # fmt: skip


def _is_ready(url: str) -> bool:
    try:
        return node_page.ask(f"{url}/readyz", PAGE_S).status_code == 200
    except httpx.HTTPError:
        return False


class _Growing:
    """A file to which another process appends; what is new since the beginning is shown on stderr."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] = path.open("rb")
        self._file.seek(0, 2)

    def show(self) -> None:
        """Show what has come since."""
        click.echo(self._file.read(), err=True, nl=False)
