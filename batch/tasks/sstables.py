"""SSTables: tasks that fold a partition's archived log over the snapshot before it, write SSTables, read them back.

    segments [lo, cut) -> fold -> newest mutation of every key ─┐
    SSTables of the snapshot at lo ─────────────────────────────┴─> merged by key -> SSTables of some 256 MiB

Everything streams. Files are written to a local folder and uploaded under names of this very attempt; only a manifest
makes them count.
"""

import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

from batch import failpoints
from batch.tasks.fold import Fold, QuarantineTally, Shape, over
from batch.tasks.segments import read_segment
from logstore.model.errors import Corrupted
from logstore.model.folding.digest import Digest, digest
from logstore.model.folding.entry import VALUE
from logstore.model.folding.fold import FoldRules
from logstore.model.table import Table
from logstore.snapshot import sst
from logstore.snapshot.archive import Segment
from logstore.snapshot.manifest import FileFacts, PartFacts
from logstore.snapshot.storage import Storage, at_once
from logstore.snapshot.work import CheckOrder, FoldOrder, FoldResult

TABLE_BYTES = 256 << 20  # an SSTable is closed at this size: small enough to fetch again, large enough to be few


class SstTarget(NamedTuple):
    """Target of a job's SSTables: `root` is the repository's folder in the storage, `name` the snapshot's."""

    storage: Storage
    root: str
    name: str


def fold_partition(order: FoldOrder, table: Table, where: SstTarget) -> FoldResult:
    """Fold one partition. Raises Unsupported, Corrupted, StorageUnreachable."""
    partition, cut, before = order.partition, order.cut, order.base
    place = FoldRules(partition, table.partitions, table.max_value_bytes)
    skips = table.skips.get(partition, [])
    known = QuarantineTally(before.quarantine_counts, before.quarantine_records) if before else QuarantineTally()
    with tempfile.TemporaryDirectory(prefix="logstore-fold-") as scratch:
        fold = Fold(
            Shape(table.name, place, skips),
            Path(scratch),
            log_time_ms=before.log_time_ms if before else 0,
            quarantine=known,
        )
        records = feed(fold, order.segments, where.storage, skips, order.since, cut)
        failpoints.crash("worker:3")
        fold.finish()
        if before is not None and not fold.mutations:
            facts = _facts(fold, cut, before.entries, before.digest, before.last)
            return FoldResult(facts, order.base_files, True, records)
        with scanned(where, order.base_files, Path(scratch)) as base:
            files, total = write(over(base, fold.items()), table, partition, where, Path(scratch))
        facts = _facts(fold, cut, total.entries, total.hex, before.last if before else "")
        return FoldResult(facts, files, False, records)


def check_partition(order: CheckOrder, where: SstTarget) -> int:
    """Read a partition's SSTables back.

    Returns their bytes. Linked ones (verified when they were made) are compared by checksum.

    Raises Corrupted that names the file.
    """
    partition, files, facts, linked = order
    total = Digest()
    for one, after in pairwise(files):
        if after.first_key <= one.last_key:
            raise Corrupted(f"{after.path} begins at or before the last key of {one.path}")
    with tempfile.TemporaryDirectory(prefix="logstore-verify-") as scratch:
        for at, file in enumerate(files):
            local = _fetched(where, file, Path(scratch, f"{at}.sst"))
            if not linked:
                total = total.plus(_read_back(file, local, facts.cut))
            local.unlink()
    if not linked and (total.hex, total.entries) != (facts.digest, facts.entries):
        raise Corrupted(
            f"partition {partition} of snapshot {where.name} does not read back as it was written: {total.entries:,} "
            "entries of "
            f"{facts.entries:,}, digest {total.hex} instead of {facts.digest}"
        )
    return sum(file.size_bytes for file in files)


def check_sizes(where: SstTarget, files: list[FileFacts]) -> None:
    """Look whether files that were verified when they were made are there still, in that size. Raises Corrupted."""

    def size(file: FileFacts) -> int:
        try:
            return where.storage.size(f"{where.root}/{file.path}")
        except FileNotFoundError as error:
            raise _gone(file) from error

    for file, found in zip(files, at_once(size, files), strict=True):
        if found != file.size_bytes:
            raise _damaged(file)


@contextmanager
def scanned(where: SstTarget, files: list[FileFacts], scratch: Path) -> Iterator[Iterator[tuple[bytes, bytes]]]:
    """Entries of these SSTables in key order."""
    with readable(where, files, scratch) as reader:
        yield iter(()) if reader is None else reader.scan()


