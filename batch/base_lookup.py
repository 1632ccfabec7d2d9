"""Base lookup: a position of a table's history, and the snapshots it can be reached from."""

import logging
from collections.abc import Iterable, Mapping

from logstore.model.errors import Corrupted, EpochChanged, NotRetained, UsageError
from logstore.model.position import Position
from logstore.model.table import Table
from logstore.snapshot.manifest import Manifest
from logstore.snapshot.repository import Repository

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
    repository: Repository, table: Table, upto: Mapping[int, int], wanted: Iterable[int]
) -> dict[int, Manifest]:
    """Partition -> the newest snapshot whose cut is not behind the position; absent where the log from 0 is the way.

    Snapshots that were rolled back do not count, nor does one whose manifest is damaged. Raises NotRetained before the
    beginning of a restored table.
    """
    names = repository.line()
    names = [*([table.base["snapshot"]] if table.base and table.base["snapshot"] not in names else []), *names]
    found: dict[int, Manifest] = {}
    open_ones = set(wanted)
    for name in reversed(names):
        if not open_ones:
            break
        try:
            manifest = repository.manifest(name)
        except Corrupted as error:
            log.warning("%s; the one before it is used", error)
            continue
        reached = {partition for partition in open_ones if manifest.parts[partition].cut <= upto[partition]}
        found |= dict.fromkeys(reached, manifest)
        open_ones -= reached
    if table.base and open_ones:
        raise NotRetained(
            f"{table.name} began with the snapshot {table.base['snapshot']}; partition {min(open_ones)} was nothing "
            "before it"
        )
    return found
