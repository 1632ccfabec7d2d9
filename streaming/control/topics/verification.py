"""Verification: every topic is still the one of its table's definition, by its id and its partitions.

Kafka is asked for all topics at once. One that it does not tell of, for an ACL that lacks, or because a broker knows
nothing of it at the moment, holds up its own table and no other: `hold` says why. While Kafka is away nothing is
learnt, and nothing is stopped for it.
"""

import time
from collections.abc import Set
from typing import Any

from logstore.log.kafka.descriptions import Described, describe_each
from logstore.model.errors import AccessDenied, LogStoreError
from logstore.model.table import Table
from logstore.view.layout import Stop
from streaming.lane.stop_reasons import epoch_changed, misconfigured

VERIFY_S = (
    0.25  # librdkafka goes on silently with a topic that was deleted and created again; in this time it is found out
)
VERIFY_TIMEOUT_S = 3.0
GONE_S = 3.0  # a broker that has just started may not know its topics yet


class TopicVerification:
    """Topics as Kafka describes them now. The control plane's thread only."""

    def __init__(self, admin: Any) -> None:
        self._admin = admin
        self._seen: dict[str, Described | None] = {}  # topic -> what it is now, None: it does not exist
        self._at_s = float("-inf")
        self._missing_since_s: dict[str, float] = {}  # of topics that were there
        self.failed: dict[str, LogStoreError] = {}  # topic -> why Kafka does not tell of it

    def look(self, names: Set[str]) -> bool | None:
        """Look at these topics, if it is time to.

        True when something new was learnt, None when it was too early. Raises LogUnreachable, AuthenticationFailed.
        """
        if names <= self._seen.keys() | self.failed.keys() and time.monotonic() - self._at_s < VERIFY_S:
            return None
        found, failed = describe_each(self._admin, sorted(names), VERIFY_TIMEOUT_S)
        self._at_s = now_s = time.monotonic()
        missing = names - found.keys() - failed.keys()
        self._missing_since_s = {name: self._missing_since_s.get(name, now_s) for name in missing}
        before = self._seen, _words(self.failed)
        answered = {name for name in names if name not in failed or name in self._seen}
        self._seen, self.failed = {name: found.get(name) or self._lately(name) for name in answered}, failed
        return before != (self._seen, _words(failed))

    def seen(self, topic: str) -> Described | None:
        """Description of a topic as it was last seen; None: it is gone, or was never seen."""
        return self._seen.get(topic)

    def is_looked_at(self, table: Table) -> bool:
        """True once Kafka was asked for the table's topic."""
        return table.topic in self._seen or table.topic in self.failed

    def problem(self, table: Table) -> Stop | None:
        """Fault of the topic of a table, as far as it was seen."""
        if table.topic not in self._seen:
            return None
        actual = self._seen[table.topic]
        if actual is None or actual.topic_id != table.epoch:
            return epoch_changed(table, actual and actual.topic_id)
        if actual.partitions != table.partitions:
            why = (
                f"it has {actual.partitions} partitions, the definition {table.partitions}: writers place keys "
                "elsewhere now"
            )
            return misconfigured(table, why)
        return None

    def hold(self, table: Table) -> str | None:
        """Reason for which nothing of the table's log may be applied: a topic nobody sees may be another one now.

        One that was seen, and of which a broker knows nothing at the moment, is left to the lane.
        """
        error = self.failed.get(table.topic)
        is_passing = not isinstance(error, AccessDenied) and self._seen.get(table.topic) is not None
        return None if error is None or is_passing else str(error)

    def _lately(self, name: str) -> Described | None:
        """Description of a topic as it was last seen, until it has been missed for GONE_S."""
        was = self._seen.get(name)
        if was is None or name not in self._missing_since_s:
            return was
        return was if time.monotonic() - self._missing_since_s[name] < GONE_S else None


def _words(failed: dict[str, LogStoreError]) -> dict[str, str]:
    return {name: str(error) for name, error in failed.items()}