@contextmanager
def readable(where: SstTarget, files: list[FileFacts], scratch: Path) -> Iterator[sst.SstReader | None]:
    """A reader over these SSTables, fetched to `scratch` and compared with the manifest.

    None where there are none. Raises Corrupted.
    """
    with ExitStack() as stack:
        local = [_fetched(where, file, scratch / f"base-{at:05d}.sst") for at, file in enumerate(files)]
        yield stack.enter_context(sst.opened(local)) if local else None


def feed(fold: Fold, segments: list[Segment], storage: Storage, skips: list[tuple[int, int]], lo: int, cut: int) -> int:
    """Give the fold the records of `[lo, cut)` that the segments hold.

    Returns how many. Raises Corrupted, Unsupported.
    """
    records = 0
    for segment in segments:
        for batch in read_segment(segment, storage, skips):
            offsets = batch.column("offset")
            if offsets[0].as_py() < lo or offsets[-1].as_py() >= cut:
                inside = (offsets.to_numpy() >= lo) & (offsets.to_numpy() < cut)
                batch = batch.filter(inside)  # noqa: PLW2901 - the part of it that counts
            fold.take(batch)
            records += batch.num_rows
    return records


def write(
    entries: Iterable[tuple[bytes, bytes]], table: Table, partition: int, where: SstTarget, scratch: Path
) -> tuple[list[FileFacts], Digest]:
    """Write SSTables as the table wants them, through the folder `scratch`, and upload them.

    Requires: entries in key order.
    """
    files: list[FileFacts] = []
    total = Digest()
    attempt = secrets.token_hex(4)
    source = iter(entries)
    more = True
    while more:
        number = len(files)
        local = scratch / f"out-{number:05d}.sst"
        writer = sst.SstWriter(local, compression=table.compression, block_bytes=table.block_bytes)
        more = _fill(writer, source, max(1, min(1_024, TABLE_BYTES // table.max_value_bytes)))
        facts = writer.close()
        if facts is None:
            break
        relative = f"{where.name}/p{partition:05d}-{number:05d}-{attempt}.sst"
        where.storage.upload(local, f"{where.root}/{relative}")
        local.unlink()
        files.append(
            FileFacts(
                partition, relative, facts.entries, facts.size_bytes, facts.first_key, facts.last_key, facts.checksum
            )
        )
        total = total.plus(facts.digest)
    return files, total


def _fill(writer: sst.SstWriter, source: Iterator[tuple[bytes, bytes]], at_once: int) -> bool:
    """Put entries until the table is full, looking after so many; False when there are no more."""
    while (before := writer.size_bytes) < TABLE_BYTES:
        writer.put_many(islice(source, at_once))
        if writer.size_bytes == before:
            return False
    return True


def _facts(fold: Fold, cut: int, entries: int, digest_hex: str, last_before: str) -> PartFacts:
    """`last_before`: identity of the last record below the snapshot that is continued."""
    tally, last = fold.quarantine, fold.last or last_before
    return PartFacts(cut, fold.log_time_ms, entries, digest_hex, tally.counts, tally.records, last=last)


def _fetched(where: SstTarget, file: FileFacts, local: Path) -> Path:
    """A file of the repository, here; raises Corrupted when it is not the one of the manifest."""
    try:
        where.storage.fetch(f"{where.root}/{file.path}", local)
    except FileNotFoundError as error:
        raise _gone(file) from error
    if local.stat().st_size != file.size_bytes or sst.checksum(local) != file.checksum:
        raise _damaged(file)
    return local


def _gone(file: FileFacts) -> Corrupted:
    return Corrupted(f"{file.path} is gone; `logstore snapshot verify` shows what else is")


def _damaged(file: FileFacts) -> Corrupted:
    return Corrupted(
        f"{file.path} of partition {file.partition} is damaged: its size or checksum is not that of the manifest; "
        "`logstore batch rebuild` makes a snapshot from the archive instead"
    )


def _read_back(file: FileFacts, local: Path, cut: int) -> Digest:
    with sst.opened([local]) as reader:
        found = digest(_ordered(file, reader.scan(), cut))
    if found.entries != file.entries:
        raise Corrupted(f"{file.path} holds {found.entries:,} entries, {file.entries:,} were written")
    return found


def _ordered(file: FileFacts, entries: Iterable[tuple[bytes, bytes]], cut: int) -> Iterator[tuple[bytes, bytes]]:
    """The entries; keys rise within the file's range, and nothing is a tombstone or newer than the cut."""
    before = b""
    for key, entry in entries:
        if key <= before or entry[0] & 0x7F != VALUE or int.from_bytes(entry[1:9]) >= cut:
            raise Corrupted(
                f"{file.path} holds the key {key[:64]!r} out of order, deleted, or newer than the cut {cut:,}"
            )
        before = key
        yield key, entry
    if before != file.last_key:
        raise Corrupted(f"{file.path} ends with the key {before[:64]!r}, its manifest says {file.last_key[:64]!r}")
