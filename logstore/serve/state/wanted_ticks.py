"""Wanted ticks: partitions of which a read as of a time waits for a record with a later one.

A quiet table has none. The reader's acknowledgements name the partitions, and their worker appends a barrier to each
(`streaming.control.ticks`), whose time is the broker's.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from logstore.model.table import PartitionKey
from logstore.view.feed.acknowledgement import WantedTick

MOST = 1_000  # partitions named at once; the others wait for a record that comes by itself


class WantedTicks:
    """Times that are waited for. `on_change` is called when there are others."""

    def __init__(self) -> None:
        self._wanted: Counter[tuple[PartitionKey, int]] = Counter()
        self.on_change: Callable[[], None] = lambda: None

    @contextmanager
    def wanted(self, where: PartitionKey, time_ms: int) -> Iterator[None]:
        """A record of `where` with a later time than `time_ms` is waited for inside the block."""
        one = where, time_ms
        self._wanted[one] += 1
        try:
            if self._wanted[one] == 1:
                self.on_change()
            yield
        finally:
            self._wanted[one] -= 1
            if not self._wanted[one]:
                del self._wanted[one]
                self.on_change()

    def listed(self) -> tuple[WantedTick, ...]:
        """The partitions, each with the latest time that is waited for."""
        latest: dict[PartitionKey, int] = {}
        for where, time_ms in self._wanted:
            latest[where] = max(time_ms, latest.get(where, 0))
        return tuple(WantedTick(*where, time_ms) for where, time_ms in list(latest.items())[:MOST])
