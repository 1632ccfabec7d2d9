"""Fold group: several small partitions folded by one task, which opens a RocksDB directory for all of them at once.

    each: its archived log -> fold ─┐
    levels of all, in one directory ┴─> each: a delta, or its first base ─┬────────────> all synced -> all read back,
    levels that are to be merged, of all, in another one ─> apart, by key ┴─> each: one     in a third one

To open a directory and to sync a file cost the same whatever is in them, and more than to fold a few records. No key is
in two partitions, so that a key finds its entry among the levels of all of them, and an entry that is read back its
partition. Partitions get a delta each time, and so come to be merged at the same time. Where there is more to merge
than MERGED_BYTES, partitions are folded alone (`sstables.fold_partition`), by the same task.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from batch.tasks import levels, read_back
from batch.tasks.conditional import fold_conditional
from batch.tasks.levels import Merging
from batch.tasks.read_back import Written
from batch.tasks.sst_files import NoFiles, SstTarget, check_order, levels_opened, state_of
from batch.tasks.sst_output import MadeFile, SstOutput
from batch.tasks.sstables import PartitionTask, fold_partition, is_anew
from logstore.model.errors import Corrupted
from logstore.model.folding.difference import Difference, LookUp, beside
from logstore.model.folding.digest import TOMBSTONES, Digest
from logstore.model.safe_path import below
from logstore.model.table import Table
from logstore.snapshot import sst
from logstore.snapshot.manifest import FileFacts, levels_of
from logstore.snapshot.sst import SstReader
from logstore.snapshot.work import FoldOrder, FoldResult

GROUP_BYTES = 256 << 20  # of the records that a group may fold, whatever is in them
MERGED_BYTES = 64 << 20  # of files that a group merges together


def fold_group(orders: Sequence[FoldOrder], table: Table, where: SstTarget) -> list[FoldResult]:
    """Fold partitions, each as `fold_partition` does. Requires: of several, each is whole. Raises as it does."""
    if table.conditional:
        return [fold_conditional(order, table, where) for order in orders]
    small = [order for order in orders if not (is_anew(order) and order.base_files)] if len(orders) > 1 else []
    done = _folded(small, table, where) if small else {}
    return [done.get(order.partition) or fold_partition(order, table, where) for order in orders]


def _folded(orders: Sequence[FoldOrder], table: Table, where: SstTarget) -> dict[int, FoldResult]:
    """Results by partition; none of those whose levels are to be merged."""
    near = where.storage.local(where.root) is not None  # what lies below is not copied
    memory = sst.in_memory(2 * GROUP_BYTES) if near else None
    with tempfile.TemporaryDirectory(prefix="logstore-fold-", dir=memory) as scratch:
        return _GroupTask(orders, table, where, Path(scratch)).run()


class _Delta(NamedTuple):
    """Delta of one partition, or its first base, as it was written: to what it leads, and what it does not replace."""

    task: PartitionTask
    files: list[MadeFile]
    merging: Merging
    claimed: Digest
    untouched: Digest

    @property
    def merged_files(self) -> list[FileFacts]:
        """Files of the snapshot before that are merged with it."""
        return {"nothing": [], "deltas": [one for one in self.old if one.level], "all": self.old}[self.merging]

    @property
    def old(self) -> list[FileFacts]:
        """Files of the snapshot before that it lies upon."""
        return [] if is_anew(self.task.order) else self.task.order.base_files

    @property
    def levels(self) -> list[list[Path]]:
        """The levels that are merged, here."""
        paths = [one.path for one in self.files]
        return [*self.task.lower[0 if self.merging == "all" else 1 :], *([paths] if paths else [])]

    def written(self, files: list[FileFacts]) -> Written:
        """The proof that is wanted of what was written of it."""
        order, beside = self.task.order, Digest() if self.merging == "all" else self.untouched
        return Written(order.partition, files, order.cut, self.claimed, beside)

    def drop(self) -> None:
        """Remove its files, which are here only."""
        for one in self.files:
            one.path.unlink()


class _Made(NamedTuple):
    """Files of one partition that are written, and not uploaded yet, and those of the snapshot before that stay."""

    task: PartitionTask
    stay: list[FileFacts]
    files: list[MadeFile]
    written: Written

    @property
    def result(self) -> FoldResult:
        """The result, once they are uploaded and proved."""
        files = [*self.stay, *self.written.files]
        check_order(files)
        return self.task.result(self.written.claimed, files, linked=False)


class _GroupTask:
    """Partitions that are folded by one task."""

    def __init__(self, orders: Sequence[FoldOrder], table: Table, where: SstTarget, scratch: Path) -> None:
        self._table, self._where, self._scratch = table, where, scratch
        self._tasks = [PartitionTask(order, self._output(order.partition)) for order in orders]

    def run(self) -> dict[int, FoldResult]:
        """Results by partition."""
        read = {task.order.partition: task.read() for task in self._tasks}
        done = {partition: result for partition, result in read.items() if result is not None}
        made = self._made([task for task in self._tasks if task.order.partition not in done])
        self._upload(made)
        read_back.prove_group(self._where, [one.written for one in made], self._table.partitioning, self._scratch)
        return done | {one.task.order.partition: one.result for one in made}

    def _output(self, partition: int) -> SstOutput:
        folder = below(self._scratch, f"p{partition:05d}")
        folder.mkdir()
        return SstOutput(self._table, partition, self._where, folder)

    def _made(self, tasks: Sequence[PartitionTask]) -> list[_Made]:
        """Files of the partitions, of each at most one; of those that are to be folded alone there are none."""
        together = _by_level(task.lower for task in tasks if not is_anew(task.order))
        with levels_opened(together, several=True) as reader:
            entries = sum(file.entries for task in tasks for file in task.old)
            deltas = [_delta(task, reader, entries) for task in tasks]
            upon = [_upon_levels(one) for one in deltas if one.merging == "nothing" and len(one.files) < 2]
            merged = self._merged([one for one in deltas if one.merging != "nothing"], reader)
        return [*upon, *merged]

    def _merged(self, deltas: Sequence[_Delta], state: LookUp) -> list[_Made]:
        """Deltas merged with levels below, as far as that is little. `state`: the snapshot before."""
        small = list(_first_of(deltas, MERGED_BYTES))
        if not small:
            return []
        merges = {one.task.order.partition: _Merge(one, state) for one in small}
        try:
            with levels_opened(_by_level(one.levels for one in small), several=True) as reader:
                for partition, items in read_back.by_partition(reader.stored(), self._table.partitioning):
                    if partition not in merges:
                        raise _foreign(items[0][0], partition, small)
                    merges[partition].take(items)
            return [one.end() for one in merges.values()]
        finally:
            for one in small:
                one.drop()

    def _upload(self, made: Sequence[_Made]) -> None:
        pairs = [(local.path, file) for one in made for local, file in zip(one.files, one.written.files, strict=True)]
        storage, root = self._where.storage, self._where.root
        storage.upload_all([(path, f"{root}/{file.path}") for path, file in pairs])
        for path, _ in pairs:
            path.unlink()


class _Merge:
    """Merge of one partition's levels: entries in key order in, one SSTable out."""

    def __init__(self, delta: _Delta, state: LookUp) -> None:
        self._delta, self._state, self._difference = delta, state, Difference()
        self._writer, self._path = delta.task.output.begun()

    def take(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """The next entries of the levels, tombstones too: those go with the base, and stay in a delta."""
        if self._delta.merging == "all":
            self._writer.put_many(item for item in items if item[1][0] not in TOMBSTONES)
        else:
            self._writer.put_many(self._difference.counting((item, self._state.get(item[0])) for item in items))

    def end(self) -> _Made:
        """The partition's files. Raises Corrupted when a base has not the digest that the differences led to."""
        delta, task, facts = self._delta, self._delta.task, self._writer.close()
        files = [MadeFile(self._path, facts)] if facts is not None else []
        if delta.merging == "all":
            found = facts.digest if facts is not None else Digest()
            levels.check_merged(task.order.partition, found, delta.claimed, task.table.name)
            return _Made(task, [], files, delta.written(_named(task.output, files, 0)))
        untouched = self._difference.untouched(task.before)
        written = delta._replace(untouched=untouched).written(_named(task.output, files, 1))
        return _Made(task, [one for one in delta.old if not one.level], files, written)


def _delta(task: PartitionTask, levels_below: SstReader | NoFiles, entries: int) -> _Delta:
    """The delta of a partition, or its first base; it is written and stays here."""
    order, output, difference = task.order, task.output, Difference()
    changed = beside(task.fold.items(), task.fold.mutations, state_of(levels_below, task.before, entries, task.table))
    files = output.written(difference.passing(changed))
    size_bytes = sum(one.facts.size_bytes for one in files)
    merging: Merging = "nothing"
    if not is_anew(order):
        merging = levels.merging(order.base_files, size_bytes, task.table.merge_share)
    before = Digest() if is_anew(order) else task.before
    return _Delta(task, files, merging, difference.after(before), difference.untouched(before))


def _upon_levels(delta: _Delta) -> _Made:
    """A delta that is merged with nothing."""
    level = len(levels_of(delta.old))
    return _Made(delta.task, delta.old, delta.files, delta.written(_named(delta.task.output, delta.files, level)))


def _foreign(key: bytes, partition: int, deltas: Sequence[_Delta]) -> Corrupted:
    table, whose = deltas[0].task.table.name, ", ".join(str(one.task.order.partition) for one in deltas)
    return Corrupted(
        f"a snapshot of {table} holds the key {key[:64]!r} of partition {partition} in a file of another one, of "
        f"{whose}; `logstore batch rebuild {table}` makes a snapshot from the archive instead"
    )


def _first_of(deltas: Iterable[_Delta], most_bytes: int) -> Iterator[_Delta]:
    """Deltas whose levels have so many bytes together; the files of the others are removed."""
    for one in deltas:
        size_bytes = sum(file.size_bytes for file in one.merged_files) + sum(m.facts.size_bytes for m in one.files)
        most_bytes -= size_bytes
        if most_bytes >= 0:
            yield one
        else:
            most_bytes += size_bytes
            one.drop()


def _by_level(partitions: Iterable[Sequence[list[Path]]]) -> list[list[Path]]:
    """Levels of several partitions as levels of all of them: each level of a partition lies above its own."""
    together = zip_longest(*partitions, fillvalue=list[Path]())
    return [[path for level in of_level for path in level] for of_level in together]


def _named(output: SstOutput, files: Sequence[MadeFile], level: int) -> list[FileFacts]:
    return [output.named(one, level) for one in files]
