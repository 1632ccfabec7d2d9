"""Conditional fold: one partition of a conditional table, out of Arrow batches in the order of the log.

    outcomes and ids of the snapshot before ─> scratch view <─ batches, stretch by stretch, over the view and the levels
                                                    │           below it (`logstore.model.hard_rows.stretch`)
                                                    └─> rows that changed, by key; all outcomes and ids in the state

What a record of such a table does depends on what is there, and on what was decided before: so a partition is folded
whole, in one task, as the lane folds it, over a view on the task's own disk. Memory is bounded by a batch.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from batch.tasks.fold import Item, QuarantineTally, without_skipped
from logstore.log.read.ranges import identity_at
from logstore.model.errors import NotYet, Unsupported
from logstore.model.folding.difference import LookUp
from logstore.model.folding.digest import Digest
from logstore.model.folding.fold import Records
from logstore.model.folding.mutation import Headers
from logstore.model.hard_rows.decisions import DecisionItem, decisions_digest
from logstore.model.hard_rows.rules import rules_of
from logstore.model.hard_rows.stretch import StretchStart, fold_stretch
from logstore.model.safe_path import below as path_below
from logstore.model.table import Table
from logstore.snapshot import decisions
from logstore.snapshot.manifest import PartFacts

if TYPE_CHECKING:
    from logstore.view.layout import Base


class FoldStart(NamedTuple):
    """State with which a fold begins: `facts` of a snapshot, its outcomes and ids, and its rows; None: offset 0."""

    facts: PartFacts | None
    decided: Path | None  # their file, here; None: the snapshot has none
    rows: LookUp


class ConditionalFold:
    """The fold of one partition, as `batch.tasks.fold.Fold` is one, and what was decided on its way."""

    def __init__(self, table: Table, partition: int, start: FoldStart, scratch: Path) -> None:
        """`scratch` takes the view. Raises Corrupted when the start's outcomes and ids are not what its facts say."""
        from logstore.view.view import View, ViewIdentity  # noqa: PLC0415 - executors need no LMDB for plain tables

        before = start.facts
        self.table, self.partition = table, partition
        self.quarantine = QuarantineTally(*(before.quarantine_counts, before.quarantine_records) if before else ())
        self.last = ""  # identity of the newest record that was handed over
        self._rules, self._rows_below = rules_of(table, partition), start.rows
        base = None if before is None else _base(before)
        self._view = View(path_below(scratch, "view"), ViewIdentity.of(table, partition), base)
        try:
            self._take_in(start)
        except BaseException:
            self.close()
            raise

    @property
    def log_time_ms(self) -> int:
        """The partition's log time."""
        return self._view.state.log_time_ms

    @property
    def counter(self) -> int:
        """Outcomes that the partition has counted."""
        return self._view.counter

    @property
    def revision(self) -> int:
        """Revision of the rules in force behind what was taken."""
        return self._view.revision

    @property
    def mutations(self) -> int:
        """Rows that were changed."""
        with self._view.reader().reading() as reading:
            return reading.count()

    def take(self, batch: pa.RecordBatch) -> None:
        """Fold a batch (the columns of `log.ranges.SCHEMA`).

        Raises Unsupported for a record that only a later build can fold, NotYet for one of a newer definition.
        """
        from logstore.view.conditional.state_before import ViewState  # noqa: PLC0415 - executors need no LMDB for plain tables

        if batch.num_rows:
            self.last = identity_at(batch, batch.num_rows - 1)
        batch = without_skipped(batch, self.table.skips.get(self.partition, []))
        if not batch.num_rows:
            return
        view = self._view
        start = StretchStart(view.next_offset, view.state.log_time_ms, view.counter, view.revision)
        folded = fold_stretch(_records(batch), self._rules, start, ViewState(view.reader(), lambda: self._rows_below))
        if folded.refused is not None:
            raise Unsupported(folded.refused.advice(self.table.name, self.partition, folded.next_offset))
        if folded.awaited is not None:
            raise NotYet(f"{self.table.name}/{self.partition}: {folded.awaited}; run the job again")
        for offset, reason in folded.quarantined:
            self.quarantine.add(offset, reason)
        view.apply(folded._replace(quarantined=[]))

    def finish(self) -> None:
        """Nothing is left to check: a batch is folded when it is taken."""

    def items(self) -> Iterator[Item]:
        """Rows that changed in key order as (key, entry), deleted ones as tombstones."""
        with self._view.reader().reading() as reading:
            yield from reading.scan()

    def decided(self) -> Iterator[DecisionItem]:
        """Outcomes and ids in the state, all of them, in key order."""
        with self._view.reader().reading() as reading:
            assert reading.decisions is not None, "the table is conditional"
            yield from reading.decisions.items()

    def decided_digest(self) -> Digest:
        """The digest of outcomes and ids."""
        return decisions_digest(self.decided())

    def close(self) -> None:
        """Let the view go."""
        self._view.close(flush=False)

    def _take_in(self, start: FoldStart) -> None:
        from logstore.view.generation import take_in  # noqa: PLC0415 - executors need no LMDB for plain tables

        if start.decided is not None:
            with decisions.stored(start.decided) as items:
                take_in(self._view, items)
        elif start.facts is not None:
            take_in(self._view, ())


def _base(before: PartFacts) -> "Base":
    from logstore.view.layout import Base  # noqa: PLC0415 - executors need no LMDB for plain tables

    return Base(
        "before", before.cut, before.log_time_ms, before.digest, before.entries, "", before.leader_epoch, before.last,
        before.counter, before.rows_digest, before.rules,
    )  # fmt: skip


def _records(batch: pa.RecordBatch) -> Records:
    offsets, keys, values, timestamps = (
        batch.column(name).to_pylist() for name in ("offset", "key", "value", "timestamp")
    )
    return Records(offsets, keys, values, timestamps, _headers(batch.column("headers")))


def _headers(column: pa.Array) -> list[Headers | None]:
    if column.null_count == len(column):
        return [None] * len(column)
    return [
        None if headers is None else [(header["key"], header["value"]) for header in headers]
        for headers in column.to_pylist()
    ]
