"""SSTables: tasks that fold a partition's archived log over the snapshot before it, write SSTables, read them back.

    segments [lo, cut) -> fold -> newest mutation of every key ─┬─> a delta upon the SSTables of the snapshot at lo
                                                                └─> or merged with them by key: a new base

Everything streams, into files of some 256 MiB. They are written to a local folder and uploaded under names of this very
attempt; only a manifest makes them count.
"""

import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

from batch import failpoints
from batch.tasks import levels
from batch.tasks.fold import Fold, QuarantineTally, Shape, over
from batch.tasks.segments import read_segment
from logstore.model.errors import Corrupted
from logstore.model.folding.digest import Digest, digest
from logstore.model.folding.entry import TOMBSTONE, VALUE
from logstore.model.folding.fold import FoldRules
from logstore.model.safe_path import below
from logstore.model.table import Table
from logstore.snapshot import sst
from logstore.snapshot.archive import Segment
from logstore.snapshot.manifest import FileFacts, PartFacts, has_deltas, levels_of
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
        if before is not None and not fold.mutations and not (order.full and has_deltas(order.base_files)):
            facts = _facts(fold, cut, Digest.from_hex(before.digest, before.entries), before.last)
            return FoldResult(facts, order.base_files, True, records)
        output = SstOutput(table, partition, where, Path(scratch))
        files, total = _write_upon(before, order, fold, output)
        return FoldResult(_facts(fold, cut, total, before.last if before else ""), files, False, records)


def _write_upon(
    before: PartFacts | None, order: FoldOrder, fold: Fold, output: "SstOutput"
) -> tuple[list[FileFacts], Digest]:
    """The partition's files with what was folded, and their digest.

    1. What is to be merged whatever its size becomes a base.
    2. Else the newest mutations become a delta, here; the digest is that of before, and the difference.
    3. A delta too many, or too large, is merged with what it belongs to.
    4. What is new is uploaded.
    """
    tail, where, scratch = fold.items(), output.where, output.scratch
    if before is None or not levels.shares_of(order.base_files).base or order.full:
        with scanned(where, order.base_files, scratch) as base:
            return output.base(over(base, tail))  # 1
    difference, below = levels.Difference(), _linked(where, order.base_files, scratch)
    with sst.opened(below) as reader:
        walk = levels.is_quicker_to_walk(fold.mutations, before.entries)
        delta = output.written(difference.passing(levels.beside(tail, reader, walk=walk)))  # 2
    total = difference.after(Digest.from_hex(before.digest, before.entries))
    new = [path for path, _ in delta]
    shares = levels.shares_of(order.base_files)
    if shares.deltas + sum(facts.size_bytes for _, facts in delta) > output.table.merge_share * shares.base:  # 3
        with sst.opened([*below, new]) as reader:
            files, merged = output.base(reader.scan())
        if merged != total:
            raise Corrupted(
                f"partition {order.partition}: its levels merge to {merged.hex} of {merged.entries:,} entries, and the "
                f"difference to the snapshot before makes it {total.hex} of {total.entries:,}; `logstore batch rebuild "
                f"{output.table.name}` makes a snapshot from the archive instead"
            )
        return files, total
    if len(below) >= levels.AT_MOST:  # 3
        with sst.opened([*below[1:], new]) as reader:
            delta = output.written(reader.stored())
        return [*(file for file in order.base_files if not file.level), *output.uploaded(delta, 1)], total
    return [*order.base_files, *output.uploaded(delta, len(below))], total  # 4


def check_partition(order: CheckOrder, where: SstTarget) -> int:
    """Read back what a fold wrote of a partition, and prove its digest by it.

    Files of earlier snapshots were verified when they were made. Returns the bytes of the files.

    Raises Corrupted that names the file.
    """
    files, facts = order.files, order.facts
    for level in levels_of(files):
        for one, after in pairwise(level):
            if after.first_key <= one.last_key:
                raise Corrupted(f"{after.path} begins at or before the last key of {one.path}")
    new = [file for file in files if file.path.startswith(f"{where.name}/")]
    with tempfile.TemporaryDirectory(prefix="logstore-verify-") as scratch:
        for file in files if order.all_files else ():
            if file not in new:
                _fetched(where, file, Path(scratch, "linked.sst")).unlink()
        if order.linked:
            return _bytes(files)
        if len(new) == len(files):  # nothing is left of an earlier base
            total = _read_back(where, new, facts.cut, Path(scratch))
        else:
            total = _difference_read_back(where, order, new, Path(scratch))
    if total != Digest.from_hex(facts.digest, facts.entries):
        raise Corrupted(
            f"partition {order.partition} of snapshot {where.name} does not read back as it was written: "
            f"{total.entries:,} entries of {facts.entries:,}, digest {total.hex} instead of {facts.digest}"
        )
    return _bytes(files)


def check_sizes(where: SstTarget, files: list[FileFacts]) -> None:
    """Look whether files are there, in the size they were verified in when they were made. Raises Corrupted."""

    def size(file: FileFacts) -> int:
        try:
            return where.storage.size(f"{where.root}/{file.path}")
        except FileNotFoundError as error:
            raise _gone(file) from error

    linked = [file for file in files if not file.path.startswith(f"{where.name}/")]
    for file, found in zip(linked, at_once(size, linked), strict=True):
        if found != file.size_bytes:
            raise _damaged(file)


