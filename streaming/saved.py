"""Saved: what a worker serves, kept on disk for readers that start without it, and for itself after a restart."""

import logging
from pathlib import Path
from typing import Any

import orjson

log = logging.getLogger(__name__)


class Saved:
    """The file at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: object = None
        self._complaint = ""

    def slots(self) -> list[int]:
        """The slots that this worker followed when it last ran."""
        found: list[int] = orjson.loads(self._path.read_bytes())["slots"] if self._path.exists() else []
        return found

    def keep(self, served: dict[str, Any]) -> None:
        """Write it down when more of it than "nodes" has changed. A full disk ends no worker: the next call tries again."""
        kept = {**served, "nodes": None}
        if kept == self._kept:
            return
        try:
            self._write(orjson.dumps(served))
            self._kept, self._complaint = kept, ""
        except OSError as error:
            if self._complaint != str(error):
                self._complaint = str(error)
                log.warning("what is served cannot be saved: %s; free some space, it goes on by itself", error)

    def _write(self, content: bytes) -> None:
        """Whole or not at all."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".new")
        temporary.write_bytes(content)
        temporary.replace(self._path)
