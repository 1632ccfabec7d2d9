"""Single process: one worker or one reader of a node under systemd or in a container, without the node's supervisor.

    1. claim    a share of the data directory, the process's name in it, and for a reader the port
    2. log      for a worker: Kafka answers, the store is there and still the same
    3. become   exec: the program that a supervisor would start; process id and locks stay

All of a node have one data directory and the same settings; these say how many there are, one of each index.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from logstore.log.connect.sources import publish
from logstore.model.errors import UsageError
from logstore.node import port
from logstore.node.child_argv import reader_argv, worker_argv
from logstore.node.found_store import FoundStore
from logstore.node.node_dir import NodeDir
from logstore.process import environment, figures, logs
from logstore.process.heartbeat import Heartbeat
from logstore.process.private_files import private_dir
from logstore.serve.settings import check_bind
from logstore.settings import Settings

log = logs.get(__name__)


def run_worker(settings: Settings, index: int, bootstrap: str) -> NoReturn:
    """Become worker `index` of the node. Requires: the main thread.

    Raises SetupError, EpochChanged, LogTruncated, AccessDenied.
    """
    _check(settings, "worker", index, settings.workers)
    publish(settings.kafka_config)
    with _claimed(settings, f"worker-{index}") as node_dir:
        private_dir(node_dir.path / "logs")  # what a scheduled job says goes there
        heartbeat = Heartbeat(None)
        FoundStore(bootstrap, settings, node_dir, log.warning).wait(heartbeat.beat)
        argv = worker_argv(settings, index, node_dir.node_id(), _url(settings), bootstrap)
        _become(settings, argv, heartbeat.environ)


def run_reader(settings: Settings, index: int) -> NoReturn:
    """Become reader `index` of the node. Requires: the main thread. Raises SetupError."""
    _check(settings, "reader", index, settings.readers)
    check_bind(settings.http.host, insecure=settings.insecure)
    with _claimed(settings, f"reader-{index}") as node_dir:
        port.check_shared(settings.http, node_dir.singles)
        argv = reader_argv(settings, index, node_dir.node_id(), settings.http.port, settings.bootstrap)
        _become(settings, argv, {})


def _check(settings: Settings, kind: str, index: int, count: int) -> None:
    if not 0 <= index < count:
        raise UsageError(f"this node has {count} {kind}s, --index is 0 to {count - 1}; --{kind}s says how many it has")
    if settings.http.port == 0:
        raise UsageError("processes of their own find each other by the port: give --http HOST:PORT, and no port 0")


def _url(settings: Settings) -> str:
    return settings.advertise or settings.http.url


@contextlib.contextmanager
def _claimed(settings: Settings, name: str) -> Iterator[NodeDir]:
    """The data directory, with locks that stay over an exec; a signal meanwhile ends the process in order."""
    node_dir = NodeDir(settings.data_dir)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    with node_dir.share(name, lambda: figures.begin(node_dir.path)) as locks:
        for fd in locks:
            os.set_inheritable(fd, True)
        yield node_dir


def _become(settings: Settings, argv: list[str], environ: dict[str, str]) -> NoReturn:
    said = {logs.FORMAT: settings.log_format, logs.LEVEL: settings.log_level}
    sys.stdout.flush()
    os.execve(argv[0], [*argv, "--say-ready"], environment.for_python() | said | environ)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)
