"""SSTables: tasks that fold a partition's archived log over the snapshot before it, write SSTables, read them back.

    segments [lo, cut) -> fold -> newest mutation of every key ─┬─> a delta upon the SSTables of the snapshot at lo
                                                                └─> or merged with them by key: a new base

Everything streams. What is written counts once a manifest names it, and is proved by who wrote it, where the levels
below it are at hand. An order for a range of keys (`key_ranges`) leaves it to who has them all what is merged: its
digest is then the range's share, a difference where it is of a delta.
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from batch import failpoints
from batch.tasks import levels, read_back
from batch.tasks.conditional_fold import ConditionalFold
from batch.tasks.fold import Fold, QuarantineTally, Shape, over
from batch.tasks.sst_files import NoFiles, SstTarget, check_order, levels_opened, linked, scanned, state_of
from batch.tasks.sst_output import SstOutput
from logstore.model.folding.difference import EVERY_KEY, Difference, beside, ended
from logstore.model.folding.digest import Digest
from logstore.model.folding.fold import FoldRules
from logstore.model.safe_path import below
from logstore.model.table import Table
from logstore.snapshot import sst
from logstore.snapshot.archive.segment import Segment
from logstore.snapshot.archive.segment_file import read_segment
from logstore.snapshot.manifest import FileFacts, PartFacts, has_deltas, levels_of
from logstore.snapshot.storage import Storage
from logstore.snapshot.work import FoldOrder, FoldResult, MergeOrder


def fold_partition(order: FoldOrder, table: Table, where: SstTarget) -> FoldResult:
    """Fold one partition, and read what was written back. Raises Unsupported, Corrupted, StorageUnreachable."""
    with tempfile.TemporaryDirectory(prefix="logstore-fold-") as scratch:
        task = PartitionTask(order, SstOutput(table, order.partition, where, Path(scratch)))
        return task.read() or task.written()


class PartitionTask:
    """A partition that is folded over the snapshot before."""

    def __init__(self, order: FoldOrder, output: SstOutput) -> None:
        self.order, self.output = order, output
        self.table, self.where, self.scratch = output.table, output.where, output.scratch
        before, self.whole = order.base, order.keys == EVERY_KEY
        self.before = before.rows if before and self.whole else Digest()
        self.old = [file for file in order.base_files if order.keys.meets(file.first_key, file.last_key)]
        self._lower: list[list[Path]] | None = None
        self.fold, self.records = self._begun(), 0

    @property
    def lower(self) -> list[list[Path]]:
        """Files of the snapshot before that lie in the range, by level, for look-ups; brought here once."""
        if self._lower is None:  # a cached_property has a lock, and the class goes to executors by value
            self._lower = linked(self.where, self.old, self.scratch)
        return self._lower

    def read(self) -> FoldResult | None:
        """Read the archived log; the result, where nothing has come that is to be written."""
        order, fold = self.order, self.fold
        skips = self.table.skips.get(order.partition, [])
        self.records = feed(fold, order.segments, self.where.storage, skips, order.since, order.cut)
        failpoints.crash("worker:3")
        fold.finish()
        if not fold.mutations and not self._may_end and (may_stay(order) if self.whole else not is_anew(order)):
            return self.result(self.before, order.base_files if self.whole else [], linked=True)
        return None

    def written(self) -> FoldResult:
        """Write what has come of it. Requires: it was read."""
        files, total = self._base() if is_anew(self.order) else self._upon_levels()
        check_order(files)
        return self.result(total, files, linked=not self.fold.mutations and not self.whole)

    def result(self, total: Digest, files: list[FileFacts], *, linked: bool) -> FoldResult:
        """The result with these files."""
        return FoldResult(self._facts(total), files, linked, self.records)

    def _begun(self) -> "Fold | ConditionalFold":
        return _fold_of(self.order, self.table, self.scratch)

    def _live_below(self) -> AbstractContextManager[Iterator[tuple[bytes, bytes]]]:
        """Entries of the snapshot before, read whole."""
        return scanned(self.where, self.old, self.scratch, self.order.keys)

    @property
    def _ends_ms(self) -> int | None:
        """The log time by which rows have ended, of a table whose rows do."""
        return self.fold.log_time_ms if self.table.expiring else None

    @property
    def _may_end(self) -> bool:
        """True where rows of the snapshot before may have ended since."""
        before = self.order.base
        return self.table.expiring and before is not None and self.fold.log_time_ms > before.log_time_ms

    def _ended(self, items: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        """The items, what has ended as a tombstone."""
        return items if self._ends_ms is None else ended(items, self._ends_ms)

    def _base(self) -> tuple[list[FileFacts], Digest]:
        """All there is becomes a base."""
        with self._live_below() as base:
            files, total = self.output.base(over(self._ended(base), self._ended(self.fold.items())))
        read_back.prove(self.where, files, self.order.cut, total, self.scratch)
        return files, total

    def _upon_levels(self) -> tuple[list[FileFacts], Digest]:
        """The newest mutations become a delta, here; then what is to be merged with it, by its size, is merged."""
        old = self.order.base_files
        with levels_opened(self.lower) as reader:
            entries = self.before.entries if self.whole else sum(file.entries for file in self.old)
            state = state_of(reader, self.before, entries, self.table, self._ends_ms)
            difference = Difference()
            changed = beside(self.fold.items(), self.fold.mutations, state, self.order.keys)
            delta = self.output.written(difference.passing(changed))
            total = difference.after(self.before)
            paths = [made.path for made in delta]
            merged = levels.merging(old, sum(made.facts.size_bytes for made in delta), self.table.merge_share)
            if not self.whole:
                new = self.output.uploaded(delta, len(levels_of(old)))
                read_back.prove(self.where, new, self.order.cut, total, self.scratch, difference.untouched(self.before))
                return new, total
            if merged == "all":
                return self._merged([*self.lower, paths], total), total
            level, stay = len(self.lower), old
            if merged == "deltas":
                level, stay = 1, [file for file in old if not file.level]
                with sst.opened([*self.lower[1:], paths]) as deltas:
                    entries, difference = _entries_of(old) + self.fold.mutations, Difference()
                    delta = self.output.written(difference.counting(beside(deltas.stored(), entries, state)))
            new = self.output.uploaded(delta, level)
            read_back.prove(self.where, new, self.order.cut, total, self.scratch, difference.untouched(self.before))
        return [*stay, *new], total

    def _merged(self, paths: sst.Levels, total: Digest) -> list[FileFacts]:
        """Levels as a new base. Raises Corrupted when it has not the digest that the differences led to."""
        with sst.opened(paths) as reader:
            files, merged = self.output.base(reader.scan())
        levels.check_merged(self.order.partition, merged, total, self.table.name)
        read_back.prove(self.where, files, self.order.cut, total, self.scratch)
        return files

    def _facts(self, total: Digest) -> PartFacts:
        tally, before = self.fold.quarantine, self.order.base
        last = self.fold.last or (before.last if before else "")
        return PartFacts(
            self.order.cut, self.fold.log_time_ms, total.entries, total.hex, tally.counts, tally.records, last=last
        )


def may_stay(order: FoldOrder) -> bool:
    """True where the files of the snapshot before stay as they are if no mutation came."""
    return order.base is not None and not (order.full and has_deltas(order.base_files))


def is_anew(order: FoldOrder) -> bool:
    """True where all there is becomes a base, whatever its size."""
    return order.base is None or order.full or not levels.shares_of(order.base_files).base


def merge_range(order: MergeOrder, table: Table, where: SstTarget) -> FoldResult:
    """Merge levels in a range of keys, and read what was written back. Raises Corrupted, StorageUnreachable."""
    fold, keys = order.fold, order.fold.keys
    with tempfile.TemporaryDirectory(prefix="logstore-merge-") as scratch:
        output = SstOutput(table, fold.partition, where, Path(scratch))
        old = [file for file in fold.base_files if keys.meets(file.first_key, file.last_key)]
        merged = [file for file in [*old, *order.new] if order.into_base or file.level]
        untouched = Digest()
        with levels_opened(linked(where, merged, _folder(output.scratch, "merged"))) as reader:
            if order.into_base:
                files, total = output.base(reader.scan(*keys))
            else:
                total = Digest.from_hex(order.difference.digest, order.difference.entries)
                files, untouched = _one_delta(order, output, reader)
        read_back.prove(where, files, fold.cut, total, Path(scratch), untouched)
    return FoldResult(PartFacts(fold.cut, 0, total.entries, total.hex, {}, []), files, False, 0)


def _one_delta(order: MergeOrder, output: SstOutput, deltas: sst.SstReader | NoFiles) -> tuple[list[FileFacts], Digest]:
    """The deltas of a range as one, and the share of the levels below that it leaves untouched."""
    keys, difference = order.fold.keys, Difference()
    old = [file for file in order.fold.base_files if keys.meets(file.first_key, file.last_key)]
    with levels_opened(linked(output.where, old, _folder(output.scratch, "below"))) as reader:
        state = state_of(reader, Digest(), sum(file.entries for file in old), output.table)
        changed = beside(deltas.stored(*keys), _entries_of([*old, *order.new]), state, keys)
        files = output.uploaded(output.written(difference.counting(changed)), 1)
    return files, difference.untouched(Digest())


def _entries_of(files: Iterable[FileFacts]) -> int:
    """Entries of the deltas among some files."""
    return sum(file.entries for file in files if file.level)


def _folder(scratch: Path, name: str) -> Path:
    made = below(scratch, name)
    made.mkdir()
    return made


def _fold_of(order: FoldOrder, table: Table, scratch: Path) -> Fold:
    """An empty fold that goes on from the snapshot before; what that has quarantined is the first range's."""
    before, partition, first = order.base, order.partition, not order.keys.start
    known = QuarantineTally()
    if before and first:
        known = QuarantineTally(before.quarantine_counts, before.quarantine_records)
    place = FoldRules.of(table, partition)
    shape = Shape(table.name, place, table.skips.get(partition, []), order.keys)
    return Fold(shape, scratch, log_time_ms=before.log_time_ms if before else 0, quarantine=known)


def feed(
    fold: Fold | ConditionalFold,
    segments: list[Segment],
    storage: Storage,
    skips: list[tuple[int, int]],
    lo: int,
    cut: int,
) -> int:
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
