"""Read back: new SSTables are fetched from where they were written, before a manifest names them.

Checksum, order and counts of each are what was written, and their digest is the one that the fold arrived at: of a
base by adding its entries up, of a delta by the difference that it makes.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from batch.tasks.sst_files import SstTarget, fetched
from logstore.model.errors import Corrupted
from logstore.model.folding.difference import KeyRange, StateBelow, digest_upon
from logstore.model.folding.digest import Digest, digest
from logstore.model.folding.entry import TOMBSTONE, VALUE
from logstore.model.safe_path import below as path_below
from logstore.snapshot import sst
from logstore.snapshot.manifest import FileFacts


def prove(
    where: SstTarget, files: list[FileFacts], cut: int, claimed: Digest, scratch: Path, upon: StateBelow | None = None
) -> None:
    """Read the new files of a partition back. `upon`: what they lie upon; None: they are a base.

    Raises Corrupted that names the file, or the digest that is not the claimed one.
    """
    total = Digest() if upon is None else upon.digest
    for file in files:
        local = fetched(where, file, path_below(scratch, "back.sst"))
        with sst.opened([[local]]) as reader:
            stored = _ordered(file, reader.stored(), cut)
            keys = KeyRange(file.first_key, file.last_key + b"\\0")
            more = upon and StateBelow(upon.reader, total, upon.entries)
            total = total.plus(digest(stored)) if more is None else digest_upon(stored, file.entries, more, keys)
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
