"""Archive gaps: what the archive lacks of each table below its current snapshot, as the worker that leads has found it.

One table is looked at each time, in turn: storage far away is asked a question or two, however many tables there are.
"""

from collections.abc import Mapping, Sequence

from logstore.model.errors import LogStoreError
from logstore.model.table import PartitionKey, Table
from logstore.process import logs
from logstore.process.figures import UNKNOWN
from logstore.snapshot.archive.gap import archive_gap
from logstore.snapshot.archive.index import ArchiveIndex
from streaming.adoption.snapshot_fetcher import SnapshotFetcher

log = logs.get(__name__)


class ArchiveGaps:
    """Gaps of the tables that have a snapshot."""

    def __init__(self, fetcher: SnapshotFetcher) -> None:
        self._fetcher = fetcher
        self._found: dict[PartitionKey, tuple[str, float]] = {}  # table and offsets; NaN: not known
        self._indexes: dict[str, tuple[str | None, ArchiveIndex]] = {}  # epoch -> storage and index, read on
        self._turn = 0

    def found(self) -> list[tuple[Mapping[str, str], float]]:
        """Labels and offsets of each partition; from any thread."""
        return [
            ({"table": table, "partition": str(partition)}, gap)
            for (_, partition), (table, gap) in self._found.copy().items()
        ]

    def look(self, tables: Sequence[Table]) -> None:
        """Look at the next table, and forget those that are not here."""
        epochs = {table.epoch for table in tables}
        self._found = {key: gap for key, gap in self._found.items() if key[0] in epochs}
        self._indexes = {epoch: index for epoch, index in self._indexes.items() if epoch in epochs}
        if tables:
            self._turn = (self._turn + 1) % len(tables)
            self._look_at(tables[self._turn])

    def _look_at(self, table: Table) -> None:
        try:
            pointer = self._fetcher.current(table)
            if pointer is None:
                return
            manifest = self._fetcher.manifest(table, pointer.name)
            gaps: Mapping[int, float] = archive_gap(manifest, self._index(table))
        except (LogStoreError, OSError) as error:
            log.info("the archive gap is not known", table=table.name, reason=str(error))
            gaps = dict.fromkeys(range(table.partitions), UNKNOWN)
        self._found = {**self._found, **{(table.epoch, part): (table.name, gap) for part, gap in gaps.items()}}

    def _index(self, table: Table) -> ArchiveIndex:
        url, index = self._indexes.get(table.epoch, (None, None))
        if index is None or url != self._fetcher.url:
            index = ArchiveIndex(self._fetcher.repository(table).storage, table.topic, table.epoch)
            self._indexes[table.epoch] = self._fetcher.url, index
        return index
