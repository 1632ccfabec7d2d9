"""Cut tails: the ends of many partitions at once, to tell those to which nothing but cuts has come.

One consumer reads all of them, so it costs about the same for one partition and for hundreds. It is for short tails:
what it reads is held.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, TopicPartition

from logstore.log.kafka import clients, errors
from logstore.log.kafka.records import Record, take
from logstore.model.record_identity import RecordIdentity, identify

WAIT_S = 30.0
_CUT = [("ls.op", b"cut")]
_SETTINGS = {"enable.partition.eof": True, "fetch.wait.max.ms": 20, "queued.max.messages.kbytes": 8_192}
_GONE = {KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION}


class CutTail(NamedTuple):
    """The last record of a tail of cuts, or the one before it where there are none, and their latest timestamp."""

    last: RecordIdentity
    log_time_ms: int


def only_cuts(
    bootstrap: str,
    topic: str,
    ranges: Mapping[int, tuple[int, int]],
    before: Mapping[int, RecordIdentity] | None = None,
) -> dict[int, CutTail]:
    """Partition -> what lies in its offsets `[start, end)`, for those where that is cuts and nothing else.

    `before`: the record that stands before them; where another one does, the log lost its end since, and the partition
    is absent. So is one whose log does not hold all of it. Requires: start < end, or the one before is given. Raises
    LogUnreachable, UsageError.
    """
    if not ranges:
        return {}
    reader = clients.consumer(bootstrap, **_SETTINGS)
    try:
        return _Tails(topic, ranges, before or {}).read(reader)
    finally:
        reader.close()


class _Tails:
    """Tails that are being read."""

    def __init__(self, topic: str, ranges: Mapping[int, tuple[int, int]], before: Mapping[int, RecordIdentity]) -> None:
        self._topic, self._before = topic, before
        self._starts = {partition: start for partition, (start, _) in ranges.items()}
        self._ends = {partition: end for partition, (_, end) in ranges.items()}
        self._following = {p: before[p].offset if p in before else start for p, start in self._starts.items()}
        self._found: dict[int, CutTail] = {}
        self._whole: dict[int, CutTail] = {}

    def read(self, reader: Any) -> dict[int, CutTail]:
        """Read until nothing is open any more. Raises LogUnreachable."""
        reader.assign([TopicPartition(self._topic, partition, at) for partition, at in self._following.items()])
        while self._following:
            for record in take(reader, 1_000, WAIT_S):
                if record.partition() in self._following and self._is_over(record, reader):
                    del self._following[record.partition()]
                    reader.incremental_unassign([TopicPartition(self._topic, record.partition())])
        return self._whole

    def _is_over(self, record: Record, reader: Any) -> bool:
        """Take a record; True when its partition needs no more of them."""
        partition, error = record.partition(), record.error()
        if error is not None:
            if error.code() not in {KafkaError._PARTITION_EOF, *_GONE}:
                raise errors.translate(error, f"read {self._topic}/{partition}", reader)
            return True
        at = self._following[partition]
        identity = identify(record.offset(), record.timestamp()[1], record.key(), record.value())
        if record.offset() != at or not self._fits(record, identity):
            return True
        known, timestamp_ms = self._found.get(partition), 0 if at < self._starts[partition] else record.timestamp()[1]
        self._found[partition] = CutTail(identity, max(timestamp_ms, known.log_time_ms if known else 0))
        self._following[partition] = at + 1
        if at + 1 == self._ends[partition]:
            self._whole[partition] = self._found[partition]
        return at + 1 >= self._ends[partition]

    def _fits(self, record: Record, identity: RecordIdentity) -> bool:
        partition = record.partition()
        if record.offset() < self._starts[partition]:
            return identity == self._before[partition]
        return record.key() is None and record.headers() == _CUT
