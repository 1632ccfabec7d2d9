"""Partition folds: a job's partitions are folded by one task each, by several, or by one of several.

    orders ─> those that are too large: sample, ranges, a fold of each ─> what is to be merged, range by range
           ├> small ones: a fold of several neighbours
           └> the others: a fold

Digests of ranges add up: that of a delta is the difference it makes, so that they give, with the digest of the snapshot
before, that of the partition.
"""

import sys
from collections.abc import Sequence
from functools import partial

from batch import failpoints, task_groups
from batch.context import Context
from batch.tasks import fold_group, key_ranges, levels, sstables
from batch.tasks.fold import QuarantineTally
from batch.tasks.sst_files import SstTarget, check_order
from logstore.model.errors import Corrupted
from logstore.model.folding.difference import EVERY_KEY
from logstore.model.folding.digest import Digest
from logstore.model.table import Table
from logstore.snapshot.manifest import FileFacts
from logstore.snapshot.work import FoldOrder, FoldResult, MergeOrder, PartDigest, SampleOrder

GROUP_RECORDS = 4_096  # of small partitions that one task folds together


class PartitionFolds:
    """Folds of a job's partitions, as one step of it."""

    def __init__(self, ctx: Context, table: Table, where: SstTarget) -> None:
        self._ctx, self._table, self._where = ctx, table, where

    def run(self, orders: Sequence[FoldOrder]) -> list[FoldResult]:
        """Results, in order. Raises Unsupported, Corrupted, StorageUnreachable."""
        pieces = self._pieces(orders)
        flat = [piece for those in pieces for piece in those]
        task = partial(fold_group.fold_group, table=self._table, where=self._where)
        most = min(GROUP_RECORDS, fold_group.GROUP_BYTES // self._table.max_value_bytes)
        groups = task_groups.grouped(flat, self._cost_of, most, self._ctx.at_once())
        done = iter(task_groups.flattened(self._ctx.run("fold", task, groups)))
        parts = [[next(done) for _ in those] for those in pieces]
        if len(flat) > len(orders):
            failpoints.crash("compact:ranges")
        return [
            part[0] if len(part) == 1 else self._joined(order, those, part)
            for order, those, part in zip(orders, pieces, parts, strict=True)
        ]

    def _cost_of(self, order: FoldOrder) -> int:
        """Records and entries that a fold goes through, or fetches; a range of keys has a task alone."""
        if order.keys != EVERY_KEY:
            return sys.maxsize
        whole = sstables.is_anew(order) or self._where.storage.local(self._where.root) is None
        return order.cut - order.since + (sum(file.entries for file in order.base_files) if whole else 0)

    def _pieces(self, orders: Sequence[FoldOrder]) -> list[list[FoldOrder]]:
        """Orders of the tasks of each partition: several for ranges of one that is too large."""
        most = sys.maxsize if self._table.conditional else self._ctx.task_bytes  # what was decided is in no range
        counts = [key_ranges.count_of(order, most) for order in orders]
        large = [SampleOrder(order, count) for order, count in zip(orders, counts, strict=True) if count > 1]
        sampling = partial(key_ranges.sample, where=self._where)
        samples = iter(self._ctx.run("sample", sampling, large))
        return [
            [order] if count < 2 else [order._replace(keys=keys) for keys in key_ranges.ranges(next(samples), count)]
            for order, count in zip(orders, counts, strict=True)
        ]

    def _joined(self, order: FoldOrder, pieces: list[FoldOrder], done: list[FoldResult]) -> FoldResult:
        """The result of a partition, from those of its ranges."""
        _check_equal(order, done)
        total, facts, unchanged = _sum(done), done[0].facts, all(one.linked for one in done)
        tally = QuarantineTally(facts.quarantine_counts, facts.quarantine_records)
        for one in done[1:]:
            tally.join(QuarantineTally(one.facts.quarantine_counts, one.facts.quarantine_records))
        files = [file for one in done for file in one.files]
        if order.base is not None and unchanged and sstables.may_stay(order):
            files, total = order.base_files, Digest.from_hex(order.base.digest, order.base.entries)
        elif not sstables.is_anew(order):
            assert order.base is not None, "a delta lies upon a snapshot"
            total = Digest.from_hex(order.base.digest, order.base.entries).plus(total)
            files = self._upon(order, pieces, done, total)
        check_order(files)
        facts = facts._replace(
            entries=total.entries, digest=total.hex, quarantine_counts=tally.counts, quarantine_records=tally.records
        )
        return FoldResult(facts, files, files is order.base_files, done[0].records)

    def _upon(
        self, order: FoldOrder, pieces: list[FoldOrder], done: list[FoldResult], total: Digest
    ) -> list[FileFacts]:
        """Files with the delta, merged where its size says so."""
        old, new = order.base_files, [file for one in done for file in one.files]
        merging = levels.merging(old, sum(file.size_bytes for file in new), self._table.merge_share)
        if merging == "nothing" or not new:
            return [*old, *new]
        work = [
            MergeOrder(piece, one.files, merging == "all", PartDigest(one.facts.digest, one.facts.entries))
            for piece, one in zip(pieces, done, strict=True)
        ]
        merged = self._ctx.run("merge", partial(sstables.merge_range, table=self._table, where=self._where), work)
        if merging == "all":
            levels.check_merged(order.partition, _sum(merged), total, self._table.name)
        base = [] if merging == "all" else [file for file in old if not file.level]
        return [*base, *(file for one in merged for file in one.files)]


def _sum(done: Sequence[FoldResult]) -> Digest:
    total = Digest()
    for one in done:
        total = total.plus(Digest.from_hex(one.facts.digest, one.facts.entries))
    return total


def _check_equal(order: FoldOrder, done: Sequence[FoldResult]) -> None:
    """Requires that all ranges have read the same log, whole. Raises Corrupted."""
    read = {(one.records, one.facts.log_time_ms, one.facts.last) for one in done}
    if len(read) > 1:
        raise Corrupted(
            f"tasks of partition {order.partition} have read another archive each ({sorted(read)}): its files were "
            "changed meanwhile; `logstore batch archive --verify` looks which"
        )
