"""Logs of hard records, and a partition that folds them, in memory."""

from typing import NamedTuple

import msgpack
from support_reference import Reference

from logstore.model.folding.fold import FoldRules
from logstore.model.folding.mutation import Control, Quarantined, Refused
from logstore.model.hard_rows.fold_rows import PlacedMutation, fold_rows
from logstore.model.hard_rows.outcomes import DuplicateOutcome, is_remembered
from logstore.model.hard_rows.parse import parse_hard
from logstore.model.hard_rows.row import ABSENT, PLAIN_COLUMN
from logstore.model.hard_rows.rules import ColumnFamily, Rules
from logstore.model.partitioner import partition_of

FAMILIES = {"": ColumnFamily(), "a": ColumnFamily(versions=2, ttl_ms=30, group="bulk"), "b": ColumnFamily(versions=3)}


def kv(*, versions=1, max_value_bytes=1_000, **more):
    return Rules(FoldRules(0, 2, max_value_bytes), families={"": ColumnFamily(versions)}, **more)


def wide(*, max_value_bytes=1_000, **more):
    return Rules(FoldRules(0, 2, max_value_bytes), wide=True, families=FAMILIES, **more)


def reference_of(rules):
    return Reference(
        {name: tuple(family) for name, family in rules.families.items()}, wide=rules.wide,
        siblings=rules.keeps_siblings, window_ms=rules.dedup_window_ms, window_records=rules.dedup_records,
        max_value=rules.place.max_value_bytes, max_cells=rules.max_row_cells,
        here=lambda key: partition_of(key, rules.place.partitions) == rules.place.partition,
    )  # fmt: skip


class HardRecord(NamedTuple):
    operation: str
    key: bytes
    value: bytes | None
    headers: dict
    timestamp: int
    said: bool = True  # by a header; a plain put or delete needs none

    def parsed(self, rules):
        own = [("ls.op", self.operation.encode())] if self.said else []
        return parse_hard(self.key, self.value, [*own, *self.headers.items()], rules)


class Log:
    """Records of one partition, offset after offset."""

    def __init__(self, records=()):
        self.records = list(records)

    def add(self, key, value, operation=None, *, timestamp=1_000, **terms):
        headers = {f"ls.{name}": raw for name, raw in terms.items()}
        word = operation or ("delete" if value is None else "put")
        self.records.append(HardRecord(word, key, value, headers, timestamp, operation is not None))
        return self

    def _tell(self, key, value, operation, *, condition=None, ttl=None, seen=None, id=None, timestamp=1_000):  # noqa: A002 - as the header is called
        raw = {
            "if": condition, "ttl": None if ttl is None else ttl.to_bytes(8, "big"), "id": id,
            "seen": None if seen is None else b"%d" % seen,
        }  # fmt: skip
        parts = {name: one for name, one in raw.items() if one is not None}
        return self.add(key, value, operation, timestamp=timestamp, **parts)

    def put(self, key, value, operation=None, **terms):
        return self._tell(key, value, operation, **terms)

    def delete(self, key, **terms):
        return self._tell(key, None, None, **terms)

    def incr(self, key, delta, **terms):
        return self._tell(key, delta.to_bytes(8, "big", signed=True), "incr", **terms)

    def append(self, key, more, **terms):
        return self._tell(key, more, "append", **terms)

    def edit(self, key, *edits, **terms):
        return self._tell(key, msgpack.packb(edits), "edit", **terms)

    def upto(self, count):
        return Log(self.records[:count])

    def between(self, first, after):
        return enumerate_from(first, self.records[first:after])


def enumerate_from(first, records):
    return list(zip(range(first, first + len(records)), records, strict=True))


class Partition:
    """The state that the fold makes, batch by batch."""

    def __init__(self, rules):
        self.rules = rules
        self.next_offset, self.log_time_ms, self.counter = 0, 0, 0
        self.rows, self.outcomes, self.ids = {}, {}, {}

    def take(self, log, upto):
        self._keep(fold_rows(self.rows, self.ids, self._steps(log, upto), self.rules))

    def take_by_row(self, log):
        by_row = {}
        for step in self._steps(log, len(log.records)):
            by_row.setdefault(step.mutation.key, []).append(step)
        for steps in by_row.values():
            self._keep(fold_rows(self.rows, self.ids, steps, self.rules))
        self.outcomes = dict(sorted(self.outcomes.items()))

    def reclaim(self):
        """Remove the bytes of what has ended."""
        self.rows = {key: row for key in self.rows if (row := self.row(key)) is not ABSENT}
        self.ids, self.outcomes = self._living(self.ids), self._living(self.outcomes)

    def row(self, key):
        return self.rows.get(key, ABSENT).at(self.log_time_ms)

    def cell(self, key, *column):
        return self.row(key).cells.get(column or PLAIN_COLUMN)

    def members(self, key):
        cell = self.cell(key)
        return [one.payload for one in cell.members] if cell else []

    def value(self, key, *column):
        cell = self.cell(key, *column)
        return cell.members[0].payload if cell else None

    def history(self, key, *column):
        cell = self.cell(key, *column)
        return [one.payload for one in (*cell.members, *cell.older)]

    def state(self):
        rows = {key: self.row(key) for key in self.rows}
        cells = {
            (key, *column): (cell.version, [one[1:] for one in (*cell.members, *cell.older)])
            for key, row in rows.items() for column, cell in row.cells.items()
        }  # fmt: skip
        groups = {(key, group): at for key, row in rows.items() for group, at in row.versions.items()}
        living = self._living(self.ids)
        ids = {name: (one.first, one.content, plain(one.outcome), *one[3:]) for name, one in living.items()}
        outcomes = {at: (plain(one.outcome), *one[1:]) for at, one in self._living(self.outcomes).items()}
        return cells, groups, ids, outcomes, self.log_time_ms, self.counter

    def _living(self, found):
        return {
            name: one
            for name, one in found.items()
            if is_remembered(one, self.log_time_ms, self.counter, self.rules.window)
        }

    def _keep(self, folded):
        self.rows |= folded.rows
        self.outcomes |= folded.outcomes
        self.ids |= folded.ids

    def _steps(self, log, upto):
        steps = []
        for offset, record in log.between(self.next_offset, upto):
            mutation = record.parsed(self.rules)
            assert not isinstance(mutation, Refused | Control)
            self.log_time_ms = max(self.log_time_ms, record.timestamp)
            if isinstance(mutation, Quarantined):
                continue
            steps.append(PlacedMutation(offset, record.timestamp, self.log_time_ms, self.counter, mutation))
            self.counter += mutation.is_decided
        self.next_offset = upto
        return steps


def plain(outcome):
    """An outcome as the model writes it."""
    name = type(outcome).__name__.removesuffix("Outcome").lower()
    if isinstance(outcome, DuplicateOutcome):
        return name, outcome.first, plain(outcome.outcome)
    return (name, *outcome)
