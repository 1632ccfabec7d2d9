"""Served state of a worker, on disk for readers that start without it, and for itself after a restart."""

import logging
from pathlib import Path
from typing import Any

import orjson

from logstore.view.paths import write_whole

log = logging.getLogger(__name__)

_PARTS = {"tables", "nodes", "slots", "views"}


class ServedState:
    """The file at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: object = None
        self._complaint = ""

    def load(self) -> dict[str, Any] | None:
        """Served state as of the worker's last run.

        Tables, nodes, slots and views; None when there is nothing, or it is damaged.
        """
        try:
            found = orjson.loads(self._path.read_bytes())
            if isinstance(found, dict) and found.keys() >= _PARTS:
                return found
            why = "it lacks what a worker writes"
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            why = str(error)
        log.warning("%s is damaged: %s; the worker begins without what it served before", self._path, why)
        return None

    def slots(self) -> list[int]:
        """The slots that this worker followed when it last ran."""
        found = self.load()
        return found["slots"] if found else []

    def keep(self, served: dict[str, Any]) -> None:
        """Write it down when more of it than "nodes" has changed.

        A full disk ends no worker: the next call tries again.
        """
        kept = {**served, "nodes": None}
        if kept == self._kept:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, orjson.dumps(served))
            self._kept, self._complaint = kept, ""
        except OSError as error:
            if self._complaint != str(error):
                self._complaint = str(error)
                log.warning("what is served cannot be saved: %s; free some space, it goes on by itself", error)
