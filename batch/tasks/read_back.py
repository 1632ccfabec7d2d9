"""Read back: new SSTables are fetched from where they were written, before a manifest names them.

Checksum, order and counts of each are what was written, and their entries lead to the digest that the fold arrived at:
those of a base add up to it, those of a delta together with what they do not replace below. What they replace was
looked up when they were written, and is not looked up again: reading back proves what was written.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from batch.tasks.sst_files import SstTarget, fetched
from logstore.model.errors import Corrupted
from logstore.model.folding.digest import Digest, digest
from logstore.model.folding.entry import TOMBSTONE, VALUE
from logstore.model.safe_path import below as path_below
from logstore.snapshot import sst
from logstore.snapshot.manifest import FileFacts

NOTHING = Digest()


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
            total = total.plus(digest(_ordered(file, reader.stored(), cut)))
        local.unlink()
    if total != claimed:
        raise Corrupted(
            f"what snapshot {where.name} has written of a partition does not read back as it was: {total.entries:,} "
            f"entries instead of {claimed.entries:,}, digest {total.hex} instead of {claimed.hex}: "
            f"{', '.join(file.path for file in files[:5])}; run the job again"
        )


def _ordered(file: FileFacts, entries: Iterable[tuple[bytes, bytes]], cut: int) -> Iterator[tuple[bytes, bytes]]:
    """The entries; keys rise within the file's range, and nothing is newer than the cut, or in a base a tombstone."""
    before, count, kinds = b"", 0, (VALUE, TOMBSTONE) if file.level else (VALUE,)
    for key, entry in entries:
        if key <= before or entry[0] & 0x7F not in kinds or int.from_bytes(entry[1:9]) >= cut:
            raise Corrupted(
                f"{file.path} holds the key {key[:64]!r} out of order, deleted, or newer than the cut {cut:,}"
            )
        before = key
        count += 1
        yield key, entry
    if count != file.entries:
        raise Corrupted(f"{file.path} holds {count:,} entries, {file.entries:,} were written")
    if before != file.last_key:
        raise Corrupted(f"{file.path} ends with the key {before[:64]!r}, its manifest says {file.last_key[:64]!r}")
