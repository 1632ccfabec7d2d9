"""Sweep: removes views that nobody can ask for.

Those of dropped tables: the topic is gone, by a command that asked, and nothing can be built from them. And, under its former name, those
of a topic that a promotion has given to another table, which has views of its own.
"""

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
    """Remove what lies here of dropped tables and under former names, except partitions that some process still writes."""
    known = list(tables)
    owners = {table.epoch: table.name for table in known if not table.dropped}
    for table in known:
        for epoch in (table.epoch, *table.former_epochs):
            if table.dropped or owners.get(epoch, table.name) != table.name:
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
