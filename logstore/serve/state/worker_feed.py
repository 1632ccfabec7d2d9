"""Worker feed: the records of one worker of this node, also those from before it went away."""

import logging
import time
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import orjson

from logstore.view import paths

ViewKey = tuple[str, str, int]  # table, epoch, partition
GRACE_S = 5.0  # a returned worker opens its views within this time

log = logging.getLogger(__name__)


class WorkerFeed:
    """The dictionary of one worker. `values` holds the plain keys, `views` the partitions it serves."""

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.connected = False
        self.heard = False  # its feed has named the tables since this reader started
        self.values: dict[str, Any] = {}
        self.views: dict[ViewKey, dict[str, Any]] = {}
        self.spoken: set[ViewKey] = set()  # views it has spoken of since the catalog last looked
        self._former: dict[ViewKey, dict[str, Any]] = {}
        self._speaking_since: float | None = None

    def begin(self) -> None:
        """The feed is there (again): its records of views are remembered until there are new ones."""
        self._former = {**self._former, **self.views}
        self.views, self.connected, self._speaking_since = {}, True, None

    def end(self) -> None:
        """The feed broke off: its last records stay known."""
        self.connected = False

    def hear(self, key: Hashable, value: Any) -> bool:
        """Take one change in; True when tables, nodes or views may have changed by it."""
        match key:
            case ("applied", _, _) | ("snapshot", _, _, _) | ("ends",):
                return False
            case ("view", str(table), str(epoch), int(partition)):
                self._hear_view((table, epoch, partition), value)
            case str():
                self._hear_plain(key, value)
        return True

    def _hear_view(self, key: ViewKey, value: Any) -> None:
        self._speaking_since = self._speaking_since or time.monotonic()
        self._former.pop(key, None)
        self.spoken.add(key)
        if value is None:
            self.views.pop(key, None)
        else:
            self.views[key] = value

    def _hear_plain(self, key: str, value: Any) -> None:
        self.heard = self.heard or key == "tables"
        if value is not None:
            self.values[key] = value

    def remembered(self, elsewhere: frozenset[int]) -> dict[ViewKey, dict[str, Any]]:
        """The views it served before it went away and has not spoken of since.

        Forgotten GRACE_S after it began to name views again; not counted where another node serves the slot by now
        (`elsewhere`).
        """
        if self.connected and self._speaking_since is not None and time.monotonic() - self._speaking_since > GRACE_S:
            self._former = {}
        former = self._former if self.connected else {**self._former, **self.views}
        return {key: record for key, record in former.items() if record["slot"] not in elsewhere}

    def recall(self, data_dir: Path) -> bool:
        """Take over what the worker left on disk for a reader that starts without it; True when there was something."""
        try:
            left = orjson.loads(paths.served_path(data_dir, self.worker).read_bytes())
            self.values = {"tables": left["tables"], "nodes": left.get("nodes", [])}
            self.views = {(table, epoch, partition): record for table, epoch, partition, record in left["views"]}
        except FileNotFoundError:  # it has never served anything
            return False
        except (ValueError, KeyError, TypeError) as error:  # torn by a crash: the feed tells it all once it is there
            log.warning("what worker %d left on disk cannot be read: %s", self.worker, error)
            return False
        return True
