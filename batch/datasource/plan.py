"""Plan of a reading, made once, before the first task: positions, snapshots, segments. No Spark in here."""

import logging
from dataclasses import dataclass
from itertools import pairwise

from batch.base_lookup import base_state, bases_of, offsets_of
from batch.datasource.key_filter import Keys
from batch.datasource.read import TableSource
from logstore.log.control import check_epoch
from logstore.log.kafka import clients, offsets
from logstore.log.read.ranges import committed_ends
from logstore.log.tables.registry import Registry
from logstore.model.errors import LogTruncated, NoSuchSnapshot, Unsupported, UsageError
from logstore.model.position import Position
from logstore.model.skips import first_missing
from logstore.settings import load
from logstore.snapshot.archive.index import ArchiveIndex
from logstore.snapshot.manifest import FileFacts, Manifest
from logstore.snapshot.repository import Repository
from logstore.snapshot.storage import Storage, storage_url
from logstore.snapshot.work import FileOrder, LogStretch, StateOrder

log = logging.getLogger(__name__)

LATEST, EARLIEST, CURRENT = "latest", "earliest", "current"
TASK_RECORDS = 500_000  # of the log, that one task reads


def find(bootstrap: str, table: str, storage: str | None) -> TableSource:
    """The table and its storage. Raises NoSuchTable, EpochChanged, LogUnreachable, SetupError, UsageError."""
    definitions = Registry(bootstrap).read()
    found = definitions.live(table)
    check_epoch(bootstrap, found)
    settings = load({"bootstrap": bootstrap, "storage": storage})
    return TableSource(
        bootstrap, found, Storage(storage_url(settings.storage, definitions.known_storage(), settings.data_dir))
    )


@dataclass
class Planner:
    """Answers for one table."""

    where: TableSource

    def snapshot(self, name: str, keys: Keys) -> list[FileOrder]:
        """The SSTables of a snapshot that may hold a wanted key.

        Raises NoSuchSnapshot, SnapshotRefused, Corrupted, StorageUnreachable.
        """
        manifest, table = self._named(name), self.where.table
        verdicts = self._repository().verdicts(table.base_snapshot)
        verdicts.check(manifest.name, sorted(manifest.parts), table.name, "read")
        if lacking := verdicts.lacking(manifest):
            log.warning(
                "snapshot %s of %s is read although nobody has proved %d of its partitions; `logstore batch audit %s` "
                "does",
                manifest.name, table.name, len(lacking), table.name,
            )  # fmt: skip
        wanted = set(keys.partitions(table.partitioning))
        return [order for partition in sorted(wanted) for order in _files(manifest.files_of(partition), keys)]

    def as_of(self, text: str, keys: Keys) -> list[StateOrder]:
        """The newest snapshot at or before a position, and the log since.

        Raises UsageError, NotRetained, LogTruncated.
        """
        upto = self._position(text)
        wanted = keys.partitions(self.where.table.partitioning)
        known = _KnownRecords(self.where)
        bases = bases_of(self._repository(), self.where.table, upto, wanted, known.is_whole)
        pieces: list[StateOrder] = []
        for partition in wanted:
            base = bases.get(partition)
            lo = base.parts[partition].cut if base else 0
            files = base.files_of(partition) if base else []
            stretch = known.stretch(partition, lo, upto[partition])
            pieces.append(StateOrder(stretch, list(files), base_state(base, partition)))
        return pieces

    def changes(self, since: str, until: str, keys: Keys) -> list[LogStretch]:
        """The stretches from one position to another, in pieces for many tasks.

        Raises UsageError, LogTruncated, Unsupported for a conditional table: what its records did is not in them.
        """
        table = self.where.table
        if table.conditional:
            raise Unsupported(
                f"changes of {table.name} cannot be read: it is a conditional table, and what a record did there is "
                'not in the record; read states of it with .option("as_of", ...), and what became of a write with '
                "`logstore outcome`"
            )
        end = self._position(until)
        start = dict.fromkeys(end, 0) if since == EARLIEST else self._position(since)
        for partition in range(table.partitions):
            if start[partition] > end[partition]:
                raise UsageError(
                    f"changes: partition {partition} would begin at {start[partition]:,} and end at "
                    f"{end[partition]:,}; swap them"
                )
        known = _KnownRecords(self.where)
        return [
            piece
            for partition in keys.partitions(table.partitioning)
            if start[partition] < end[partition]
            for piece in _pieces(known.stretch(partition, start[partition], end[partition]))
        ]

    def _repository(self) -> Repository:
        return Repository(self.where.storage, self.where.table.topic, self.where.table.epoch)

    def _named(self, name: str) -> Manifest:
        if name != CURRENT:
            return self._repository().manifest(name)
        pointer, table = self._repository().current(), self.where.table.name
        if pointer is None:
            raise NoSuchSnapshot(
                f"table {table} has no snapshot yet in {self.where.storage.url}; `logstore batch compact {table}` "
                "makes one, "
                'or read without one: .option("as_of", "latest")'
            )
        return self._repository().manifest(pointer.name)

    def _position(self, text: str) -> dict[int, int]:
        """Partition -> offset; raises BadToken, EpochChanged, UsageError."""
        table, ends = self.where.table, committed_ends(self.where.bootstrap, self.where.table)
        return ends if text == LATEST else offsets_of(Position.parse(text), table, ends)


