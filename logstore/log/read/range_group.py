"""Range group: short stretches of several partitions' logs, read by one consumer.

A consumer costs some ten milliseconds, whatever it reads: to connect, to fetch, to let go. Its partitions share them.
Each stretch is as exact as one of `ranges.read_range`, which says what is missing from it in the same words.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from logstore.log.control import check_epoch
from logstore.log.kafka import clients, offsets
from logstore.log.kafka.records import Record, take
from logstore.log.read.exact_range import FETCH, MOST, WAIT_S, Reach, beginning
from logstore.log.read.ranges import BATCH_BYTES, columns
from logstore.model.table import Table


def read_group(
    bootstrap: str, table: Table, ranges: Mapping[int, tuple[int, int]], *, size_bytes: int = BATCH_BYTES
) -> Iterator[pa.RecordBatch]:
    """Records of `[start, end)` of each partition, all of them, and each partition's in order.

    A batch is of one partition; about `size_bytes` are held. Requires: no range is empty. Raises as `read_range`.
    """
    check_epoch(bootstrap, table)
    bounds = offsets.bounds(clients.admin(bootstrap), table.topic, list(ranges))
    reaches = {
        partition: Reach(table, partition, beginning(table, partition, start, end, bounds[partition].start), end)
        for partition, (start, end) in ranges.items()
    }
    yield from _GroupReader(bootstrap, reaches).batches(size_bytes)
    check_epoch(bootstrap, table)


class _GroupReader:
    """A consumer of several partitions."""

    def __init__(self, bootstrap: str, reaches: Mapping[int, Reach]) -> None:
        self._open = {partition: reach for partition, reach in reaches.items() if reach.left > 0}
        self._held: dict[int, list[pa.RecordBatch]] = {}
        self._consumer: Any = clients.consumer(bootstrap, **FETCH)

    def batches(self, size_bytes: int) -> Iterator[pa.RecordBatch]:
        """Batches of all ranges."""
        held_bytes = 0
        try:
            self._consumer.assign([reach.place for reach in self._open.values()])
            while self._open:
                most = min(MOST, sum(reach.left for reach in self._open.values()))
                held_bytes += self._keep(take(self._consumer, most, WAIT_S))
                if held_bytes >= size_bytes:
                    yield from self._given()
                    held_bytes = 0
            yield from self._given()
        finally:
            self._consumer.close()

    def _keep(self, taken: Sequence[Record]) -> int:
        """Keep what came, of each partition whose range it is in; returns its bytes."""
        size = 0
        for partition, records in self._by_partition(taken).items():
            reach = self._open[partition]
            if inside := reach.step(records, self._consumer):
                batch = columns(partition, inside, reach.broker_times(inside))
                self._held.setdefault(partition, []).append(batch)
                size += batch.nbytes
            if reach.left <= 0:
                self._consumer.pause([reach.place])  # what is written behind the range meanwhile is not to be read
                del self._open[partition]
        return size

    def _by_partition(self, taken: Sequence[Record]) -> dict[int, list[Record]]:
        """Records by partition; an error of none of them, as of all brokers, is that of any."""
        found: dict[int, list[Record]] = {}
        for record in taken:
            partition = record.partition()
            if record.error() is not None and partition not in self._open and (partition is None or partition < 0):
                partition = next(iter(self._open))
            if partition in self._open:
                found.setdefault(partition, []).append(record)
        return found

    def _given(self) -> Iterator[pa.RecordBatch]:
        held, self._held = self._held, {}
        for _, batches in sorted(held.items()):
            yield pa.concat_batches(batches)
