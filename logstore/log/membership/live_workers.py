"""Live workers and definitions as of now, for a command or a supervisor that is no worker itself.

A worker that was killed says nothing more, so its last announcement looks fresh until something newer is heard. A
look therefore appends a tick (a null value under a key that no worker has) and reads up to it: the tick's broker time
is "now". Where that time has stepped since a worker announced itself, its next announcement tells. Every worker hears
every tick, so looks that follow each other closely wait: a topic that never ends to grow is never read to its end.
"""

import time
from types import TracebackType
from typing import Any, NamedTuple, Self

from logstore.log.connect.acl import topic
from logstore.log.kafka import clients, errors
from logstore.log.membership.changes import Changes
from logstore.log.membership.nodes import ANNOUNCE_S, Announcement
from logstore.log.tables.registry import Definitions, Registry
from logstore.model.errors import LogUnreachable
from logstore.model.slots import slot_of
from logstore.model.table import NODES_TOPIC, Table

TICK = b"!tick"
AGAIN_S = 0.1
GREET_S = 2 * ANNOUNCE_S


class Lacking(NamedTuple):
    """Workers that do not serve a change yet. `workers`: how many are alive at all."""

    workers: int
    reasons: list[str]


class LiveWorkers:
    """Reader of what the live workers of all nodes announce. One thread only; close it."""

    def __init__(self, bootstrap: str) -> None:
        """Connect. Raises LogUnreachable; SetupError when no store has been started on this Kafka."""
        Registry(bootstrap).read()
        self._changes, self._greeted = Changes(bootstrap, begins_at_end=False), False
        self._next_tick_s = 0.0
        own = {"linger.ms": 0, "message.timeout.ms": int(clients.REQUEST_S * 1000)}
        self._producer: Any = clients.producer(bootstrap, **own)

    def look(self, timeout_s: float = clients.REQUEST_S) -> list[Announcement]:
        """Every worker alive now; `definitions` is as new.

        At most one look in AGAIN_S: a later one waits for its time. Raises LogUnreachable.
        """
        self._hear_until(self._next_tick_s)
        self._next_tick_s = time.monotonic() + AGAIN_S
        deadline = time.monotonic() + timeout_s
        behind_tick = self._tick(timeout_s) + 1
        while not self._changes.complete or self._changes.heard_to[NODES_TOPIC] < behind_tick:
            if time.monotonic() > deadline:
                raise LogUnreachable(f"{NODES_TOPIC} could not be read within {timeout_s:g} s; is the broker running?")
            self._changes.take(AGAIN_S)
        self._changes.nodes.begin()
        self._greet(deadline)
        return self._changes.nodes.live()

    def _hear_until(self, moment_s: float) -> None:
        """Take in what comes until a moment of the monotonic clock."""
        while (left_s := moment_s - time.monotonic()) > 0:
            self._changes.take(left_s)

    def _greet(self, deadline: float) -> None:
        """Wait for the next round where the first look finds nobody: the broker's clock may have stepped."""
        patience_s = min(deadline, time.monotonic() + GREET_S)
        while not self._greeted and not self._changes.nodes.live() and time.monotonic() < patience_s:
            self._changes.take(AGAIN_S)
        self._greeted = True

    @property
    def definitions(self) -> Definitions:
        """Definitions of every table, as of the last look."""
        return self._changes.definitions

    def silent(self) -> list[Announcement]:
        """Workers that said nothing for a while, as of the last look: their readers may still answer."""
        return self._changes.nodes.silent()

    def lacking(self, revision: int, table: Table | None, slots: int) -> Lacking:
        """Workers that do not serve definitions up to `revision`, or, with a table, its slots that no worker serves.

        Who has announced itself twice is waited for: one record that somebody wrote is no node.
        """
        there = self.look()
        live = self._changes.nodes.live(least=2)
        reasons = [f"{_name(a)} serves revision {a.tables:,} of {revision:,}" for a in live if a.tables < revision]
        for group in sorted({a.group for a in live}):
            served = {slot for a in live if a.group == group and a.tables >= revision for slot in a.live}
            wanted = {slot_of(p, slots) for p in range(table.partitions)} if table else set()
            if wanted - served:
                names = ", ".join(_name(a) for a in live if a.group == group)
                reasons.append(f"group {group} ({names}) does not serve the slots {sorted(wanted - served)} yet")
        return Lacking(len(there), reasons)

    def await_served(self, revision: int, table: Table | None, slots: int, timeout_s: float) -> Lacking:
        """Wait until every live worker and its readers serve the change; returns who does not after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.lacking(revision, table, slots)
            if not found.reasons or time.monotonic() > deadline:
                return found

    def close(self) -> None:
        """Let the connections go."""
        self._changes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tick(self, timeout_s: float) -> int:
        """Append a tick; returns its offset."""
        delivered: list[tuple[Any, Any]] = []
        self._producer.produce(
            NODES_TOPIC, None, TICK, partition=0, on_delivery=lambda error, record: delivered.append((error, record))
        )
        errors.flush(self._producer, timeout_s, f"append to {NODES_TOPIC}", NODES_TOPIC)
        if delivered and delivered[0][0] is not None:
            needed = topic("WRITE", NODES_TOPIC)
            raise errors.translate(delivered[0][0], f"append to {NODES_TOPIC}", self._producer, needed)
        if not delivered:
            clients.check_access(self._producer)
            raise LogUnreachable(
                f"{NODES_TOPIC} does not take records; is the broker running, and is the bootstrap address right?"
            )
        return int(delivered[0][1].offset())


def _name(announcement: Announcement) -> str:
    return f"worker {announcement.worker} of {announcement.node} ({announcement.url})"
