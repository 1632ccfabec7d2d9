"""Served state of a worker, on disk for readers that start without it, and for itself after a restart."""

import logging
from pathlib import Path

from logstore.model.errors import Corrupted, Unsupported
from logstore.model.table import Table
from logstore.process.durable import write_whole
from logstore.view.feed.fields import UnreadableRecord
from logstore.view.feed.node_records import NodesRecord
from logstore.view.served import Served

log = logging.getLogger(__name__)


class ServedState:
    """The file at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: Served | None = None
        self._complaint = ""

    def load(self) -> Served | None:
        """Served state as of the worker's last run.

        Tables, nodes, slots and views; None when there is nothing, or it is damaged.
        """
        try:
            found = Served.decode(self._path.read_bytes())
            if found.tables.tables is not None:
                _ = [Table.from_json(raw) for raw in found.tables.tables]
                return found
            why = "it names no tables"
        except FileNotFoundError:
            return None
        except (OSError, UnreadableRecord, Corrupted, Unsupported) as error:
            why = str(error)
        log.warning("%s is damaged: %s; the worker begins without what it served before", self._path, why)
        return None

    def slots(self) -> list[int]:
        """The slots that this worker followed when it last ran."""
        found = self.load()
        return list(found.slots) if found else []

    def save(self, served: Served) -> None:
        """Write the state down when more of it than the nodes has changed.

        A full disk ends no worker: the next call tries again.
        """
        state = served._replace(nodes=NodesRecord())
        if state == self._written:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, served.encode())
            self._written, self._complaint = state, ""
        except OSError as error:
            if self._complaint != str(error):
                self._complaint = str(error)
                log.warning("what is served cannot be saved: %s; free some space, it goes on by itself", error)
