"""Archive gap: records below a snapshot that the archive lacks. They are what keeps the log from being trimmed."""

from collections.abc import Mapping

from logstore.snapshot.archive.index import ArchiveIndex
from logstore.snapshot.manifest import Manifest


def archive_gap(snapshot: Manifest, archive: ArchiveIndex) -> Mapping[int, int]:
    """Offsets of each partition below the snapshot's cut that are not archived.

    Raises Corrupted, StorageUnreachable.
    """
    reach = archive.next_offsets()
    return {partition: max(part.cut - reach.get(partition, 0), 0) for partition, part in snapshot.parts.items()}
