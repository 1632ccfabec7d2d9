"""Node directory: a node's files beside its views, and the lock of the node that may use it.

<data>/node.lock         locked (flock) by the supervisor for as long as it lives; its text is the supervisor's pid.
                         Without a supervisor, shared by workers and readers of their own (`single`)
      /node_id           12 hex digits, made once: the node's name among the others
      /store.json        which store the views belong to: id of `logstore.tables`, and how far it was read
      /run/node.json     process ids and addresses, while the node runs
          /reader-0.lock locked by a process of its own, so that there is one of each name
      /logs/             output of the child processes, bounded
"""

import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from logstore.log import topics
from logstore.log.kafka import offsets
from logstore.log.tables.registry import Registry
from logstore.model.errors import EpochChanged, LogTruncated, SetupError
from logstore.model.safe_path import below
from logstore.model.table import TABLES_TOPIC
from logstore.process.dir_lock import DirLock
from logstore.process.durable import write_whole
from logstore.process.running_node import lock_of, record_of, running_on
from logstore.view.feed.fields import UnreadableRecord
from logstore.view.served import Served

log = logging.getLogger(__name__)

_SHARED = "shared"  # first word of the lock's text, where its holders are several
_NODE_ID = re.compile(r"[0-9a-f]{12}")


class NodeDir:
    """The data directory at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock, self._run_file = lock_of(self.path), record_of(self.path)
        self._store_file = self.path / "store.json"
        self._written: object = None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory. Raises SetupError when another node does, or when it cannot be written."""
        with self._lock.hold(self._in_use) as fd:
            self._lock.write(fd, str(os.getpid()))
            with _writing(self._run_file):
                self._run_file.parent.mkdir(exist_ok=True)
                self._run_file.unlink(missing_ok=True)
            yield

    @contextmanager
    def share(self, name: str, begin: Callable[[], object]) -> Iterator[tuple[int, int]]:
        """Hold the directory together with other processes of their own, as the one called `name` ("worker-0").

        Yields the descriptors of both locks. `begin` is called where no other process runs. Raises SetupError when a
        node does, or a process of this name, or one that sees other process ids: LMDB knows its readers by them.
        """

        def first() -> None:
            with _writing(self._run_file):
                self._run_file.parent.mkdir(exist_ok=True)
                self._run_file.unlink(missing_ok=True)
            self.node_id()
            begin()

        namespace = os.stat("/proc/self/ns/pid").st_ino
        with self._lock.share(f"{_SHARED} {namespace}", self._in_use, first) as shared, self.lock_of(name).hold(
            lambda pid: f"{name} runs on {self.path} already (process {pid}); give this one another --index"
        ) as own:  # fmt: skip
            self.lock_of(name).write(own, str(os.getpid()))
            yield shared, own

    def lock_of(self, name: str) -> DirLock:
        """Lock of a process of its own."""
        return DirLock(below(self._run_file.parent, f"{name}.lock"))

    def singles(self) -> set[int]:
        """Process ids of the processes of their own that run."""
        holders = (DirLock(path).holder() for path in self._run_file.parent.glob("*.lock"))
        return {int(pid) for pid in holders if pid is not None and pid.isdigit()}

    def _in_use(self, text: str) -> str:
        word, _, rest = text.partition(" ")
        if word != _SHARED:
            return f"a node runs on {self.path} already (process {word}); stop it, or choose another --data-dir"
        if rest in ("", str(os.stat("/proc/self/ns/pid").st_ino)):
            return f"a worker or reader of its own runs on {self.path}; stop it, or choose another --data-dir"
        return (
            f"the processes on {self.path} see other process ids than this one, by which LMDB knows its readers: give "
            "their containers one namespace of process ids (--pid container:NAME)"
        )

    def node_id(self) -> str:
        """The node's name, made at the first call, and when it is damaged.

        Nodes of one name would take each other for one.

        Requires: the lock is held. Raises SetupError.
        """
        path = self.path / "node_id"
        found = path.read_bytes().decode(errors="replace").strip() if path.exists() else None
        if found is not None and _NODE_ID.fullmatch(found):
            return found
        made = secrets.token_hex(6)
        if found is not None:
            log.warning("%s is damaged: this node, whoever it was, is %s from now on", path, made)
        _write(path, made.encode())
        return made

    def record(self, facts: dict[str, Any]) -> None:
        """Write process ids and addresses where they differ from what was written last.

        Raises SetupError, on a full disk.
        """
        if facts != self._written:
            _write(self._run_file, orjson.dumps(facts))
            self._written = facts

    def unrecord(self) -> None:
        """The node does not run any more."""
        self._run_file.unlink(missing_ok=True)

    def running(self) -> dict[str, Any] | None:
        """Record of the node that runs on this directory; None when none runs, or it is only starting."""
        return running_on(self.path)

    def check_store(self, registry: Registry) -> None:
        """Make sure that Kafka still holds the store whose views lie here, and note how far it goes.

        Raises EpochChanged, LogTruncated: tables would silently be others, or missing.
        """
        known = self._known()
        topic_id = topics.epoch_of(registry.admin, TABLES_TOPIC)
        end = offsets.bounds(registry.admin, TABLES_TOPIC, [0])[0].end
        if known is not None and known["topic_id"] != topic_id:
            raise EpochChanged(
                f"the views of {self.path} belong to another store: {TABLES_TOPIC} on {registry.bootstrap} was created "
                "again, or this is "
                "another Kafka; give the right --bootstrap, or begin anew with another --data-dir"
            )
        if known is not None and end < known["revision"]:
            raise LogTruncated(
                f"{TABLES_TOPIC} on {registry.bootstrap} ends at {end:,}, this node has read up to "
                f"{known['revision']:,}: definitions "
                "of tables are lost; restore the topic, or begin anew with another --data-dir"
            )
        _write(self._store_file, orjson.dumps({"topic_id": topic_id, "revision": end}))

    def has_served(self) -> bool:
        """True when a worker that ran here left what it served: readers answer from that without Kafka."""
        return any(_left(path) is not None for path in (self.path / "workers").glob("*.json"))

    def _known(self) -> dict[str, Any] | None:
        """The store as last seen, by a supervisor or by a worker since."""
        found = [_load(self._store_file)] if self._store_file.exists() else []
        found += [left for path in sorted((self.path / "workers").glob("*.json")) if (left := _left(path)) is not None]
        if not found:
            return None
        return {"topic_id": found[0]["topic_id"], "revision": max(each["revision"] for each in found)}


def _load(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = orjson.loads(path.read_bytes())
        return found
    except ValueError as error:
        raise SetupError(
            f"{path} is damaged ({error}); remove it if the data directory belongs to this Kafka"
        ) from error


def _left(path: Path) -> dict[str, Any] | None:
    """State of the store as a worker last knew it.

    Its topic and how far it was read. None when that is damaged: the worker writes it again.
    """
    try:
        tables = Served.decode(path.read_bytes()).tables
    except (OSError, UnreadableRecord) as error:
        log.warning("%s is damaged and counts for nothing: %s", path, error)
        return None
    if tables.topic_id is None or tables.revision < 0:
        log.warning("%s does not say which store it is of, and counts for nothing", path)
        return None
    return {"topic_id": tables.topic_id, "revision": tables.revision}


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all. Raises SetupError."""
    with _writing(path):
        write_whole(path, content)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SetupError(
            f"cannot write {path}: {error.strerror}; free some space, or choose another --data-dir"
        ) from error
