"""Asked ends: where logs end, asked of Kafka the moment a reader wants to know, for the level `latest`.

One request takes all demands that are there; what comes meanwhile is in the next. What Kafka does not tell is said to
the readers and left to `EndOffsets`, which asks once a second of everything, until it tells it again: a partition
without a leader must not make the others wait.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from logstore.log.kafka import offsets
from logstore.model.errors import LogStoreError
from logstore.model.table import PartitionKey
from logstore.view.feed.acknowledgement import LogDemand
from logstore.view.feed.log_records import EndKey, LogPointRecord
from logstore.view.feed.server import FeedServer
from streaming.control.demands.demand_book import DemandBook, Gathering
from streaming.control.topics.end_offsets import EndOffsets
from streaming.lane.lane import Lane
from streaming.lane.partition import FollowedPartition

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0
QUICK_S = 0.25  # for a client that knows all leaders; the one that looks for them is asked next
ATTEMPTS = 2  # a client that does not know of a change of leaders finds them in the first


class AskedEnds(threading.Thread):
    """Thread that asks for the ends that readers want, until `close`; `ring` when they may want others."""

    def __init__(
        self,
        bootstrap: str,
        client: Callable[[], Any],
        feed: FeedServer,
        lane: Lane,
        every: EndOffsets,
        wanted: Callable[[], Iterable[LogDemand]],
    ) -> None:
        super().__init__(name="asked-ends", daemon=True)
        self._quick = offsets.EndsConsumer(bootstrap)
        self._client, self._feed, self._lane, self._every = client, feed, lane, every
        self._book, self._bell, self._running = DemandBook(wanted), threading.Event(), True
        self._gathering = Gathering()

    def ring(self) -> None:
        """Look at the demands. Any thread, at once."""
        self._bell.set()

    def close(self) -> None:
        """Ask no more."""
        self._running = False
        self._gathering.end()
        self.ring()
        self.join(2 * TIMEOUT_S * ATTEMPTS)

    def run(self) -> None:
        """Ask when readers want it."""
        while self._bell.wait() and self._running:
            self._gathering.wait()
            self._bell.clear()
            asked = self._book.take(self._may)
            if asked:
                self._answer(asked)
        self._quick.close()

    def _may(self, key: PartitionKey) -> bool:
        followed = self._lane.at(key)
        return followed is not None and followed.stop is None and key not in self._every.silent

    def _answer(self, asked: Mapping[PartitionKey, int]) -> None:
        followed = {key: one for key in asked if (one := self._lane.at(key)) is not None}
        applied = {key: one.next_offset for key, one in followed.items()}
        try:
            found, why = self._ask(followed)
            self._feed.publish_all(
                {EndKey(*key): _point(asked[key], found.get(key), applied[key], why) for key in followed}
            )
            self._every.silent |= followed.keys() - found.keys()
        finally:
            for key in asked:
                self._book.answered(key)

    def _ask(self, followed: Mapping[PartitionKey, FollowedPartition]) -> tuple[dict[PartitionKey, int], str]:
        """Ends that Kafka tells, and why it does not tell the others."""
        places = {(one.target.table.topic, one.target.partition): key for key, one in followed.items()}
        found = {places[place]: end for place, end in self._quick.ends(places, QUICK_S).items()}
        why = "Kafka does not tell where it ends"
        for _ in range(ATTEMPTS):
            left = [place for place, key in places.items() if key not in found]
            try:
                ends = offsets.ends(self._client(), left, timeout_s=TIMEOUT_S) if left else {}
            except LogStoreError as error:
                return found, str(error)
            found |= {places[place]: end for place, end in ends.items()}
        return found, why


def _point(asked_ns: int, end: int | None, applied: int, why: str) -> LogPointRecord:
    """Point of a log of which `applied` is applied already; one that ends below it is not the one that is followed."""
    if end is None:
        return LogPointRecord(asked_ns, -1, why)
    if end < applied:
        return LogPointRecord(
            asked_ns, -1, f"it ends at {end:,} and offset {applied:,} is applied: it was cut back, or is another"
        )
    return LogPointRecord(asked_ns, end)
