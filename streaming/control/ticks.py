"""Ticks: barriers in quiet partitions, whose time shows readers how late it is in the log.

What a partition held at a time is known once a record with a later time was applied: the broker's clock gives it, no
other one counts. Where a reader waits for that and nobody writes, the partition's worker appends a barrier, once a
second until log time is behind what is waited for or nobody waits any more.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from logstore.log.control import append_control
from logstore.model.errors import LogStoreError
from logstore.model.table import PartitionKey, Table
from logstore.view.feed.acknowledgement import WantedTick
from logstore.view.feed.position_records import StoodAt, TimesKey, TimesRecord
from logstore.view.feed.server import FeedServer
from logstore.view.layout import State
from streaming.lane.lane import Lane

log = logging.getLogger(__name__)

LOOK_S = 0.1
AGAIN_S = 1.0
AT_MOST = 32  # places in the log of which the time is told, per partition


class Ticks(threading.Thread):
    """Ticks of one worker, until `close`. `wanted` gives (epoch, partition, time) of all that readers wait for."""

    def __init__(
        self, bootstrap: str, lane: Lane, feed: FeedServer, wanted: Callable[[], Iterable[WantedTick]]
    ) -> None:  # fmt: skip
        super().__init__(name="ticks", daemon=True)
        self._brokers, self._lane, self._feed, self._wanted = bootstrap, lane, feed, wanted
        self._closing = threading.Event()
        self._times: dict[PartitionKey, deque[StoodAt]] = {}
        self._ticked_s: dict[PartitionKey, float] = {}  # when each was ticked last, of a monotonic clock

    def close(self) -> None:
        """Begin no more."""
        self._closing.set()
        self.join(5)

    def run(self) -> None:
        """Append what is wanted, until `close`."""
        while not self._closing.wait(LOOK_S):
            for table, partitions in self._due():
                try:
                    append_control(self._brokers, table, "barrier", {"why": "tick"}, partitions)
                except LogStoreError as error:  # whoever waits is told by its deadline
                    log.warning("no tick in %s: %s", table.name, error)

    def _due(self) -> list[tuple[Table, list[int]]]:
        """The partitions of each table that need one now."""
        wanted: dict[PartitionKey, int] = {}
        for epoch, partition, time_ms in self._wanted():
            wanted[epoch, partition] = max(time_ms, wanted.get((epoch, partition), 0))
        if not wanted:
            return []
        now_s = time.monotonic()
        self._ticked_s = {key: at_s for key, at_s in self._ticked_s.items() if now_s - at_s < AGAIN_S}
        found: dict[str, tuple[Table, list[int]]] = {}
        for one in self._lane.followed():
            key, table = one.target.key, one.target.table
            quiet = key in wanted and one.stop is None and one.view.state.log_time_ms <= wanted[key]
            if quiet and table.allow_control_records and key not in self._ticked_s:
                self._ticked_s[key] = now_s
                self._tell(key, one.view.state)
                found.setdefault(table.epoch, (table, []))[1].append(one.target.partition)
        return list(found.values())

    def _tell(self, key: PartitionKey, state: State) -> None:
        """Readers prove by it what held before the tick, which moves log time on."""
        times = self._times.setdefault(key, deque(maxlen=AT_MOST))
        times.append(StoodAt(state.log_time_ms, state.next_offset))
        self._feed.publish(TimesKey(*key), TimesRecord(tuple(times)))
