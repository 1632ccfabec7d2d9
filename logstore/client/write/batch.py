"""Batch: one `put_many`, from pairs to the one position that covers them all.

The delivery reports of a chunk are taken by `dict.__setitem__` itself, called as (error, message): no Python frame per
record. What is left in that dict says whether everything arrived (its only key is None), or which errors there were.
The offsets come from the last record of each partition, which has a dict of its own: an idempotent producer
acknowledges a partition's records in their order, so the last one acknowledged has the greatest offset, and everything
before it has been reported.

One thing such a report does not show: a producer's first batch in a partition that was refused while a second one, on
its way already, was taken (`delivery.unproved`). So the first record of each partition goes alone, and the next ones
follow when it has its offset.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from time import monotonic
from typing import Any

from logstore.client.checks import CheckedWrites, Pair, Text, pairs_of
from logstore.log.connect.access import Access
from logstore.log.write.delivery import delivery_error, unproved
from logstore.log.write.limits import GRACE_S
from logstore.log.write.producer import Producer
from logstore.model.errors import BatchFailed, BatchUnknown, LogStoreError, Overloaded, Unknown, UsageError
from logstore.model.position import Position
from logstore.model.table import Table

AHEAD_RECORDS, AHEAD_BYTES = 20_000, 32 * 1024 * 1024  # of a stream: taken and checked before anything is written
CHUNK = 4_000  # records that librdkafka is given at once: the more, the longer its own batches, which cost by the batch
PIECE, SHORT_BYTES = 500, 1_024  # records that are taken at once, and what one may have for another piece to be taken
_LATE = "no acknowledgement came before the deadline: the writes may or may not be in the log"
_HELD = (list, tuple, Mapping)  # pairs that can be gone through twice

Reports = dict[Any, Any]  # KafkaError or None -> the newest message so reported


class _Sent:
    """A chunk of writes on its way. Its reports come on any thread: they are copied before they are gone through."""

    __slots__ = ("last", "others", "places", "proved", "reports")

    def __init__(self, places: range, last: dict[int, Reports], others: int, proved: set[int]) -> None:
        self.places, self.last, self.others, self.proved = places, last, others, proved
        self.reports: Reports = {}

    def acknowledged(self) -> bool:
        """True when every record is in the log."""
        return all(map(_proved, self.last.values())) and self.reports.keys() == ({None} if self.others else set())

    def settled(self) -> bool:
        """True when nothing more is to come, for sure, or something went wrong."""
        return all(self.last.values()) or any(error is not None for error in list(self.reports))

    def errors(self, access: Access) -> list[LogStoreError]:
        """Failures of a client with that access, one of each kind; empty when reports are missing only."""
        return [
            delivery_error(error, message.topic(), access)
            for reports in (self.reports, *self.last.values())
            for error, message in list(reports.items())
            if error is not None
        ]

    def nothing_arrived(self) -> bool:
        """True when every record has been reported and none as acknowledged."""
        return (
            all(self.last.values())
            and bool(self.reports or not self.others)
            and not any(None in r for r in (self.reports, *self.last.values()))
        )


class WriteBatch:
    """Pairs of one call, each of which is written and accounted for."""

    def __init__(self, producer: Producer, table: Table) -> None:
        self._producer, self._table = producer, table
        self._sent: deque[_Sent] = deque()
        self._count = 0
        self._pieces: dict[tuple[str, int], int] = {}
        self._failed: list[range] = []
        self._unknown: list[range] = []
        self._first: LogStoreError | None = None
        self._source: Iterator[Pair] = iter(())
        self._taken: list[Pair] | None = []  # from the source, while nothing of it is in the log

    def run(self, pairs: Mapping[Text, Text | None] | Iterable[Pair]) -> Position:
        """Write all; returns when everything is acknowledged.

        Raises BatchFailed, BatchUnknown; UsageError when a pair cannot be written. A list, a tuple or a mapping is
        checked whole, and of any other source the first `AHEAD_RECORDS` (or `AHEAD_BYTES`), before anything is written.
        Beyond that the pairs before the chunk of the bad one are written, none after; a note of the error counts them.
        """
        self._source = pairs_of(pairs)
        if isinstance(pairs, _HELD):
            return self._write(self._checked(pairs) or self._chunks(self._source))
        chunks, ahead = self._chunks(self._source), deque[CheckedWrites]()
        records = size_bytes = 0
        while records < AHEAD_RECORDS and size_bytes < AHEAD_BYTES and (chunk := next(chunks, None)):
            ahead.append(chunk)
            records, size_bytes = records + len(chunk.keys), size_bytes + chunk.size_bytes
        return self._write(_drained(ahead, chunks))

    @property
    def epoch(self) -> str:
        """The log that is written to."""
        return self._table.epoch

    @property
    def table(self) -> Table:
        """The definition by which records are placed."""
        return self._table

    def unwritten(self) -> bool:
        """True when nothing of it is, or may be, in the log."""
        return not self._pieces and not self._unknown

    def over_again(
        self, pairs: Mapping[Text, Text | None] | Iterable[Pair]
    ) -> Mapping[Text, Text | None] | Iterable[Pair]:
        """Pairs of the whole batch, to be written anew. Requires: `unwritten`."""
        return pairs if isinstance(pairs, _HELD) else chain(self._taken or (), self._source)

    def _chunks(self, source: Iterator[Pair]) -> Iterator[CheckedWrites]:
        """Writes that librdkafka is given at once, taken a piece at a time: long ones stay few, to bound the memory."""
        start = 0
        while (chunk := self._piece(source, start)) is not None:
            start += len(chunk.keys)
            while len(chunk.keys) < CHUNK and chunk.largest_bytes <= SHORT_BYTES:
                piece = self._piece(source, start)
                if piece is None:
                    break
                chunk.take(piece)
                start += len(piece.keys)
            yield chunk

    def _piece(self, source: Iterator[Pair], start: int) -> CheckedWrites | None:
        some = list(islice(source, PIECE))
        if self._taken is not None and source is self._source:
            self._taken += some
        return CheckedWrites(some, self._table, start) if some else None

    def _checked(self, pairs: Mapping[Text, Text | None] | Iterable[Pair]) -> Iterator[CheckedWrites] | None:
        """All chunks, checked; None when they have to be made once more, since to keep what was made takes memory."""
        found: deque[CheckedWrites] | None = deque()
        for chunk in self._chunks(pairs_of(pairs)):
            if found is not None and chunk.borrowed:
                found.append(chunk)
            else:
                found = None
        return None if found is None else _drained(found, iter(()))

    def _write(self, chunks: Iterator[CheckedWrites]) -> Position:
        try:
            while self._first is None and (chunk := next(chunks, None)) is not None:
                self._send_all(chunk)
        except UsageError as error:
            self._await_reports()
            error.add_note(
                f"put_many wrote the {self._count:,} pairs before this chunk ({self._outcome()}) and nothing after"
            )
            raise
        finally:
            self._producer.release()
        self._await_reports()
        return self._result()

    def _send_all(self, chunk: CheckedWrites) -> None:
        """A chunk, in pieces as long as it has the first record of a partition."""
        while self._first is None and len(self._proved) < self._table.partitions:  # of the connection as it is now
            end, alone = self._until_second(chunk.keys)
            if not alone:
                break
            self._send(chunk.part(0, end))
            self._await_reports()
            chunk = chunk.part(end, len(chunk.keys))
        if self._first is None and chunk.keys:
            self._send(chunk)
            self._producer.poll()
            self._collect()

    @property
    def _proved(self) -> set[int]:
        return self._producer.proved(self._table.topic)

    def _until_second(self, keys: list[bytes]) -> tuple[int, bool]:
        """Count of keys before the second one of a partition that is not proved, and whether a first is among them."""
        firsts: set[int] = set()
        proved = self._proved
        for place, partition in enumerate(self._table.partitioning.listed(keys) if keys else ()):
            if partition in firsts:
                return place, True
            if partition not in proved:
                firsts.add(partition)
        return len(keys), bool(firsts)

    def _send(self, chunk: CheckedWrites) -> None:
        partitions = self._table.partitioning.listed(chunk.keys)
        messages: list[dict[str, Any]] = [
            {"key": key, "value": value} for key, value in zip(chunk.keys, chunk.values, strict=True)
        ]
        last: dict[int, Reports] = {}
        backwards = partitions[::-1]
        for partition in {*partitions}:
            place = len(backwards) - 1 - backwards.index(partition)
            last[partition] = {}
            messages[place]["callback"] = last[partition].__setitem__
        sent = _Sent(range(self._count, self._count + len(messages)), last, len(messages) - len(last), self._proved)
        rejected = self._producer.send_batch(
            self._table.topic, messages, partitions, sent.reports.__setitem__, chunk.largest_bytes
        )
        self._count += len(messages)
        if rejected is None:
            self._sent.append(sent)
            return
        self._note(rejected.error)
        self._part(sent, rejected.places, messages)

    def _part(self, sent: _Sent, out: list[range], messages: list[dict[str, Any]]) -> None:
        """A chunk of which a part did not get in.

        What did is a chunk of its own, judged by its reports after a flush.
        """
        start, missing = sent.places.start, sum(map(len, out))
        self._failed += [range(start + r.start, start + r.stop) for r in out]
        if missing == len(messages):
            return
        outside = {i for r in out for i in r}
        inside = [i for i in range(len(messages)) if i not in outside]
        sent.last = {
            p: reports for p, reports in sent.last.items() if any(_is_of(messages[i], reports) for i in inside)
        }
        sent.others = len(inside) - len(sent.last)
        sent.places = range(start + inside[0], start + inside[-1] + 1)
        self._sent.append(sent)

    def _collect(self) -> None:
        while self._sent and self._sent[0].acknowledged():
            self._account(self._sent.popleft())

    def _account(self, sent: _Sent) -> None:
        for reports in (*sent.last.values(), sent.reports):
            if _proved(reports):
                partition, offset = reports[None].partition(), reports[None].offset()
                where = self._table.epoch, partition
                self._pieces[where] = max(self._pieces.get(where, 0), offset + 1)
                sent.proved.add(partition)
                self._taken = None

    def _await_reports(self) -> None:
        """Poll until every chunk is judged.

        A failure is judged when nothing is in flight any more: no report can be missing then.
        """
        deadline = monotonic() + self._producer.delivery_timeout_s + GRACE_S
        while self._sent and monotonic() < deadline:
            self._collect()
            if self._sent and self._sent[0].settled():
                break
            if self._sent:
                self._producer.poll(0.02)
        self._producer.release()
        if self._sent:
            self._producer.flush(max(deadline - monotonic(), 0.0))
        while self._sent:
            self._judge(self._sent.popleft())

    def _judge(self, sent: _Sent) -> None:
        self._account(sent)
        if sent.acknowledged():
            return
        errors = sent.errors(self._producer.access) or [unproved() if sent.settled() else Unknown(_LATE)]
        self._note(errors[0])
        certain = sent.nothing_arrived() and not any(isinstance(error, Unknown) for error in errors)
        (self._failed if certain else self._unknown).append(sent.places)

    def _note(self, error: LogStoreError) -> None:
        self._first = self._first or error

    def _outcome(self) -> str:
        return str(self._first or "all acknowledged")

    def _result(self) -> Position:
        position = Position(self._pieces)
        if self._first is None:
            return position
        if isinstance(self._first, Overloaded) and not position and not self._unknown:
            raise self._first  # nothing was written: the plain error says so
        failed, unknown = sum(map(len, self._failed)), sum(map(len, self._unknown))
        if unknown:
            raise BatchUnknown(
                self._count,
                failed,
                unknown,
                self._first,
                failed_places=self._failed,
                unknown_places=self._unknown,
                position=position,
            )
        raise BatchFailed(self._count, failed, self._first, failed_places=self._failed, position=position)


def _proved(reports: Reports) -> bool:
    """True when the newest message that is reported as acknowledged has an offset."""
    return None in reports and reports[None].offset() is not None


def _drained(ahead: deque[CheckedWrites], rest: Iterator[CheckedWrites]) -> Iterator[CheckedWrites]:
    """Pairs that were taken ahead, each let go as it is taken, and then the rest."""
    while ahead:
        yield ahead.popleft()
    yield from rest


def _is_of(message: dict[str, Any], reports: Reports) -> bool:
    callback = message.get("callback")
    return callback is not None and callback.__self__ is reports
