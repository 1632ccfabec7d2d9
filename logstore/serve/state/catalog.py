"""Catalog of a reader: tables, nodes, and the partitions it serves, folded from the feeds of the node's workers.

What a worker said stays known while it is away, so that reads go on: its views lie on the disk whoever runs. When it is
back, its new views take the place of the old ones one by one; `WorkerFeed.remembered` says when the rest is forgotten.
"""

import time
from collections.abc import Iterable, Sequence
from itertools import chain

from logstore.model.slots import DEFAULT_SLOTS, slot_of
from logstore.model.table import PartitionKey, Table
from logstore.serve.state.broker_clock import BrokerClock
from logstore.serve.state.log_points import END, LogPoints
from logstore.serve.state.partition import (
    ELSEWHERE,
    SNAPSHOT,
    UNSERVED,
    VIEW,
    ServedPartition,
    Views,
    detach,
)
from logstore.serve.state.waiters import CLOCK, Waiters
from logstore.serve.state.wanted_ticks import WantedTicks
from logstore.serve.state.worker_feed import WorkerFeed
from logstore.serve.wire.problems import Problem
from logstore.view.feed.adoption_records import AdoptionRecord
from logstore.view.feed.log_records import EndsRecord, LogPointRecord
from logstore.view.feed.node_records import NodeRecord
from logstore.view.feed.position_records import AppliedRecord, TimesRecord
from logstore.view.feed.view_records import CATCHING_UP, LIVE, STOPPED, ViewKey, ViewRecord

_RANK = {LIVE: 0, CATCHING_UP: 1, STOPPED: 2}


class FastTable:
    """A table as the fast path needs it: partition -> Served or None. `wide`: its definition, if its rows are cells."""

    __slots__ = ("partitions", "place", "served", "wide")

    def __init__(self, table: Table) -> None:
        self.wide = table if table.wide else None
        self.partitions, self.place = table.partitions, table.partitioning.of
        self.served: list[ServedPartition | None] = [None] * table.partitions


