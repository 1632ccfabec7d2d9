"""Beginning: the order in which a view that is not there yet, or whose log is gone, may begin.

1 proved      the newest snapshot first: those of the line, then those that a rebuild replaced
2 the log     from offset 0, where it still begins there
3 unproved    the newest first; its view says so in every page until somebody proves it
never         a refused one
"""

from collections.abc import Iterator
from typing import NamedTuple

from logstore.model.errors import Corrupted, NoSuchSnapshot
from logstore.model.table import Table
from logstore.snapshot.verdicts import PROVED, UNPROVED, Proof
from streaming.adoption.snapshot_fetcher import SnapshotFetcher
from streaming.lane.target import Target


class Beginning(NamedTuple):
    """A way to begin; `snapshot` None: the log from offset 0."""

    snapshot: str | None
    proof: Proof


FROM_LOG = Beginning(None, Proof(PROVED, "the log from offset 0"))


def beginnings(fetcher: SnapshotFetcher, table: Table, partition: int) -> Iterator[Beginning]:
    """The ways to begin a partition, best first. Raises StorageUnreachable, Corrupted: of the pointer."""
    verdicts = fetcher.verdicts(table)
    names = fetcher.repository(table).candidates(table.base_snapshot)
    found = [Beginning(name, verdicts.proof(name, partition)) for name in names]
    yield from (one for one in found if one.proof.word == PROVED)
    if table.base is None:
        yield FROM_LOG
    yield from (one for one in found if one.proof.word == UNPROVED)


def cut_of(fetcher: SnapshotFetcher, target: Target, name: str | None) -> int:
    """Cut of a beginning; -1 when its manifest is damaged or gone."""
    try:
        return fetcher.manifest(target.table, name).parts[target.partition].cut if name else 0
    except (Corrupted, NoSuchSnapshot):
        return -1
