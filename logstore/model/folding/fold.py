"""Fold: `state(partition, n) = fold(mutations[0 .. n))`.

Pure: no clock, no I/O, no randomness; the same in the lane and in Spark.

`fold_row` is the definition, one row and one mutation at a time. `fold_batch` folds a run of records of one partition,
column by column; for plain puts and deletes (no reserved header) it takes a short cut whose result is the same
(`tests/test_fold.py` holds that).
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from logstore.model.folding.decided import Decided
from logstore.model.folding.entry import TOMBSTONE, VALUE, Entry, encode_head
from logstore.model.folding.mutation import RESERVED, Control, Delete, Headers, Put, Quarantined, Refused, parse
from logstore.model.key import MAX_KEY_BYTES
from logstore.model.partitioning.partitioning import Partitioning
from logstore.model.table import Table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_FEW_ODD = 8  # of so many records one may be odd: with more of them, record by record is quicker
_VERSION = slice(1, 9)  # of an encoded entry


class FoldRules(NamedTuple):
    """Rules by which records of one partition of a table are folded."""

    partition: int
    partitions: int
    max_value_bytes: int
    splits: tuple[bytes, ...] = ()  # of an ordered table

    @classmethod
    def of(cls, table: Table, partition: int) -> "FoldRules":
        """The rules of a table's partition."""
        return cls(partition, table.partitions, table.max_value_bytes, table.splits)

    @property
    def partitioning(self) -> Partitioning:
        """The rule by which rows are placed."""
        return Partitioning(self.partitions, self.splits)

    def is_here(self, key: bytes) -> bool:
        """True for a key of this partition."""
        return Partitioning(self.partitions, self.splits).of(key) == self.partition

    def are_here(self, keys: Sequence[bytes], key_lengths: Sequence[int] | None = None) -> "npt.NDArray[np.bool_]":
        """True for each key of this partition."""
        here: npt.NDArray[np.bool_] = self.partitioning.of_each(keys, key_lengths) == self.partition
        return here


class Records(NamedTuple):
    """A run of records of one partition as columns of equal length. Requires: offsets rise strictly."""

    offsets: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    timestamps_ms: Sequence[int]
    headers: Sequence[Headers | None]

    def slice(self, start: int, stop: int | None = None) -> "Records":
        """The records at the indices `[start, stop)`."""
        offsets, keys, values, timestamps_ms, headers = self
        part = slice(start, stop)
        return Records(offsets[part], keys[part], values[part], timestamps_ms[part], headers[part])

    def pick(self, indices: Sequence[int]) -> "Records":
        """The records at these indices, which rise."""
        offsets, keys, values, timestamps_ms, headers = (list(map(column.__getitem__, indices)) for column in self)
        return Records(offsets, keys, values, timestamps_ms, headers)  # type: ignore[arg-type]  # mypy joins their types

    def without(self, indices: Sequence[int]) -> "Records":
        """The records at all other indices. Requires: those rise."""
        bounds = list(zip([0, *(i + 1 for i in indices)], [*indices, len(self.offsets)], strict=True))
        picked = ([one for a, b in bounds for one in column[a:b]] for column in self)
        return Records(*picked)  # type: ignore[arg-type]  # columns of one row type each


class Folded(NamedTuple):
    """Changes that a run of records makes to a partition."""

    next_offset: int  # behind the last record that was folded
    log_time_ms: int  # the running maximum of the timestamps
    entries: dict[bytes, bytes]  # row key -> its new entry, encoded
    quarantined: list[tuple[int, str]]  # (offset, reason) of records that change nothing: not right, or not to be done
    refused: Refused | None  # the record at `next_offset` stops the partition
    decided: Decided | None = None  # outcomes and ids; None: the table keeps none
    awaited: str | None = None  # why the record at `next_offset` cannot be folded before a newer definition is known


def fold_row(before: Entry | None, mutation: Put | Delete, offset: int, timestamp_ms: int) -> Entry:
    """The row's entry after `mutation`, which stands at `offset`. Requires: offset is above the version before."""
    assert before is None or before.version < offset, "mutations are folded in the order of the log"
    if isinstance(mutation, Delete):
        return Entry(TOMBSTONE, offset, timestamp_ms)
    return Entry(VALUE, offset, timestamp_ms, mutation.value)


