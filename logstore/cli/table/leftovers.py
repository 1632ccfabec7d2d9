"""Leftovers: archive and snapshots of tables that were dropped, or of topics that a table had before.

A storage may serve several stores, so only folders that this store's definitions name are ever touched.
"""

from pathlib import Path
from typing import NamedTuple

from logstore.log.tables.registry import Definitions
from logstore.model.table import Table
from logstore.settings import Settings
from logstore.snapshot.storage import Storage, storage_url


class Leftover(NamedTuple):
    """A folder `<topic>/<epoch>` of the storage that no table stands on, and the table that once did."""

    topic: str
    epoch: str
    table: str

    @property
    def path(self) -> str:
        """The folder, in the storage."""
        return f"{self.topic}/{self.epoch}"


def storage_of(settings: Settings, definitions: Definitions, url: str | None = None) -> Storage:
    """The store's storage. Raises UsageError."""
    return Storage(storage_url(url or settings.storage, definitions.storage, Path(settings.data_dir)))


def leftovers(definitions: Definitions, storage: Storage) -> list[Leftover]:
    """Every folder that a definition of this store named once, and none needs now. Raises StorageUnreachable."""
    tables = definitions.tables.values()
    needed = {table.epoch for table in tables if not table.dropped}
    past = {
        epoch: table.name for table in tables for epoch in (table.epoch, *table.former_epochs) if epoch not in needed
    }
    return [
        Leftover(topic, epoch, past[epoch])
        for topic in storage.list("")
        for epoch in storage.list(topic)
        if epoch in past
    ]


def has_files(storage: Storage, table: Table) -> bool:
    """True when archive or snapshots of the table's topic lie in the storage."""
    return bool(storage.list(f"{table.topic}/{table.epoch}"))


def remove(storage: Storage, folder: Leftover) -> None:
    """Remove one folder, and its topic's when that is empty."""
    storage.remove_tree(folder.path)
    storage.tidy(folder.topic)
