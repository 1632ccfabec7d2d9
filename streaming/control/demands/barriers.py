"""Barriers: records that show what a log holds, appended when readers want one, for the level `linearizable`.

A barrier that all replicas have acknowledged lies behind everything that was acknowledged before it was sent, and only
the leader that the others follow can append it: a deposed one, which may still answer where its log ends, cannot. One
is under way in each partition at most, and serves every request that came before it was sent (Raft's read index has
the same use: Ongaro 2014, section 6.4).
"""

import logging
import threading
from collections.abc import Callable, Iterable
from functools import partial

from logstore.log.write.control_producer import ControlProducer
from logstore.model.errors import LogStoreError
from logstore.model.table import PartitionKey
from logstore.view.feed.acknowledgement import LogDemand
from logstore.view.feed.log_records import BarrierKey, LogPointRecord
from logstore.view.feed.server import FeedServer
from streaming.control.demands.demand_book import DemandBook, Gathering
from streaming.lane.lane import Lane

log = logging.getLogger(__name__)

LOOK_S = 0.5  # a partition that is wanted may be followed from now on
DELIVERY_S = 5.0
GATHER_S = 0.004  # between two rounds: a record of its own is dearer than a question about all partitions


class Barriers(threading.Thread):
    """Thread that appends the barriers that readers want, until `close`; `ring` when they may want others."""

    def __init__(
        self, bootstrap: str, feed: FeedServer, lane: Lane, wanted: Callable[[], Iterable[LogDemand]]
    ) -> None:  # fmt: skip
        super().__init__(name="barriers", daemon=True)
        self._brokers, self._feed, self._lane = bootstrap, feed, lane
        self._book, self._bell, self._running = DemandBook(wanted), threading.Event(), True
        self._gathering = Gathering(GATHER_S)
        self._producer: ControlProducer | None = None  # from the first demand on

    def ring(self) -> None:
        """Look at the demands. Any thread, at once."""
        self._bell.set()

    def close(self) -> None:
        """Append no more."""
        self._running = False
        self._gathering.end()
        self.ring()
        self.join(5)

    def run(self) -> None:
        """Append when readers want it."""
        while self._running:
            if self._bell.wait(LOOK_S):
                self._gathering.wait()
            self._bell.clear()
            for key, asked_ns in self._book.take(self._may).items():
                self._append(key, asked_ns)
        if self._producer is not None:
            self._producer.close()

    def _may(self, key: PartitionKey) -> bool:
        followed = self._lane.at(key)
        return followed is not None and followed.stop is None and followed.target.table.allow_control_records

    def _append(self, key: PartitionKey, asked_ns: int) -> None:
        followed = self._lane.at(key)
        if followed is None:  # let go since
            self._book.answered(key)
            return
        report = partial(self._report, key, asked_ns, followed.next_offset)
        try:
            if self._producer is None:
                self._producer = ControlProducer(self._brokers, DELIVERY_S)
            self._producer.append(followed.target.table, "barrier", {"why": "read"}, key[1], report)
        except LogStoreError as error:
            report(error)

    def _report(self, key: PartitionKey, asked_ns: int, applied: int, became: int | LogStoreError) -> None:
        """A barrier has its offset, or is refused; on the producer's thread."""
        self._feed.publish(BarrierKey(*key), _point(asked_ns, applied, became))
        self._book.answered(key)
        self.ring()


def _point(asked_ns: int, applied: int, became: int | LogStoreError) -> LogPointRecord:
    """Point behind a barrier; one that lies below what is applied already is not in the log that is followed."""
    if isinstance(became, LogStoreError):
        return LogPointRecord(asked_ns, -1, str(became))
    if became < applied:
        return LogPointRecord(
            asked_ns,
            -1,
            f"its barrier got offset {became:,} and {applied:,} is applied: it was cut back, or is another",
        )
    return LogPointRecord(asked_ns, became + 1)
