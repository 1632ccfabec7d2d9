"""Fold group: several small partitions folded by one task, which opens RocksDB twice for all of them.

    each: its archived log -> fold ─┐
    levels of all, in one directory ┴─> each: a delta, or its first base -> all synced -> all read back, in another one

To open a directory and to sync a file cost the same whatever is in them, and more than to fold a few records. No key is
in two partitions, so that a key finds its entry among the levels of all of them, and an entry that is read back its
partition. What is to be merged with levels below is folded alone (`sstables.fold_partition`), by the same task.
"""

import tempfile
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from batch.tasks import levels, read_back
from batch.tasks.conditional import fold_conditional
from batch.tasks.read_back import Written
from batch.tasks.sst_files import SstTarget, check_order, levels_opened, linked
from batch.tasks.sst_output import MadeFile, SstOutput
from batch.tasks.sstables import PartitionTask, fold_partition, is_anew
from logstore.model.folding.difference import Difference, LookUp, StateBelow, beside
from logstore.model.folding.digest import Digest
from logstore.model.safe_path import below
from logstore.model.table import Table
from logstore.snapshot import sst
from logstore.snapshot.manifest import FileFacts, levels_of
from logstore.snapshot.work import FoldOrder, FoldResult

GROUP_BYTES = 256 << 20  # of the records that a group may fold, whatever is in them


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


class _Made(NamedTuple):
    """Files of one partition that are written, and not uploaded yet; `written` says to what they lead."""

    task: PartitionTask
    files: list[MadeFile]
    written: Written

    @property
    def result(self) -> FoldResult:
        """The result, once they are uploaded and proved."""
        old = [] if is_anew(self.task.order) else self.task.order.base_files
        files = [*old, *self.written.files]
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
        """Files of the partitions that are not to be merged, of each at most one."""
        paths = [linked(self._where, task.old, task.scratch) for task in tasks if not is_anew(task.order)]
        together = [[path for level in of_level for path in level] for of_level in zip_longest(*paths, fillvalue=[])]
        with levels_opened(together, several=True) as reader:
            entries = sum(file.entries for task in tasks for file in task.old)
            made = [_made(task, reader, entries) for task in tasks]
        return [one for one in made if one is not None]

    def _upload(self, made: Sequence[_Made]) -> None:
        pairs = [(local.path, file) for one in made for local, file in zip(one.files, one.written.files, strict=True)]
        storage, root = self._where.storage, self._where.root
        storage.upload_all([(path, f"{root}/{file.path}") for path, file in pairs])
        for path, _ in pairs:
            path.unlink()


def _made(task: PartitionTask, levels_below: LookUp, entries: int) -> _Made | None:
    """Files of a partition, a delta or its first base; None where they are to be merged, or are several."""
    order, output, difference = task.order, task.output, Difference()
    changed = beside(task.fold.items(), task.fold.mutations, StateBelow(levels_below, task.before, entries))
    files = output.written(difference.passing(changed))
    size_bytes = sum(one.facts.size_bytes for one in files)
    merging = "nothing" if is_anew(order) else levels.merging(order.base_files, size_bytes, task.table.merge_share)
    if len(files) > 1 or merging != "nothing":
        for one in files:
            one.path.unlink()
        return None
    before = Digest() if is_anew(order) else task.before
    named = _named(output, files, 0 if is_anew(order) else len(levels_of(order.base_files)))
    written = Written(order.partition, named, order.cut, difference.after(before), difference.untouched(before))
    return _Made(task, files, written)


def _named(output: SstOutput, files: Sequence[MadeFile], level: int) -> list[FileFacts]:
    return [output.named(one, level) for one in files]
