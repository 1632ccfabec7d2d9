"""Read back: new SSTables are fetched from where they were written, before a manifest names them.

Checksum, order and counts of each are what was written, and their entries lead to the digest that the fold arrived at:
those of a base add up to it, those of a delta together with what they do not replace below. What they replace was
looked up when they were written, and is not looked up again: reading back proves what was written.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from batch.tasks.sst_files import SstTarget, fetched, seen
from logstore.model.errors import Corrupted
from logstore.model.folding.digest import Digest, digest
from logstore.model.folding.entry import CELLS, SIBLINGS, TOMBSTONE, VALUE
from logstore.model.partitioning.partitioning import Partitioning
from logstore.model.safe_path import below as path_below
from logstore.snapshot import sst
from logstore.snapshot.manifest import FileFacts

NOTHING = Digest()
Item = tuple[bytes, bytes]  # key, entry
_PIECE = 256  # entries of a group that are held at once


def prove(
    where: SstTarget, files: list[FileFacts], cut: int, claimed: Digest, scratch: Path, beside: Digest = NOTHING
) -> None:
    """Read the new files of a partition back. `beside`: of what lies below them and stays; nothing: they are a base.

    Raises Corrupted that names the file, or the digest that is not the claimed one.
    """
    total = beside
    for file in files:
        local = fetched(where, file, path_below(scratch, "back.sst"))
        with sst.opened([[local]]) as reader:
            check = _Check(file, cut)
            total = total.plus(digest(check.passing(reader.stored())))
            check.end()
        local.unlink()
    _compare(where, files, total, claimed)


class Written(NamedTuple):
    """New files of a partition, at most one, and what they lead to, as `prove` takes it."""

    partition: int
    files: list[FileFacts]
    cut: int
    claimed: Digest
    beside: Digest


def prove_group(where: SstTarget, group: Sequence[Written], partitioning: Partitioning, scratch: Path) -> None:
    """Read new files of several partitions back, all in one RocksDB directory: a key tells whose it is.

    Raises as `prove`.
    """
    checks = {one.partition: _Check(file, one.cut) for one in group for file in one.files}
    sums = {one.partition: one.beside for one in group}
    local = [seen(where, file, path_below(scratch, f"back-{one.partition}.sst")) for one in group for file in one.files]
    with ExitStack() as stack:
        stored = stack.enter_context(sst.opened([local], several=True)).stored() if local else iter(())
        for partition, items in by_partition(stored, partitioning):
            if partition not in checks:
                raise Corrupted(
                    f"snapshot {where.name} holds the key {items[0][0][:64]!r} of partition {partition} in a "
                    f"file of another one, of {', '.join(map(str, checks))}; run the job again"
                )
            sums[partition] = sums[partition].plus(digest(checks[partition].passing(items)))
    for check in checks.values():
        check.end()
    for one in group:
        _compare(where, one.files, sums[one.partition], one.claimed)


def by_partition(stored: Iterator[Item], partitioning: Partitioning) -> Iterator[tuple[int, list[Item]]]:
    """Entries of several partitions apart, those of each in order, of which few are held at once."""
    while piece := list(islice(stored, _PIECE)):
        yield from _apart(piece, partitioning).items()


def _apart(items: list[Item], partitioning: Partitioning) -> dict[int, list[Item]]:
    found: dict[int, list[Item]] = {}
    for item, partition in zip(items, partitioning.listed([key for key, _ in items]), strict=True):
        found.setdefault(partition, []).append(item)
    return found


def _compare(where: SstTarget, files: list[FileFacts], total: Digest, claimed: Digest) -> None:
    if total != claimed:
        raise Corrupted(
            f"what snapshot {where.name} has written of a partition does not read back as it was: {total.entries:,} "
            f"entries instead of {claimed.entries:,}, digest {total.hex} instead of {claimed.hex}: "
            f"{', '.join(file.path for file in files[:5])}; run the job again"
        )


class _Check:
    """Check of a file's entries: keys rise, and nothing is newer than the cut, or in a base a tombstone."""

    def __init__(self, file: FileFacts, cut: int) -> None:
        self._file, self._cut, self._before, self._count = file, cut, b"", 0

    def passing(self, entries: Iterable[Item]) -> Iterator[Item]:
        """The next entries, each one checked."""
        file, cut, before, count = self._file, self._cut, self._before, self._count
        kinds = (VALUE, SIBLINGS, CELLS, TOMBSTONE)[: 4 if file.level else 3]
        for key, entry in entries:
            if key <= before or entry[0] & 0x7F not in kinds or int.from_bytes(entry[1:9]) >= cut:
                raise Corrupted(
                    f"{file.path} holds the key {key[:64]!r} out of order, deleted, or newer than the cut {cut:,}"
                )
            before = key
            count += 1
            yield key, entry
        self._before, self._count = before, count

    def end(self) -> None:
        """Requires that all have passed. Raises Corrupted."""
        file, before, count = self._file, self._before, self._count
        if count != file.entries:
            raise Corrupted(f"{file.path} holds {count:,} entries, {file.entries:,} were written")
        if before != file.last_key:
            raise Corrupted(f"{file.path} ends with the key {before[:64]!r}, its manifest says {file.last_key[:64]!r}")