def fold_batch(records: Records, place: FoldRules, next_offset: int, log_time_ms: int) -> Folded:
    """Fold a run of records into what changes.

    Requires: the first offset is `next_offset` or, where offsets were stepped over by a repair, above it.
    """
    offsets, timestamps = records.offsets, records.timestamps_ms
    if not offsets:
        return Folded(next_offset, log_time_ms, {}, [], None)
    assert offsets[0] >= next_offset, "offset is next when applying"
    odd = odd_records(records, place)
    if not odd:
        return Folded(offsets[-1] + 1, max(log_time_ms, *timestamps, 0), newest(records), [], None)
    if len(odd) * _FEW_ODD > len(offsets):
        return _fold_each(records, place, next_offset, log_time_ms)
    return _fold_mixed(records, odd, place, next_offset, log_time_ms)


def odd_records(records: Records, place: FoldRules) -> list[int]:
    """Indices of the records that are no put or delete without reserved headers that is right in every respect."""
    keys, values = records.keys, records.values
    odd: set[int] = set()
    if any(records.headers):
        odd.update(i for i, headers in enumerate(records.headers) if headers and _reserved(headers))
    if not all(keys):  # null and empty alike
        odd.update(i for i, key in enumerate(keys) if not key)
        keys = [key or b"-" for key in keys]
    lengths = list(map(len, keys))  # type: ignore[arg-type]  # columns of one row type each
    if max(lengths) > MAX_KEY_BYTES:
        odd.update(i for i, length in enumerate(lengths) if length > MAX_KEY_BYTES)
    if max(map(len, filter(None, values)), default=0) > place.max_value_bytes:
        odd.update(i for i, value in enumerate(values) if value and len(value) > place.max_value_bytes)
    here = place.are_here(keys, lengths)  # type: ignore[arg-type]  # none is None any more
    if not here.all():
        odd.update((~here).nonzero()[0].tolist())
    return sorted(odd)


def _fold_mixed(records: Records, odd: list[int], place: FoldRules, next_offset: int, log_time_ms: int) -> Folded:
    """Plain records take the short cut, the odd ones among them the long way; of a row, the newer of both counts."""
    slow = _fold_each(records.pick(odd), place, next_offset, log_time_ms)
    if slow.refused is not None:  # nothing from there on counts
        records = records.slice(0, bisect_left(records.offsets, slow.next_offset))
        odd = [i for i in odd if i < len(records.offsets)]
    plain = records.without(odd)
    entries = newest(plain)
    for key, entry in slow.entries.items():
        if key not in entries or entries[key][_VERSION] < entry[_VERSION]:
            entries[key] = entry
    following = slow.next_offset if slow.refused is not None else records.offsets[-1] + 1
    log_time_ms = max(log_time_ms, *records.timestamps_ms, 0)
    return Folded(following, log_time_ms, entries, slow.quarantined, slow.refused)


def _reserved(headers: Headers) -> bool:
    return any(name.startswith(RESERVED) for name, _ in headers)


def newest(records: Records) -> dict[bytes, bytes]:
    """The newest mutation of every key, encoded: for plain records the fold is "the last one wins"."""
    offsets, keys, values, timestamps, _ = records
    if not offsets:
        return {}
    last = dict(zip(keys, range(len(keys)), strict=True))
    if None in values or min(timestamps) < 0:
        return {key: _encode(values[i], offsets[i], timestamps[i]) for key, i in last.items() if key is not None}
    head = encode_head  # looked up once: this line runs for every row that is written
    return {key: head(VALUE, offsets[i], timestamps[i]) + values[i] for key, i in last.items()}  # type: ignore[operator,misc]  # no None is left


def _encode(value: bytes | None, offset: int, timestamp_ms: int) -> bytes:
    return Entry(TOMBSTONE if value is None else VALUE, offset, max(timestamp_ms, 0), value or b"").encode()


def _fold_each(records: Records, place: FoldRules, next_offset: int, log_time_ms: int) -> Folded:
    """The definition at work: record by record, through `parse` and `fold_row`."""
    entries: dict[bytes, Entry] = {}
    quarantined: list[tuple[int, str]] = []
    for offset, key, value, timestamp, headers in zip(*records, strict=True):
        mutation = parse(
            key, value, headers or (), max_value_bytes=place.max_value_bytes, right_partition=place.is_here
        )
        if isinstance(mutation, Refused):
            return Folded(offset, log_time_ms, _encoded(entries), quarantined, mutation)
        log_time_ms = max(log_time_ms, timestamp)
        next_offset = offset + 1
        if isinstance(mutation, Quarantined):
            quarantined.append((offset, mutation.reason))
        elif not isinstance(mutation, Control):
            entries[mutation.key] = fold_row(entries.get(mutation.key), mutation, offset, max(timestamp, 0))
    return Folded(next_offset, log_time_ms, _encoded(entries), quarantined, None)


def _encoded(entries: dict[bytes, Entry]) -> dict[bytes, bytes]:
    return {key: entry.encode() for key, entry in entries.items()}
