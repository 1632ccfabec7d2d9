"""Rows read in place: values are `memoryview`s of the view's own map, for the length of a `with` block.

A transaction that is open keeps the writer from using pages again, so a block has an age. When that is reached, the
transactions end under it: what was read until then may change afterwards, so the block itself ends in an error.
"""

import itertools
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, NamedTuple, Self
from weakref import WeakValueDictionary

import numpy as np

from logstore.client.checks import Text
from logstore.model.errors import NotYet, SeveralValues, UsageError
from logstore.model.key import check_key, to_bytes
from logstore.model.table import Table
from logstore.replica.failures import typed
from logstore.serve.read.merged_read import Floor, MergedRead
from logstore.serve.state.partition import ServedPartition
from logstore.view.shared.reader import SharedReader

Locate = Callable[[int], ServedPartition]


class RowInPlace(NamedTuple):
    """A row whose value lies where LMDB has it; `bytes(row.value)` is a copy that may be kept."""

    key: bytes
    value: memoryview  # until its block ends
    version: int  # offset of the mutation that wrote it
    partition: int
    source: str  # "view", or "snapshot": then the value is a copy


class LentBytes(np.ndarray[Any, np.dtype[np.uint8]]):
    """Bytes of a map that is not unmapped while anything made of them is left, allowed or not."""

    reader: SharedReader


class ReplicaView:
    """One table, each of its partitions at one committed state from its first read on. Use it in a `with` block."""

    def __init__(self, table: Table, locate: Locate, floor: Floor, name: str) -> None:
        """Read from what `locate` gives, not below `floor`; callers use `Replica.view`."""
        self._table, self._locate, self._floor, self._name = table, locate, floor, name
        self._lock = threading.Lock()  # its age is ended by another thread
        self._stack = ExitStack()
        self._readings: dict[int, tuple[SharedReader, MergedRead]] = {}
        self._given: WeakValueDictionary[int, memoryview] = WeakValueDictionary()
        self._lent: WeakValueDictionary[int, LentBytes] = WeakValueDictionary()
        self._numbers = itertools.count()
        self._ended = self._expired = False

    def get(self, key: Text) -> RowInPlace | None:
        """The row of a key, or None. Raises like `Replica.get`; NotYet when the block is past its age.

        Of a row with siblings it raises SeveralValues, which has them.
        """
        raw = check_key(to_bytes(key))
        with self._lock, typed(self._name):
            self._check()
            place = self._table.partitioning.of(raw)
            reader, reading = self._reading(place)
            cell = reading.cell(raw)
            if cell.payload is None or cell.version is None:
                return None
            if isinstance(cell.payload, tuple):
                raise SeveralValues(raw, cell.version, cell.payload)
            return RowInPlace(raw, self._value(cell.payload, reader), cell.version, place, cell.source)

    def expire(self) -> None:
        """End the transactions, as the block is too old. From any thread."""
        with self._lock:
            if not self._ended:
                self._expired = True
                self._end()

    def __enter__(self) -> Self:
        self._check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            in_use = 0 if self._ended else self._end()
        if kind is not None:
            return
        if self._expired:
            raise NotYet(
                f"rows of {self._name!r} were held in place for too long: pages are used again by now, so what was "
                "read may have changed; hold them for less, or take copies"
            )
        if in_use:
            raise UsageError(
                f"{in_use:,} values that were read in place, or parts of them, are still used behind their block; take "
                "copies of them"
            )

    def _value(self, payload: bytes | memoryview, reader: SharedReader) -> memoryview:
        number = next(self._numbers)
        if isinstance(payload, memoryview):
            lent = self._lent[number] = np.asarray(payload, np.uint8).view(LentBytes)
            lent.reader = reader
            value = self._given[number] = lent.data
        else:
            value = self._given[number] = memoryview(payload)
        return value

    def _reading(self, place: int) -> tuple[SharedReader, MergedRead]:
        found = self._readings.get(place)
        if found is None:
            served = self._locate(place)
            reader = served.open()
            assert isinstance(reader, SharedReader), "a replica's views are shared ones"
            reading = self._stack.enter_context(reader.reading(buffers=True))
            found = self._readings[place] = reader, MergedRead(served, reading, None, self._floor)
        return found

    def _end(self) -> int:
        """End all transactions; returns how many values somebody still holds, or parts of."""
        self._ended = True
        for value in list(self._given.values()):
            with suppress(BufferError):  # it is in use, and counted below
                value.release()
        in_use = len(self._lent)
        self._readings.clear()
        self._stack.close()
        return in_use

    def _check(self) -> None:
        if self._expired:
            raise NotYet(f"this block of rows of {self._name!r} is past its age; begin another one")
        if self._ended:
            raise UsageError("this block has ended; begin another one with Replica.view")
