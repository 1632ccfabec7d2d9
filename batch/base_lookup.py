"""Base lookup: a position of a table's history, and the snapshots it can be reached from."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping

from logstore.model.errors import Corrupted, EpochChanged, NotRetained, UsageError
from logstore.model.position import Position
from logstore.model.table import Table
from logstore.snapshot.manifest import Manifest
from logstore.snapshot.repository import Repository
from logstore.snapshot.verdicts import PROVED, UNPROVED
from logstore.snapshot.work import NO_BASE, BaseState

log = logging.getLogger(__name__)


def offsets_of(position: Position, table: Table, ends: Mapping[int, int]) -> dict[int, int]:
    """Partition -> offset, of a token that names every partition. `ends`: how far the history is known.

    Raises UsageError for one that does not, or lies behind the end, EpochChanged for one of an earlier topic.
    """
    found = {partition: offset for (epoch, partition), offset in position.pieces.items() if epoch == table.epoch}
    if not found and any(epoch in table.former_epochs for epoch, _ in position.pieces):
        raise EpochChanged(
            f"the token is of an earlier topic of {table.name}, whose offsets mean something else; take one of this "
            "topic"
        )
    for partition, end in ends.items():
        if partition not in found:
            raise UsageError(
                f"the token has no piece for partition {partition} of {table.name} ({table.epoch}); a state needs all "
                "of its "
                f"{table.partitions} partitions: take the position of a snapshot (`logstore snapshot list "
                f"{table.name}`)"
            )
        if found[partition] > end:
            raise UsageError(
                f"the token says {found[partition]:,} for partition {partition} of {table.name}; its log ends at "
                f"{end:,}"
            )
    return {partition: found[partition] for partition in ends}


def bases_of(
    repository: Repository,
    table: Table,
    upto: Mapping[int, int],
    wanted: Iterable[int],
    is_whole: Callable[[int], bool],
) -> dict[int, Manifest]:
    """Partition -> the snapshot that is read below a position; absent where the log from 0 is the way.

    The newest proved one whose cut is not behind the position; where there is none, the log from 0 if it is known from
    there (`is_whole`, of a partition), else the newest that nobody has proved. A refused one is never read, nor one
    that was rolled back, nor one whose manifest is damaged. Raises NotRetained before the beginning of a restored
    table.
    """
    verdicts = repository.verdicts(table.base_snapshot)
    manifests = list(_readable(repository, table))
    found: dict[int, Manifest] = {}
    for partition in wanted:
        reached = [one for one in manifests if one.parts[partition].cut <= upto[partition]]
        standing = [(one, verdicts.proof(one.name, partition).word) for one in reached]
        proved = [one for one, word in standing if word == PROVED]
        unproved = [one for one, word in standing if word == UNPROVED]
        if proved:
            found[partition] = proved[0]
        elif table.base:
            raise NotRetained(
                f"{table.name} began with the snapshot {table.base_snapshot}; partition {partition} was nothing before "
                "it"
            )
        elif unproved and not is_whole(partition):
            found[partition] = unproved[0]
            log.warning(
                "snapshot %s of %s is read although nobody has proved it: the log and the archive do not reach back to "
                "offset 0 of partition %d; `logstore batch audit %s` proves or refuses it",
                unproved[0].name, table.name, partition, table.name,
            )  # fmt: skip
    return found


def base_state(manifest: Manifest | None, partition: int) -> BaseState:
    """State of a partition's base beside its rows."""
    return NO_BASE if manifest is None else BaseState(manifest.parts[partition], manifest.decisions_of(partition))


def _readable(repository: Repository, table: Table) -> Iterator[Manifest]:
    """The snapshots that count, newest first, without those whose manifests are damaged."""
    for name in repository.candidates(table.base_snapshot):
        try:
            yield repository.manifest(name)
        except Corrupted as error:
            log.warning("%s; the one before it is used", error)