def _bytes(files: list[FileFacts]) -> int:
    return sum(file.size_bytes for file in files)


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
        local = _placed(levels_of(files), scratch, partial(_fetched, where))
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


class SstOutput(NamedTuple):
    """Output of one partition: SSTables written as the table wants them, through the folder `scratch`."""

    table: Table
    partition: int
    where: SstTarget
    scratch: Path

    def base(self, entries: Iterable[tuple[bytes, bytes]]) -> tuple[list[FileFacts], Digest]:
        """Write a base and upload it, a file at a time. Requires: entries in key order, none a tombstone."""
        files, total = list[FileFacts](), Digest()
        for one in self._made(entries):
            files += self.uploaded([one], 0)
            total = total.plus(one[1].digest)
        return files, total

    def written(self, entries: Iterable[tuple[bytes, bytes]]) -> list[tuple[Path, sst.SstFacts]]:
        """Write files, and leave them here. Requires: entries in key order."""
        return list(self._made(entries))

    def uploaded(self, made: Iterable[tuple[Path, sst.SstFacts]], level: int) -> list[FileFacts]:
        """Move files to the storage, as those of a level."""
        files = list[FileFacts]()
        for local, facts in made:
            path = f"{self.where.name}/p{self.partition:05d}-{local.stem}.sst"
            self.where.storage.upload(local, f"{self.where.root}/{path}")
            local.unlink()
            files.append(
                FileFacts(
                    self.partition, path, facts.entries, facts.size_bytes, facts.first_key, facts.last_key,
                    facts.checksum, level,
                )
            )  # fmt: skip
        return files

    def _made(self, entries: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[Path, sst.SstFacts]]:
        attempt, source, number, more = secrets.token_hex(4), iter(entries), 0, True
        at_once = max(1, min(1_024, TABLE_BYTES // self.table.max_value_bytes))
        while more:
            local = below(self.scratch, f"{number:05d}-{attempt}.sst")
            writer = sst.SstWriter(local, compression=self.table.compression, block_bytes=self.table.block_bytes)
            more = _fill(writer, source, at_once)
            facts = writer.close()
            if facts is not None:
                yield local, facts
            number += 1


def _fill(writer: sst.SstWriter, source: Iterator[tuple[bytes, bytes]], at_once: int) -> bool:
    """Put entries until the table is full, looking after so many; False when there are no more."""
    while (before := writer.size_bytes) < TABLE_BYTES:
        writer.put_many(islice(source, at_once))
        if writer.size_bytes == before:
            return False
    return True


def _facts(fold: Fold, cut: int, total: Digest, last_before: str) -> PartFacts:
    """`last_before`: identity of the last record below the snapshot that is continued."""
    tally, last = fold.quarantine, fold.last or last_before
    return PartFacts(cut, fold.log_time_ms, total.entries, total.hex, tally.counts, tally.records, last=last)


def _placed(
    by_level: list[list[FileFacts]], scratch: Path, bring: Callable[[FileFacts, Path], Path]
) -> list[list[Path]]:
    """The files by level, each brought to a name of its own in `scratch`."""
    return [
        [bring(file, below(scratch, f"level-{level}-{at:05d}.sst")) for at, file in enumerate(files)]
        for level, files in enumerate(by_level)
    ]


def _linked(where: SstTarget, files: list[FileFacts], scratch: Path) -> list[list[Path]]:
    """The files by level, for look-ups.

    Those on a disk stay where they are and are not read whole: each of their blocks has a checksum.
    """
    near = where.storage.local(where.root) is not None
    return _placed(levels_of(files), scratch, partial(_pointed if near else _fetched, where))


def _pointed(where: SstTarget, file: FileFacts, local: Path) -> Path:
    """A file of the repository on a disk; raises Corrupted when it has not the manifest's size."""
    here = where.storage.local(f"{where.root}/{file.path}")
    assert here is not None, "the storage is a disk"
    if not here.exists():
        raise _gone(file)
    if here.stat().st_size != file.size_bytes:
        raise _damaged(file)
    local.symlink_to(here)
    return local


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


def _read_back(where: SstTarget, files: list[FileFacts], cut: int, scratch: Path) -> Digest:
    """The digest of the files of a base, read one after the other."""
    total = Digest()
    for file in files:
        local = _fetched(where, file, scratch / "file.sst")
        with sst.opened([[local]]) as reader:
            total = total.plus(digest(_ordered(file, reader.stored(), cut)))
        local.unlink()
    return total


def _difference_read_back(where: SstTarget, order: CheckOrder, new: list[FileFacts], scratch: Path) -> Digest:
    """The digest that a new delta makes of the one before."""
    before, difference = order.base, levels.Difference()
    assert before is not None, "a delta lies upon a snapshot"
    with sst.opened(_linked(where, order.base_files, scratch)) as below:
        for file in new:
            local = _fetched(where, file, scratch / "delta.sst")
            walk = levels.is_quicker_to_walk(file.entries, before.entries)
            with sst.opened([[local]]) as delta:
                stored = _ordered(file, delta.stored(), order.facts.cut)
                for item, old in levels.beside(stored, below, walk=walk, start=file.first_key):
                    difference.add(item, old)
            local.unlink()
    return difference.after(Digest.from_hex(before.digest, before.entries))


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