class Catalog:
    """Knowledge of a reader; `rebuild` after any change but applied positions, which go through `applied`."""

    def __init__(self, node: str, waiters: Waiters, views: Views | None = None) -> None:
        self.node, self._waiters = node, waiters
        self.views = views or Views()
        self.tables: dict[str, Table] | None = None  # None: nobody has told yet
        self.unreadable: dict[str, tuple[str, str]] = {}  # tables without a definition that can be read: (word, why)
        self.epochs: frozenset[str] = frozenset()  # every epoch of every table, former and dropped ones too
        self.revision, self.slots = -1, DEFAULT_SLOTS
        self.topic_id: str | None = ""
        self.nodes: Sequence[NodeRecord] = ()
        self._last_nodes: Sequence[NodeRecord] = ()  # as they were when the log last answered
        self._unheard_since_s: float | None = None  # since when nobody can be heard of, of a monotonic clock
        self.reachable: bool | None = None  # the log, as last heard; None = never
        self.served: dict[tuple[str, int], ServedPartition] = {}  # (epoch, partition)
        self.followed: frozenset[PartitionKey] = frozenset()  # served, by a worker that is there and says so
        self.fast: dict[bytes, FastTable] = {}
        self.snapshots: dict[PartitionKey, AdoptionRecord] = {}
        self.reads = {VIEW: 0, SNAPSHOT: 0}  # single rows answered from each; those of the fast path are counted there
        self._ends: dict[tuple[str, int], int] = {}
        self._silent: set[PartitionKey] = set()  # whose logs did not tell their end when a worker asked last
        self.ticks = WantedTicks()
        self._times: dict[PartitionKey, TimesRecord] = {}
        self.points = LogPoints(waiters)
        self.broker_clock = BrokerClock()
        self._applied: dict[PartitionKey, int] = {}  # next offsets, as last heard

    def table(self, name: str) -> Table:
        """The table of that name; raises Problem."""
        if self.tables is None:
            raise Problem("starting", "no worker of this node has named the tables yet; try again")
        table = self.tables.get(name)
        if table is None and name in self.unreadable:
            word, why = self.unreadable[name]
            raise Problem("partition-stopped", why, table=name, reason=word)
        if table is None:
            raise Problem(
                "no-such-table",
                f"there is no table {name[:100]!r}; `logstore table list` shows what there is",
                table=name[:100],
            )
        return table

    def locate(self, table: Table, partition: int) -> ServedPartition:
        """The partition, served here; raises Problem with the owner when it is not."""
        served = self.served.get((table.epoch, partition))
        if served is not None and (served.answers or self.live_elsewhere(partition) is None):
            return served
        owner = self.owner(slot_of(partition, self.slots))
        if owner is None:
            raise Problem(
                "starting", f"partition {partition} of {table.name!r} is being opened; try again", partition=partition
            )
        raise Problem(
            "not-owner", f"partition {partition} of {table.name!r} is served by {owner}; ask there",
            headers=((b"ls-owner", owner.encode()),), table=table.name, partition=partition, owner=owner,
        )  # fmt: skip

    def owner(self, slot: int) -> str | None:
        """The URL of another node that serves a slot.

        Of one that is about to, unless this node is; None when there is none.
        """
        others = self._others()
        for node in others:
            if slot in node.live:
                return node.url
        if slot in self.claimed():
            return None
        return next((node.url for node in others if slot in node.slots), None)

    def live_elsewhere(self, partition: int) -> str | None:
        """URL of another node that serves a partition of every table, caught up; None when there is none."""
        slot = slot_of(partition, self.slots)
        return next((node.url for node in self._others() if slot in node.live), None)

    def _others(self) -> list[NodeRecord]:
        """Workers of other nodes, those of this node's group first."""
        group = next((n.group for n in self.nodes if n.node == self.node), None)
        return sorted((n for n in self.nodes if n.node != self.node), key=lambda n: n.group != group)

    def known_nodes(self) -> list[tuple[NodeRecord, float | None]]:
        """Workers of all nodes, each with the seconds since it can have been heard of last; None: it is heard of.

        While the log does not answer nobody is, and who was there may be there still.
        """
        if self._unheard_since_s is None:
            return [(record, None) for record in self.nodes]
        age_s = time.monotonic() - self._unheard_since_s
        return [(record, age_s) for record in self._last_nodes]

    def own(self) -> list[NodeRecord]:
        """Announcements of this node's workers."""
        return [n for n in self.nodes if n.node == self.node]

    def claimed(self) -> frozenset[int]:
        """The slots that this node's workers were assigned or still serve."""
        return frozenset(chain.from_iterable((*n.slots, *n.live) for n in self.own()))

    def missing(self) -> list[str]:
        """Partitions that this node claims and this reader cannot answer for yet; a stopped one is an answer."""
        claimed = self.claimed()
        return [
            f"{table.name}/{p}"
            for table in (self.tables or {}).values()
            for p in range(table.partitions)
            if slot_of(p, self.slots) in claimed and not self._answers(table.epoch, p)
        ]

    def state_of(self, table: Table, partition: int) -> str:
        """State of a partition by the word of the workers: live, catching-up, stopped, elsewhere or unserved."""
        served = self.served.get((table.epoch, partition))
        if served is not None:
            return served.state
        return UNSERVED if self.live_elsewhere(partition) is None else ELSEWHERE

    def applied(self, epoch: str, partition: int, stands: AppliedRecord) -> None:
        """A worker has committed, or heard of a new end of the log."""
        where = epoch, partition
        self._ends[where] = end = max(stands.end, self._ends.get(where, 0))
        self._applied[where] = stands.next_offset
        served = self.served.get(where)
        if served is not None:
            served.end, served.stood = end, b""
        self._waiters.reached(where, stands.next_offset)
        self._waiters.wake((CLOCK, *where))

    def heard_ends(self, record: EndsRecord) -> None:
        """A worker has asked Kafka where the logs end."""
        self._silent |= {(epoch, partition) for epoch, partition, _ in record.silent}
        for epoch, partition, end in record.ends:
            self._silent.discard((epoch, partition))
            self.heard_point(END, (epoch, partition), LogPointRecord(record.asked_ns, end))

    def heard_point(self, kind: str, where: PartitionKey, record: LogPointRecord | None) -> None:
        """A worker has asked Kafka for the end of a log, or a barrier; None: it has let the partition go."""
        if record is not None:
            self._heard_end(where, record.next_offset)
            self.points.heard(kind, where, record, self._applied.get(where, 0))

    def _heard_end(self, where: PartitionKey, end: int) -> None:
        self._ends[where] = newest = max(end, self._ends.get(where, 0))
        served = self.served.get(where)
        if served is not None and served.end != newest:  # also of one that has stopped, and hears nothing itself
            served.end, served.stood = newest, b""

    def is_heard(self, key: PartitionKey) -> bool:
        """True while it is known what the log of a served partition has: its lag says something."""
        return self.reachable is not False and key in self.followed and key not in self._silent

    def why_unheard(self, key: PartitionKey) -> str:
        """Reason for which the lag of a partition served here says nothing; empty where it does."""
        if self.is_heard(key):
            return ""
        return "its worker is away" if self.answers_log(key) else "the log does not answer"

    def answers_log(self, key: PartitionKey) -> bool:
        """False while Kafka, or the log of this partition alone, does not answer the workers."""
        return self.reachable is not False and key not in self._silent

    def ticked(self, epoch: str, partition: int, times: TimesRecord) -> None:
        """A worker has told where the partition stood before it appended ticks."""
        self._times[epoch, partition] = times
        served = self.served.get((epoch, partition))
        if served is not None:
            served.times = times.stood

    def heard_adoption(self, epoch: str, partition: int, record: AdoptionRecord | None) -> None:
        """A worker has said how it stands with the snapshots of a partition; None: it has let the partition go."""
        if record is None:
            self.snapshots.pop((epoch, partition), None)
        else:
            self.snapshots[epoch, partition] = record
        served = self.served.get((epoch, partition))
        if served is not None:
            served.proofs = {} if record is None else dict(record.local)

    def rebuild(self, feeds: Sequence[WorkerFeed]) -> None:
        """Fold what all workers say; open and close views; wake who waits for what has changed."""
        self._read_tables(feeds)
        self._read_nodes(feeds)
        self._read_log(feeds)
        self._read_views(feeds)

    def _answers(self, epoch: str, partition: int) -> bool:
        served = self.served.get((epoch, partition))
        return served is not None and (served.reader is not None or served.state == STOPPED)

    def _read_tables(self, feeds: Iterable[WorkerFeed]) -> None:
        records = [feed.tables for feed in feeds if feed.tables is not None and feed.tables.tables is not None]
        if not records:
            return
        newest = max(records, key=lambda tables: tables.revision)
        if (newest.revision, newest.topic_id) == (self.revision, self.topic_id):
            return
        known = [Table.from_json(raw) for raw in newest.tables or ()]
        self.revision, self.topic_id, self.slots = newest.revision, newest.topic_id, newest.slots
        self.epochs = frozenset(chain.from_iterable((t.epoch, *t.former_epochs) for t in known))
        self.tables = {t.name: t for t in known if not t.dropped}
        self.unreadable = {one.name: (one.word, one.why) for one in newest.unreadable}
        self._waiters.wake_all()

    def _read_nodes(self, feeds: Iterable[WorkerFeed]) -> None:
        records = [(not feed.connected, feed.nodes) for feed in feeds if feed.nodes is not None]
        if records:
            self.nodes = min(records, key=lambda item: item[0])[1].nodes

    def _read_log(self, feeds: Iterable[WorkerFeed]) -> None:
        records = [feed.log.reachable for feed in feeds if feed.connected and feed.log is not None]
        before, self.reachable = self.reachable, any(records) if any(one is not None for one in records) else None
        if self.reachable is not False:
            self._last_nodes, self._unheard_since_s = self.nodes or self._last_nodes, None
        elif self._unheard_since_s is None:
            self._last_nodes, self._unheard_since_s = self.nodes or self._last_nodes, time.monotonic()
        if before is not False and self.reachable is False:
            self._waiters.wake_all()

    def _read_views(self, feeds: Sequence[WorkerFeed]) -> None:
        records = self._best_records(feeds)
        updated = set().union(*(feed.updated for feed in feeds))
        before, self.served = self.served, {}
        for key, record in records.items():
            where = key.epoch, key.partition
            served = before.get(where)
            if served is not None and served.table != key.table:  # promoted: the topic is another table's now
                detach(before.pop(where))
                served = None
            fields = None if served is None else served.record_fields()
            if served is None:
                served = ServedPartition(key, record)
            served.update(record)
            changed = fields != served.record_fields()
            served.end, served.stood = self._ends.get(where), b""
            served.times = self._times.get(where, TimesRecord()).stood
            served.proofs = dict(self.snapshots.get(where, AdoptionRecord()).local)
            self.served[where] = served
            if changed or served.reader is None or key in updated:
                self.views.attach(served)
                self._wake(where)
        for gone in before.keys() - self.served.keys():
            detach(before[gone])
            self._wake(gone)
        past = self.epochs - {table.epoch for table in (self.tables or {}).values()}
        self._ends = {where: end for where, end in self._ends.items() if where[0] not in past}
        self._times = {where: times for where, times in self._times.items() if where[0] not in past}
        self._applied = {where: offset for where, offset in self._applied.items() if where[0] not in past}
        self.points.forget(past)
        self._silent &= self.served.keys()
        self.views.close_others(self.served.values())
        for feed in feeds:
            feed.updated.clear()
        self._index()

    def _wake(self, where: PartitionKey) -> None:
        """Let everybody look again who waits for anything of a partition."""
        self._waiters.wake(where)
        self._waiters.wake((CLOCK, *where))
        self.points.wake(where)

    def _best_records(self, feeds: Sequence[WorkerFeed]) -> dict[ViewKey, ViewRecord]:
        """Records of partitions, the best one of each, of the tables of today.

        Of who is there before who is away, live before catching up.
        """
        current = {(t.name, t.epoch) for t in (self.tables or {}).values()}
        best: dict[ViewKey, tuple[tuple[bool, int], ViewRecord]] = {}
        for feed in feeds:
            for remembered, records in (
                (False, feed.views if feed.connected else {}),
                (True, feed.remembered(self._elsewhere())),
            ):
                for key, record in records.items():
                    rank = (remembered, _RANK.get(record.state, 9))
                    if (key.table, key.epoch) in current and (key not in best or rank < best[key][0]):
                        best[key] = rank, record
        self.followed = frozenset((key.epoch, key.partition) for key, ((gone, _), _) in best.items() if not gone)
        return {key: record for key, (_, record) in best.items()}

    def _elsewhere(self) -> frozenset[int]:
        """Slots that another node serves and this one does not claim."""
        others = chain.from_iterable(n.live for n in self.nodes if n.node != self.node)
        return frozenset(others) - self.claimed()

    def _index(self) -> None:
        fast = {}
        for name, table in (self.tables or {}).items():
            fast[name.encode()] = entry = FastTable(table)
            for partition in range(table.partitions):
                served = self.served.get((table.epoch, partition))
                usable = served is not None and served.reader is not None and served.state != STOPPED and served.answers
                entry.served[partition] = served if usable else None
        self.fast = fast
