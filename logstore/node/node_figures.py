"""Node figures: restarts of children, and room on the disk of the data directory, written for the readers."""

import logging
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from logstore.node.supervisor import Supervisor
from logstore.process import figures
from logstore.process.figures import Family, counter, gauge

log = logging.getLogger(__name__)


class NodeFigures:
    """Figures of the process that looks after the others."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir, self._complaint = data_dir, ""
        self._due_s = 0.0

    def begin(self) -> None:
        """Forget what processes of an earlier run have told."""
        try:
            figures.begin(self._data_dir)
        except OSError as error:
            self._complain(error)

    def tell(self, supervisor: Supervisor) -> None:
        """Write them, once a second at most."""
        now_s = time.monotonic()
        if now_s < self._due_s:
            return
        self._due_s = now_s + figures.EVERY_S
        try:
            figures.publish(self._data_dir, "node", self._families(supervisor))
            self._complaint = ""
        except OSError as error:  # a full disk ends no node
            self._complain(error)

    def _families(self, supervisor: Supervisor) -> Iterable[Family]:
        yield from figures.of_process("node")
        restarts = [({"process": name}, count) for name, count in supervisor.restarts().items()]
        yield counter("logstore_restarts", "Children that were started again.", restarts)
        usage = shutil.disk_usage(self._data_dir)
        yield gauge("logstore_disk_free_bytes", "Room on the disk of the data directory.", [({}, usage.free)])
        yield gauge("logstore_disk_size_bytes", "Size of the disk of the data directory.", [({}, usage.total)])

    def _complain(self, error: OSError) -> None:
        if str(error) != self._complaint:
            self._complaint = str(error)
            log.warning("figures of the node are not written: %s; it is tried again", error)
