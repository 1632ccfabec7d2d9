"""Key records: those of one key in ranges of its partition's log.

Other keys' records are taken from Kafka's client and let go: of them nothing is looked at but the key, and in a table
that takes edits of several rows whether they name this one.
"""

from collections.abc import Callable, Iterator, Sequence
from operator import methodcaller
from typing import Any

from confluent_kafka import KafkaError

from logstore.log.kafka import clients
from logstore.log.kafka.errors import unreadable
from logstore.log.kafka.records import Record, take
from logstore.log.read.exact_range import FETCH, MOST, WAIT_S, Reach
from logstore.log.read.tail import headers_of
from logstore.model.history.carried import may_name, names_row
from logstore.model.history.logged import LoggedRecord
from logstore.model.table import Table

_KEY = methodcaller("key")


class KeyReader:
    """A consumer that looks for one key in its partition's log. Close it."""

    def __init__(
        self, bootstrap: str, table: Table, partition: int, key: bytes, scanned: Callable[[int], None] = lambda _: None
    ) -> None:
        """`scanned` hears of every stretch of offsets that was looked through."""
        self._table, self._partition, self._key, self._scanned = table, partition, key, scanned
        self._consumer: Any = clients.consumer(bootstrap, **FETCH)

    def read(self, start: int, end: int) -> Iterator[LoggedRecord]:
        """Records of the key in `[start, end)`, in order.

        Raises LogTruncated when the log begins later, LogGap when an offset is missing that no repair steps over,
        LogUnreachable when nothing comes for 30 s.
        """
        reach = Reach(self._table, self._partition, start, end)
        self._consumer.assign([reach.place])
        while reach.left > 0:
            left = reach.left
            records = reach.step(take(self._consumer, min(MOST, left), WAIT_S), self._consumer)
            self._scanned(left - reach.left)
            yield from self._own(records)

    def _own(self, records: Sequence[Record]) -> list[LoggedRecord]:
        """Records of the key, and edits of several rows that name it, in their order."""
        own = _of_key(records, self._key)
        if not self._table.multi_row:
            return own
        return sorted([*own, *_carried(records, self._key)], key=lambda one: one.offset)

    def timestamp_at(self, offset: int) -> int | None:
        """Timestamp of the first record from an offset on; None: there is none yet. Raises as `read`."""
        reach = Reach(self._table, self._partition, offset, offset + 1)
        self._consumer.assign([reach.place])
        first = take(self._consumer, 1, WAIT_S)[0]
        if first.error() is None:
            return first.timestamp()[1]
        if first.error().code() == KafkaError._PARTITION_EOF:
            return None
        raise unreadable(first.error(), self._table.topic, self._partition, self._consumer)

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()


def _of_key(records: Sequence[Record], key: bytes) -> list[LoggedRecord]:
    keys = list(map(_KEY, records))
    if key not in keys:
        return []
    found = [record for record, name in zip(records, keys, strict=True) if name == key]
    return [
        LoggedRecord(record.offset(), record.timestamp()[1], record.value(), headers or ())
        for record, headers in zip(found, headers_of(found), strict=True)
    ]


def _carried(records: Sequence[Record], key: bytes) -> list[LoggedRecord]:
    """Edits of other rows that name this one, too."""
    found = [record for record in records if record.key() != key and may_name(key, record.value())]
    return [
        LoggedRecord(record.offset(), record.timestamp()[1], record.value(), headers, record.key())
        for record, headers in zip(found, headers_of(found), strict=True)
        if headers and names_row(key, record.value(), headers)
    ]
