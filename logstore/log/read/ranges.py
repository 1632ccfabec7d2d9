"""Ranges: exact stretches `[start, end)` of a partition's log as Arrow record batches.

    part int32 | offset int64 | timestamp int64 (ms, as the broker set it) | key binary | value binary
    | headers list<struct<key, value>>

Dense but for the offsets that the table's repairs step over. What is missing otherwise is an error, never a shorter
answer: `auto.offset.reset=error` is the only setting with which a truncated log is seen at all. The topic's id is
compared first and last.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from logstore.log.control import check_epoch
from logstore.log.kafka import clients, offsets
from logstore.log.kafka.records import Record, take
from logstore.log.read.exact_range import FETCH, MOST, WAIT_S, Reach, beginning
from logstore.log.read.tail import headers_of
from logstore.model.record_identity import identify
from logstore.model.table import Table

HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
SCHEMA = pa.schema(
    [
        ("part", pa.int32()), ("offset", pa.int64()), ("timestamp", pa.int64()),
        ("key", pa.binary()), ("value", pa.binary()), ("headers", HEADERS),
    ]
)  # fmt: skip
BATCH_ROWS, BATCH_BYTES = 65_536, 16 << 20


def read_range(
    bootstrap: str,
    table: Table,
    partition: int,
    start: int,
    end: int,
    *,
    rows: int = BATCH_ROWS,
    size_bytes: int = BATCH_BYTES,
) -> Iterator[pa.RecordBatch]:
    """Records of `[start, end)` of a partition, all and in order, in batches of about `rows` records or `size_bytes`.

    Raises LogTruncated when the log begins later, LogGap when an offset is missing that no repair steps over,
    EpochChanged when the topic is not the table's, LogUnreachable when nothing comes for 30 s.
    """
    if start >= end:
        return
    check_epoch(bootstrap, table)
    begin = _beginning(bootstrap, table, partition, start, end)
    if begin < end:
        yield from _Reader(bootstrap, table, partition, begin, end).batches(rows, size_bytes)
    check_epoch(bootstrap, table)


def committed_ends(bootstrap: str, table: Table) -> dict[int, int]:
    """Partition -> end of what is committed there now. Raises LogUnreachable."""
    partitions = list(range(table.partitions))
    return {
        p: bound.end
        for p, bound in offsets.bounds(clients.admin(bootstrap), table.topic, partitions, committed=True).items()
    }


def first_later(bootstrap: str, table: Table, time_ms: int) -> dict[int, int | None]:
    """Partition -> the first offset in the log whose timestamp is later than a time.

    None where there is none. Raises LogUnreachable.
    """
    return offsets.first_from(clients.admin(bootstrap), table.topic, list(range(table.partitions)), time_ms + 1)


def _beginning(bootstrap: str, table: Table, partition: int, start: int, end: int) -> int:
    bound = offsets.bounds(clients.admin(bootstrap), table.topic, [partition])[partition]
    return beginning(table, partition, start, end, bound.start)


class _Reader:
    """A consumer of one partition, for one range."""

    def __init__(self, bootstrap: str, table: Table, partition: int, start: int, end: int) -> None:
        self._at = Reach(table, partition, start, end)
        self._consumer: Any = clients.consumer(bootstrap, **FETCH)

    def batches(self, rows: int, size_bytes: int) -> Iterator[pa.RecordBatch]:
        """Batches of the whole range."""
        held: list[pa.RecordBatch] = []
        count = size = 0
        try:
            self._consumer.assign([self._at.place])
            while self._at.left:
                taken = take(self._consumer, min(MOST, rows, self._at.left), WAIT_S)
                records = self._at.step(taken, self._consumer)
                if not records:
                    continue
                batch = columns(self._at.partition, records, self._at.broker_times(records))
                held.append(batch)
                count, size = count + batch.num_rows, size + batch.nbytes
                if count >= rows or size >= size_bytes:
                    yield pa.concat_batches(held)
                    held, count, size = [], 0, 0
            if held:
                yield pa.concat_batches(held)
        finally:
            self._consumer.close()


def columns(partition: int, records: Sequence[Record], times_ms: Sequence[int]) -> pa.RecordBatch:
    """Records of one partition as columns, with their timestamps."""
    headers = headers_of(records)
    return pa.RecordBatch.from_arrays(
        [
            pa.array([partition] * len(records), pa.int32()),
            pa.array([record.offset() for record in records], pa.int64()),
            pa.array(times_ms, pa.int64()),
            pa.array([record.key() for record in records], pa.binary()),
            pa.array([record.value() for record in records], pa.binary()),
            pa.array(headers, HEADERS) if any(headers) else pa.nulls(len(records), HEADERS),
        ],
        schema=SCHEMA,
    )


def identity_at(batch: pa.RecordBatch, row: int) -> str:
    """The identity of a record, as text."""
    offset, timestamp_ms, key, value = (
        batch.column(name)[row].as_py() for name in ("offset", "timestamp", "key", "value")
    )
    return identify(offset, timestamp_ms, key, value).text
