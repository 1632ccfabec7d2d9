"""Sweep: removes the views of tables that were dropped. The topic is gone, by a command that asked; nothing can be built from them."""

import contextlib
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from logstore.model.errors import Overloaded
from logstore.model.table import Table
from logstore.view.home import Owner, epoch_dir

log = logging.getLogger(__name__)


def sweep(data_dir: Path, tables: Iterable[Table]) -> None:
    """Remove what lies here of dropped tables, except partitions that some process still writes."""
    for table in tables:
        for epoch in (table.epoch, *table.former_epochs) if table.dropped else ():
            _remove(epoch_dir(data_dir, table.name, epoch))


def _remove(directory: Path) -> None:
    if not directory.exists():
        return
    for partition in directory.iterdir():
        with contextlib.suppress(Overloaded):  # its writer has not let go yet: next time
            owner = Owner(partition)
            shutil.rmtree(partition)
            owner.release()
    with contextlib.suppress(OSError):  # not empty: as above
        directory.rmdir()
        log.info("removed %s", directory)
        directory.parent.rmdir()
