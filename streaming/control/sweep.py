"""Sweep: removes views and local snapshots that nobody can ask for.

Those of dropped tables: the topic is gone, by a command that asked, and nothing can be built from them. And, under its
former name, those of a topic that a promotion has given to another table, which has views and local snapshots of its
own.

All workers of a node sweep, also at the same time. A partition is removed in three steps:

    1. own     the right to write it, so that nobody else does
    2. away    its folders get names that mean nothing: who has files open reads on, who comes next finds none
    3. remove  what they hold; a process that is killed here leaves the rest to the next sweep
"""

import contextlib
import logging
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from logstore.model.errors import DiskFull, Overloaded
from logstore.model.safe_path import below
from logstore.model.table import Table
from logstore.view.paths import Owner, epoch_dir, snapshots_dir

log = logging.getLogger(__name__)

_GONE = ".gone"


def sweep(data_dir: Path, tables: Iterable[Table]) -> None:
    """Remove what lies here of dropped tables and under former names, except partitions that some process still writes.

    What cannot be removed is logged, and left to the next sweep.
    """
    known = list(tables)
    owners = {table.epoch: table.name for table in known if not table.dropped}
    for table in known:
        for epoch in (table.epoch, *table.former_epochs):
            if table.dropped or owners.get(epoch, table.name) != table.name:
                _remove(epoch_dir(data_dir, table.name, epoch), snapshots_dir(data_dir, table.name, epoch))


def _remove(views: Path, snapshots: Path) -> None:
    for name in sorted(_names(views) | _names(snapshots)):
        try:
            _remove_partition(below(views, name), below(snapshots, name))
        except Overloaded:  # its writer has not let go yet, or another process sweeps here
            continue
        except (DiskFull, OSError) as error:
            log.warning("%s/%s cannot be removed: %s", views, name, error)
    for folder in (views, snapshots):
        with contextlib.suppress(OSError):  # not there, or not empty: as above
            folder.rmdir()
            log.info("removed %s", folder)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()


def _names(folder: Path) -> set[str]:
    try:
        return {child.name for child in folder.iterdir()}
    except FileNotFoundError:
        return set()


def _remove_partition(views: Path, snapshots: Path) -> None:
    if views.suffix == _GONE:
        gone = [views, snapshots]
    else:
        owner = Owner(views)  # 1
        try:
            gone = [_away(snapshots), _away(views)]  # 2; the right goes with the views, so they go last
        finally:
            owner.release()
    for folder in gone:
        shutil.rmtree(folder, ignore_errors=True)  # 3; two may be at it


def _away(folder: Path) -> Path:
    gone = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}{_GONE}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(gone)
    return gone
