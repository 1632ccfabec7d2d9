"""DecidedBatch: one `put_many` to a table whose rows may refuse a put, each of which is told what became of it.

Slower than `WriteBatch`, by a request for outcomes in every thousand writes and the fold of each; what was refused is
known by its place, and not only counted.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from logstore.client.checks import CheckedWrites, Pair, Text, pairs_of
from logstore.client.write.pipeline import Pipeline
from logstore.model.errors import BatchFailed, BatchUnknown, LogStoreError, StillPending, Unknown, UsageError
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.client.write.pipeline import Written

_CHUNK = 1_000  # pairs that are checked at once
_UNDER_WAY = 16_000  # writes whose end is waited for: fewer than a pipeline takes
_HELD = (list, tuple, Mapping)  # pairs that can be gone through twice


class DecidedBatch:
    """Pairs of one call, each of which is written and accounted for. `pipeline`: its own; it ends with the call."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._under_way: deque[tuple[int, Written]] = deque()
        self._count = 0
        self._pieces: dict[tuple[str, int], int] = {}
        self._failed: list[range] = []
        self._unknown: list[range] = []
        self._first: LogStoreError | None = None

    def run(self, pairs: Mapping[Text, Text | None] | Iterable[Pair]) -> Position:
        """Write all; returns when everything is applied, deletes acknowledged.

        Raises BatchFailed, BatchUnknown; UsageError for a pair that cannot be written: before anything is, where
        `pairs` is a list, a tuple or a mapping. After a failure nothing more is begun.
        """
        try:
            if isinstance(pairs, _HELD):
                for _ in self._chunks(pairs):
                    pass
            return self._write(pairs)
        finally:
            self._pipeline.end("its put_many is over")

    def _chunks(self, pairs: Mapping[Text, Text | None] | Iterable[Pair]) -> Iterator[CheckedWrites]:
        source, start = pairs_of(pairs), 0
        while some := list(islice(source, _CHUNK)):
            yield CheckedWrites(some, self._pipeline.table, start)
            start += len(some)

    def _write(self, pairs: Mapping[Text, Text | None] | Iterable[Pair]) -> Position:
        chunks = self._chunks(pairs)
        try:
            while self._first is None and (chunk := next(chunks, None)) is not None:
                self._queue(chunk)
        except UsageError as error:
            self._settle(0)
            error.add_note(f"put_many wrote the {self._count:,} pairs before this chunk, and nothing after")
            raise
        self._settle(0)
        return self._result()

    def _queue(self, chunk: CheckedWrites) -> None:
        for key, value in zip(chunk.keys, chunk.values, strict=True):
            self._settle(_UNDER_WAY)
            if self._first is not None:
                return
            try:
                pending = self._pipeline.write(key, value, None, ())
            except UsageError:
                raise
            except LogStoreError as error:  # it did not get in
                self._note(self._count, error)
            else:
                self._under_way.append((self._count, pending))
            self._count += 1

    def _settle(self, most: int) -> None:
        """Wait until at most so many are under way, and account for the others."""
        while len(self._under_way) > most or (self._under_way and self._under_way[0][1].done()):
            place, pending = self._under_way.popleft()
            try:
                error = pending.exception()
            except StillPending as late:
                error = late
            if error is None:
                ((where, following),) = pending.result().pieces.items()
                self._pieces[where] = max(self._pieces.get(where, 0), following)
            else:
                self._note(place, error)

    def _note(self, place: int, error: LogStoreError) -> None:
        self._first = self._first or error
        places = self._unknown if isinstance(error, Unknown | StillPending) else self._failed
        if places and places[-1].stop == place:
            places[-1] = range(places[-1].start, place + 1)
        else:
            places.append(range(place, place + 1))

    def _result(self) -> Position:
        position = Position(self._pieces)
        if self._first is None:
            return position
        failed, unknown = sum(map(len, self._failed)), sum(map(len, self._unknown))
        if unknown:
            raise BatchUnknown(
                self._count, failed, unknown, self._first,
                failed_places=self._failed, unknown_places=self._unknown, position=position,
            )  # fmt: skip
        raise BatchFailed(self._count, failed, self._first, failed_places=self._failed, position=position)
