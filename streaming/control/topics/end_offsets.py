"""End offsets of the followed partitions' logs, asked of Kafka itself about once a second.

The lane's consumer knows ends too, but one that stalls silently knows of nothing new. And a reader that is asked for
what held at a time may answer from what it holds now only when it has applied all that the log held at that time, which
somebody has to have asked for since.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from logstore.log.kafka import offsets
from logstore.model.errors import AccessDenied, AuthenticationFailed, LogStoreError, LogUnreachable
from logstore.model.table import PartitionKey
from logstore.view.feed.log_records import EndsKey, EndsRecord, PartitionEnd, clock_ns
from logstore.view.feed.server import FeedServer
from streaming.lane.lane import Lane

log = logging.getLogger(__name__)

EVERY_S = 1.0


class EndOffsets(threading.Thread):
    """Ends of logs for readers and the watchdog; and, for the lane, whether the log answers at all."""

    def __init__(self, client: Callable[[], Any], feed: FeedServer, lane: Lane) -> None:
        super().__init__(name="ends", daemon=True)
        self._client, self._feed, self._lane = client, feed, lane
        self._closing = threading.Event()
        self._complaint = ""
        self.silent: frozenset[PartitionKey] = frozenset()  # followed, and Kafka does not tell where they end
        self.committed: Mapping[
            PartitionKey, int
        ] = {}  # (epoch, partition) -> the end that a reader of committed records gets to

    def close(self, timeout_s: float = 15.0) -> None:
        """End the thread; no more is asked."""
        self._closing.set()
        self.join(timeout_s)

    def run(self) -> None:
        """Ask for end offsets until `close`."""
        while not self._closing.wait(EVERY_S):
            try:
                self._ask()
            except LogUnreachable as error:
                self._silent(error)
            except LogStoreError as error:  # of a topic that has just gone, perhaps; the log answers
                self._complain(str(error))

    def _silent(self, error: LogUnreachable) -> None:
        """Nothing is known of any log now: Kafka does not answer, or lets this worker ask for none of them."""
        if isinstance(error, AccessDenied) and not isinstance(error, AuthenticationFailed):
            self._complain(str(error))
            self._tell(_now(), {}, [one.target.key for one in self._lane.followed()])
        else:
            self._lane.heard(reachable=False)

    def _complain(self, why: str) -> None:
        """Complain once, however long it stays so."""
        if why != self._complaint:
            self._complaint = why
            log.warning("the ends of the log are not known: %s", why)

    def _ask(self) -> None:
        """Ask Kafka once; raises LogUnreachable."""
        followed = {(f.target.table.topic, f.target.partition): f.target.key for f in self._lane.followed()}
        if not followed:
            return
        # two requests a broker, however many partitions
        asked = _now()
        client = self._client()
        ends = offsets.ends(client, followed)
        stable = offsets.ends(client, followed, committed=True)
        self.committed = {followed[place]: end for place, end in stable.items()}
        found = {followed[place]: end for place, end in ends.items()}
        self._tell(asked, found, [key for key in followed.values() if key not in found])
        self._complaint = ""

    def _tell(
        self, asked: tuple[int, int], found: Mapping[PartitionKey, int], silent: Iterable[PartitionKey]
    ) -> None:  # fmt: skip
        known = tuple(PartitionEnd(*key, end) for key, end in found.items())
        self.silent = frozenset(silent)
        untold = tuple(PartitionEnd(*key, -1) for key in self.silent)
        self._feed.publish(EndsKey(), EndsRecord(asked[0], known, untold, asked[1]))
        self._lane.heard(reachable=True)


def _now() -> tuple[int, int]:
    """Milliseconds since 1970, and nanoseconds of the clock that nobody sets."""
    return time.time_ns() // 1_000_000, clock_ns()
