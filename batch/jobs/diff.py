"""Diff: rows in which two tables, or two points of one table's history, differ (versions and timestamps aside).

Of a row of several values the newest of each cell count, and all siblings; the cells that differ are named.

Kafka's partitioner takes a key's hash modulo the number of partitions, so keys whose hashes are equal modulo the
greatest common divisor of both numbers lie in the same few partitions of each side: that is one task, which merges the
sorted states of those partitions, and nothing has to be shuffled. Tables of equally many partitions make as many tasks.
Ordered tables are cut at the split points that both have; a hash table beside an ordered one is one task.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, pairwise
from typing import Any

from batch.context import Clock, Context
from batch.datasource import read
from batch.datasource.key_filter import Keys
from batch.defaults import LISTED, LISTED_CELLS
from batch.jobs import job_size
from batch.jobs.history import History
from batch.tasks.fold import BUFFER_BYTES
from logstore.model.folding.entry import SIBLINGS, Entry
from logstore.model.folding.sorted_merge import join
from logstore.model.hard_rows.changes.cell_differences import column_name, newest_values
from logstore.model.hard_rows.row import PLAIN_COLUMN
from logstore.model.partitioning.partitioning import Partitioning
from logstore.model.position import Position
from logstore.model.table import Table
from logstore.snapshot.work import DiffKey, DiffOrder, RestoreOrder, RowDiff, StateOrder

KINDS = ("only_left", "only_right", "different", "same")


@dataclass(frozen=True)
class Side:
    """A table at a position."""

    table: str
    position: Position

    @property
    def text(self) -> str:
        """Text of the side, as a person writes it."""
        return f"{self.table}@{self.position.token}"


@dataclass
class Diff:
    """Differences found. `keys`: the least LISTED of them."""

    left: Side
    right: Side
    counts: dict[str, int]  # only_left, only_right, different, same
    keys: list[DiffKey]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """True when every row is."""
        return not any(count for kind, count in self.counts.items() if kind != "same")

    def document(self) -> dict[str, Any]:
        """JSON document; keys as text, bytes that are none escaped."""
        sides = {
            name: {"table": side.table, "position": side.position.token}
            for name, side in (("left", self.left), ("right", self.right))
        }
        keys = [
            {"kind": kind, "key": key.decode(errors="backslashreplace"), **({"cells": cells} if cells else {})}
            for kind, key, cells in self.keys
        ]
        return {
            **sides,
            "same": self.same,
            **self.counts,
            "keys": keys,
            "seconds": {n: round(s, 3) for n, s in self.seconds.items()},
        }


def diff(ctx: Context, left: str, right: str, *, listed: int = LISTED) -> Diff:
    """Compare two sides: `NAME`, as it is now, or `NAME@TOKEN` or `NAME@TIME`.

    Raises NoSuchTable, UsageError, BadToken, NotRetained, EpochChanged, LogTruncated, Corrupted, StorageUnreachable,
    LogUnreachable.
    """
    clock = Clock()
    with clock.step("plan"):
        one, other = _State(ctx, left), _State(ctx, right)
    with clock.step("start"):
        ctx.start(job_size.of_history([*one.parts, *other.parts]))
    with clock.step("compare"):
        work = partial(compare_states, left=one.where, right=other.where)
        groups = groups_of(one.where.table.partitioning, other.where.table.partitioning)
        found = ctx.run("compare", work, _orders(one.parts, other.parts, groups, listed))
    counts = {kind: sum(part.counts[kind] for part in found) for kind in KINDS}
    keys = heapq.merge(*(part.keys for part in found), key=lambda one: one.key)
    return Diff(one.side, other.side, counts, list(islice(keys, listed)), clock.seconds)


class _State:
    """A table at a position, and where it is read."""

    def __init__(self, ctx: Context, text: str) -> None:
        """Find the parts of `NAME`, `NAME@TOKEN` or `NAME@TIME`; raises as `diff`."""
        name, at, moment = text.partition("@")
        table: Table = ctx.table(name)
        history = History(ctx, table)
        offsets = history.locate(moment) if at else history.ends
        self.side = Side(name, Position({(table.epoch, partition): offset for partition, offset in offsets.items()}))
        self.parts = history.parts(offsets)
        self.where = read.TableSource(ctx.bootstrap, table, ctx.storage)


def groups_of(left: Partitioning, right: Partitioning) -> list[tuple[Sequence[int], Sequence[int]]]:
    """Partitions of both sides that hold the same keys, in as many groups as can be."""
    if left.splits and right.splits:
        bounds = [b"", *sorted({*left.splits} & {*right.splits}), None]
        return [(left.touched(low or b"", high), right.touched(low or b"", high)) for low, high in pairwise(bounds)]
    count = 1 if left.splits or right.splits else math.gcd(left.partitions, right.partitions)
    return [(range(group, left.partitions, count), range(group, right.partitions, count)) for group in range(count)]


def _orders(
    left: list[RestoreOrder],
    right: list[RestoreOrder],
    groups: list[tuple[Sequence[int], Sequence[int]]],
    listed: int,
) -> list[DiffOrder]:
    """One for each group of keys. Requires: the parts are all partitions in order."""
    return [DiffOrder(_states(left, mine), _states(right, theirs), listed) for mine, theirs in groups]


def _states(parts: list[RestoreOrder], wanted: Sequence[int]) -> list[StateOrder]:
    return [StateOrder(parts[p].stretch, parts[p].base_files, parts[p].base) for p in wanted]


def compare_states(order: DiffOrder, left: read.TableSource, right: read.TableSource) -> RowDiff:
    """Compare the rows of some partitions of two tables. Raises as `read.rows_as_of`."""
    counts = dict.fromkeys(KINDS, 0)
    keys: list[DiffKey] = []
    share = BUFFER_BYTES // (len(order.left) + len(order.right))
    with ExitStack() as stack:
        sides = [_rows(stack, where, states, share) for where, states in ((left, order.left), (right, order.right))]
        for one, other in join(*sides):
            found = _compared(one, other)
            counts[found.kind] += 1
            if found.kind != "same" and len(keys) < order.listed:
                keys.append(found)
    return RowDiff(counts, keys)


def _rows(
    stack: ExitStack, where: read.TableSource, states: list[StateOrder], buffer_bytes: int
) -> Iterator[tuple[bytes, bytes]]:
    """Entries of some partitions of a table in key order."""
    opened = [stack.enter_context(read.state_as_of(where, state, Keys(), _unseen, buffer_bytes))[1] for state in states]
    return heapq.merge(*opened, key=lambda pair: pair[0])


def _compared(one: tuple[bytes, bytes] | None, other: tuple[bytes, bytes] | None) -> DiffKey:
    if one is None or other is None:
        left_or_right = one or other
        assert left_or_right is not None, "one of them is there"
        return DiffKey("only_right" if one is None else "only_left", left_or_right[0])
    left, right = Entry.decode(one[1]), Entry.decode(other[1])
    if max(left.kind, right.kind) < SIBLINGS:
        return DiffKey("same" if left.payload == right.payload else "different", one[0])
    mine, theirs = newest_values(one[1]), newest_values(other[1])
    columns = sorted(column for column in {*mine, *theirs} if mine.get(column) != theirs.get(column))
    named = () if columns == [PLAIN_COLUMN] else columns[:LISTED_CELLS]
    return DiffKey("different" if columns else "same", one[0], tuple(map(column_name, named)))


def _unseen(_count: int) -> None:
    """Rows that nobody counts."""
