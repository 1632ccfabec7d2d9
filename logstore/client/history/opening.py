"""Opening of a history: the definition and the storage that it names, and the partition of the key."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from logstore import settings
from logstore.client.history.key_history import KeyHistory, Selection
from logstore.client.history.sources import Sources
from logstore.client.history.span import Decide, KeyPlace, Scanned
from logstore.extras import needing
from logstore.log.tables.registry import Registry
from logstore.model.errors import SetupError, StorageUnreachable
from logstore.model.table import Table

if TYPE_CHECKING:
    from logstore.snapshot.archive.index import ArchiveIndex

_LOG_ALONE = "without the archive (`--no-archive`, archive=False) the log tells what it still has"


class ArchiveChoice(NamedTuple):
    """Choice of the archive: whether it is asked, and where it lies if not where the store is defined to have it."""

    wanted: bool = True
    storage: str | None = None
    data_dir: Path | None = None  # below which a store keeps it that is defined to have it nowhere else

    def open(self, table: Table, bootstrap: str) -> "ArchiveIndex | None":
        """Index of the table's archive; None: it is not wanted, or nothing says where it would be.

        Raises SetupError where the storage's library is not installed, UsageError for a URL that is none.
        """
        if not self.wanted:
            return None
        chosen = settings.load()
        given = self.storage or chosen.storage or _recorded_storage(bootstrap)
        data_dir = self.data_dir or chosen.find_data_dir()
        if given is None and data_dir is None:
            return None
        try:
            with needing("node"):
                from logstore.snapshot.archive.index import ArchiveIndex  # noqa: PLC0415 - only where it is wanted
                from logstore.snapshot.storage import Storage, storage_url  # noqa: PLC0415 - as above
        except SetupError as error:
            error.add_note(_LOG_ALONE)
            raise
        url = given if given is not None or data_dir is None else storage_url(None, None, data_dir)
        return ArchiveIndex(Storage(str(url)), table.topic, table.epoch)


def _recorded_storage(bootstrap: str) -> str | None:
    """URL of the storage that the store is defined to have; None where it is defined to have none."""
    try:
        return Registry(bootstrap).read().known_storage()
    except SetupError:  # definitions come from elsewhere, and nothing is recorded in this Kafka
        return None


def open_history(
    bootstrap: str,
    table: Table,
    key: bytes,
    selection: Selection,
    archive: ArchiveChoice,
    *,
    scanned: Scanned = lambda _: None,
    outcomes: Callable[[KeyPlace], Decide] | None = None,
) -> KeyHistory:
    """The history of a key, ready to be read. `outcomes`: of whom those of conditional mutations are asked.

    Raises EpochChanged, LogUnreachable, LogTruncated, StorageUnreachable, SetupError, UsageError.
    """
    selection.check()
    place = KeyPlace(bootstrap, table, table.partitioning.of(key), key)
    try:
        sources = Sources(place, archive.open(table, bootstrap))
        return KeyHistory(sources, selection, scanned, outcomes and outcomes(place))
    except StorageUnreachable as error:
        error.add_note(_LOG_ALONE)
        raise
