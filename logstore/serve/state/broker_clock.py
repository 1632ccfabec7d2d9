"""Broker clock: how late it can be at most by the brokers' clock, and what that says of a reader's own.

A worker tells the newest time that a broker gave an announcement, and when that was sent. The broker's clock showed it
then or later, so by now it has gone on no further than this machine since. An acknowledgement that took long makes the
bound later, never earlier; it holds while Kafka is away, too, and before the first one nothing is known.

A reader whose own clock is more than a minute beyond that bound ends no rows by it: log time does, and the instants of
tokens. It says so in its log when that begins and ends, on `/readyz` and in its metrics.
"""

import logging
import time
from collections.abc import Callable

from logstore.view.feed.log_records import ClockRecord, boottime_ns

MAX_AHEAD_MS = 60_000  # of one clock before another: more is no difference, one of the two is wrong

log = logging.getLogger(__name__)


def now_ms() -> int:
    """The reader's clock, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class BrokerClock:
    """Clock of the brokers beside that of a reader. `heard` by one thread; all others may be called by any."""

    def __init__(self, clock_ms: Callable[[], int] = now_ms, boot_ns: Callable[[], int] = boottime_ns) -> None:
        self._clock_ms, self._boot_ns = clock_ms, boot_ns
        self._newest = ClockRecord()
        self._said = False  # that the reader's clock is too far ahead

    def heard(self, record: ClockRecord) -> None:
        """A worker has told of a record; of several workers the one that was sent last counts."""
        if (
            record.broker_ms > 0 and self._newest.sent_ns <= record.sent_ns <= self._boot_ns()
        ):  # later: not this clock's
            self._newest = record
        self.is_ahead()

    @property
    def ahead_ms(self) -> int | None:
        """Milliseconds that the reader's clock is ahead at least, below 0: behind at most; None: nothing is known."""
        newest = self._newest
        if newest.broker_ms <= 0:
            return None
        return self._clock_ms() - newest.broker_ms - (self._boot_ns() - newest.sent_ns) // 1_000_000

    def is_ahead(self) -> bool:
        """True while the reader's clock is too far ahead to end rows by it."""
        ahead_ms = self.ahead_ms
        found = ahead_ms is not None and ahead_ms > MAX_AHEAD_MS
        if found != self._said:
            self._said = found
            self._say(ahead_ms or 0)
        return found

    def instant_ms(self, clock_ms: int, token_ms: int) -> int:
        """The instant at which rows are seen at the earliest: that of a token, or of the reader's clock, if it counts.

        `clock_ms`: the reader's clock when the request came; 0: it does not matter to the request.
        """
        return token_ms if clock_ms <= token_ms or self.is_ahead() else clock_ms

    def excess_ms(self, seen_ms: int) -> int | None:
        """Milliseconds that an instant is too far ahead of the reader's clock and the brokers'; None: it is not."""
        behind_ms = max(-(self.ahead_ms or 0), 0)  # of the reader's clock: log time, which tokens name, may be later
        excess_ms = seen_ms - self._clock_ms() - behind_ms
        return excess_ms if excess_ms > MAX_AHEAD_MS else None

    def _say(self, ahead_ms: int) -> None:
        if self._said:
            log.warning(
                "the clock here is %.0f s ahead of the brokers': rows end by log time alone until it is set right",
                ahead_ms / 1000,
            )
        else:
            log.warning("the clock here is no longer far ahead of the brokers': rows end by it again")
