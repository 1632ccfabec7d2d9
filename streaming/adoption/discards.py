"""Discards: requests of `logstore view discard` to throw a view away, taken up by the worker that has it open.

A request is a file in the data directory, so that only who may write there may ask. One whose view nobody has open is
taken up when it is opened (`streaming.lane.partition`).
"""

import logging
from pathlib import Path

from logstore.model.errors import LogStoreError
from logstore.view import paths
from streaming.adoption import flip
from streaming.lane.lane import Lane

log = logging.getLogger(__name__)


class Discards:
    """The requests in one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def take(self, lane: Lane) -> None:
        """Do what is asked for, of the partitions that are followed here. What fails is tried again."""
        folder = paths.discards_dir(self._data_dir)
        asked = {path.name for path in folder.iterdir()} if folder.exists() else set()
        for followed in lane.followed() if asked else ():
            path = paths.discard_path(self._data_dir, *followed.target.key)
            if path.name in asked:
                try:
                    lane.mailbox.do(followed.target.key, flip.discard("`logstore view discard` asked for it"))
                    path.unlink(missing_ok=True)
                except (LogStoreError, OSError) as error:
                    log.warning("%s: %s", path, error)