class _KnownRecords:
    """Records of a table that can be read: by the log's beginnings, asked for once, and by the archive where needed."""

    def __init__(self, where: TableSource) -> None:
        self._where = where
        self._index = ArchiveIndex(where.storage, where.table.topic, where.table.epoch)
        self._archived: dict[int, int] | None = None
        partitions = list(range(where.table.partitions))
        bounds = offsets.bounds(clients.admin(where.bootstrap), where.table.topic, partitions)
        self._starts = {partition: bound.start for partition, bound in bounds.items()}

    def is_whole(self, partition: int) -> bool:
        """True when log and archive hold the partition from offset 0 on."""
        return self._starts[partition] == 0 or self._reach(partition) >= self._starts[partition]

    def stretch(self, partition: int, start: int, end: int) -> LogStretch:
        """Stretch of the log, and of the archive what is not in the log any more. Raises LogTruncated."""
        table, begin = self._where.table, self._starts[partition]
        gone = first_missing(range(start, min(begin, end)), table.skips.get(partition, ()))
        if gone is None:
            return LogStretch(partition, start, end, [], start)
        reach = min(self._reach(partition), end)
        if first_missing(range(max(start, reach), min(begin, end)), table.skips.get(partition, ())) is not None:
            raise LogTruncated(
                f"offset {max(gone, reach):,} of {table.name}/{partition} is neither in the log, which begins at "
                f"{begin:,}, nor in the archive {self._where.storage.url}, which ends at {reach:,}; is this the right "
                "storage?"
            )
        return LogStretch(partition, start, end, self._index.covering(partition, start, reach), reach)

    def _reach(self, partition: int) -> int:
        if self._archived is None:
            self._archived = self._index.next_offsets()
        return self._archived.get(partition, 0)


def _pieces(stretch: LogStretch) -> list[LogStretch]:
    """A piece for each segment, and for every TASK_RECORDS offsets of the log."""
    partition, start, end, segments, log_start = stretch
    pieces = [
        LogStretch(
            partition,
            max(start, segment.start),
            min(end, segment.end, log_start),
            [segment],
            min(end, segment.end, log_start),
        )
        for segment in segments
    ]
    count = -(-(end - log_start) // TASK_RECORDS)
    bounds = [log_start + (end - log_start) * number // count for number in range(count + 1)] if count > 0 else []
    return [*pieces, *(LogStretch(partition, a, b, [], a) for a, b in pairwise(bounds))]


def _files(files: list[FileFacts], keys: Keys) -> list[FileOrder]:
    """Orders for the files of a partition that may hold a wanted key: one for each, or one for all with deltas."""
    wanted = [file for file in files if keys.meets(file.first_key, file.last_key)]
    if any(file.level for file in wanted):
        return [FileOrder(wanted[0].partition, wanted)]
    return [FileOrder(file.partition, [file]) for file in wanted]
