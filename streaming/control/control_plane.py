"""Control plane of a worker: one thread knows tables, other workers and slots, and tells the lane what to follow.

1. hear      definitions and announcements
2. settle    which slots are followed (`placement.Placement`)
3. verify    that every topic is still the one of its definition: its id, its partitions
4. target    partitions of followed slots, handed to the lane
5. show      the definitions to the readers, once the lane follows them; and this worker to the others, once the readers
             serve them
"""

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from logstore.log.kafka import clients
from logstore.log.membership.changes import Announcer, Changes
from logstore.log.membership.nodes import ANNOUNCE_S, Announcement
from logstore.log.tables.registry import Definitions
from logstore.model.errors import AccessDenied, Corrupted, EpochChanged, LogStoreError, LogUnreachable
from logstore.model.slots import slot_of, spread
from logstore.model.table import TABLES_TOPIC, PartitionKey, Table
from logstore.process import logs
from logstore.view.feed.fields import UnreadableRecord
from logstore.view.feed.log_records import ClockKey, ClockRecord, boottime_ns
from logstore.view.feed.node_records import NodeRecord, NodesKey, NodesRecord, ProcessIds
from logstore.view.feed.server import FeedServer
from logstore.view.feed.table_records import TablesKey, TablesRecord, UnreadableTable
from logstore.view.layout import Stop
from logstore.view.paths import served_path
from logstore.view.served import Served
from streaming.adoption.progress import AdoptionProgress
from streaming.adoption.snapshot_fetcher import SnapshotFetcher
from streaming.control.placement import Placement
from streaming.control.reader_acks import ReaderAcks
from streaming.control.served_state import ServedState
from streaming.control.sweep import sweep
from streaming.control.topics.verification import TopicVerification
from streaming.lane.lane import Lane, Targets
from streaming.lane.target import Target
from streaming.schedule.compaction_schedule import CompactionSchedule

log = logs.get(__name__)

HEAR_S = 0.1
JOIN_S = 30.0  # how long Faust may take to join the group after a start


class SnapshotServices(NamedTuple):
    """Services that care for snapshots."""

    fetcher: SnapshotFetcher
    progress: AdoptionProgress
    schedule: CompactionSchedule

    def tell(self, definitions: Definitions, targets: list[Target], *, leading: bool) -> None:
        """Pass on definitions, followed targets, and whether this worker leads."""
        self.progress.only(targets)
        self.schedule.lead([table for table in definitions.tables.values() if not table.dropped], leading=leading)


class Me(NamedTuple):
    """Identity of this worker."""

    node: str
    worker: int
    url: str
    group: str
    zone: str
    readers: int = 1  # of its node: so many must answer for a slot before it is announced as live


class ControlPlane(threading.Thread):
    """The control plane's thread; runs until `close`."""

    def __init__(
        self,
        bootstrap: str,
        data_dir: Path,
        me: Me,
        slots: int,
        feed: FeedServer,
        lane: Lane,
        snapshots: SnapshotServices,
    ) -> None:
        super().__init__(name="control-plane", daemon=True)
        self._snapshots, self._first_slot = snapshots, spread(slots)[0]
        self._data_dir, self._me, self._slots, self._feed, self._lane = data_dir, me, slots, feed, lane
        self._changes, self._announcer = Changes(bootstrap), Announcer(bootstrap, boottime_ns)
        self._topics = TopicVerification(clients.admin(bootstrap))
        self._served_state = ServedState(served_path(data_dir, me.worker))
        self._placement = Placement(me.node, me.worker, self._served_state.slots())
        self._confirm = ReaderAcks(feed, me.readers)
        self._started_s = time.monotonic()
        self._assigned: frozenset[int] | None = None  # None: Faust has not spoken yet
        self._wanted = Targets(0, {})
        self._published_revision = -1
        self._announced: tuple[Announcement | None, float] = None, 0.0
        self._denied: set[str] = set()  # what was said; one for each table at most
        self._running = True
        self.failure: BaseException | None = None
        self.beat_s = time.monotonic()
        self.whole_s = (
            time.monotonic()
        )  # when every slot was last assigned to somebody, as far as it is this worker's to see to it

    def assign(self, slots: Iterable[int]) -> None:
        """Faust has assigned exactly these slots."""
        self._assigned = frozenset(slots)

    def ready(self) -> frozenset[int] | None:
        """The slots assigned to this worker, once it was announced that all of them are live; else None."""
        announced, _ = self._announced
        if announced is None or self._assigned is None or not self._assigned <= set(announced.live):
            return None
        return self._assigned if 0 <= self._changes.definitions.revision <= announced.tables else None

    def drain(self, timeout_s: float) -> frozenset[int]:
        """Hand every slot over: returns when other nodes serve them, when there are none, or after `timeout_s`.

        Returns the slots that nobody has taken over.
        """
        self.assign(())
        deadline = time.monotonic() + timeout_s
        while self.is_alive() and time.monotonic() < deadline and self._placement.followed and self._other_nodes():
            self.join(HEAR_S)
        return self._placement.followed

    def close(self) -> None:
        """Stop, and tell the others that this worker is gone."""
        self._running = False
        self.join(10)

    def run(self) -> None:
        """The thread; a failure ends it and is kept in `failure`."""
        try:
            while self._running:
                self._step()
            self._announcer.retire(self._announcement())
        except BaseException as error:  # the worker looks at `failure` and ends
            log.exception("the control plane failed")
            self.failure = error
        finally:
            self._changes.close()

    def _step(self) -> None:
        heard = self._hear()
        self.beat_s = time.monotonic()
        if not self._changes.complete:
            return
        if not self._orphans():
            self.whole_s = self.beat_s
        moved = self._settle()
        verified = self._verify()
        if heard or moved or verified:
            self._find_storage()  # before the lane opens views: they may begin there
            self._retarget()
            self._tell()
        self._show()
        self._announce()

    def _hear(self) -> bool:
        try:
            return self._changes.take(HEAR_S)
        except AccessDenied as error:
            self._say_denied(error)
            return False

    def _say_denied(self, error: LogStoreError) -> None:
        """Say what is denied once, however long it stays so: an ACL that is granted again is noticed by itself."""
        if str(error) not in self._denied:
            self._denied.add(str(error))
            log.error("Kafka does not tell this worker what it needs; it goes on with what it has", reason=str(error))

    def _find_storage(self) -> None:
        try:
            self._snapshots.fetcher.at(self._changes.definitions.known_storage())
        except Corrupted as error:
            self._snapshots.fetcher.lost(str(error))

    def _others(self) -> list[Announcement]:
        me = self._me
        return [
            a for a in self._changes.nodes.live() if (a.node, a.worker) != (me.node, me.worker) and a.group == me.group
        ]

    def _other_nodes(self) -> bool:
        return any(announced.node != self._me.node for announced in self._others())

    def _orphans(self) -> set[int]:
        """Slots that are assigned to nobody.

        The first worker of the group is the one to see to it, others find none.
        """
        others = self._others()
        joining = self._assigned is None and time.monotonic() - self._started_s < JOIN_S
        if joining or any((a.node, a.worker) < (self._me.node, self._me.worker) for a in others):
            return set()
        return set(range(self._slots)) - (self._assigned or frozenset()).union(*(a.slots for a in others))

    # 2. settle

    def _settle(self) -> bool:
        before, moved = self._placement.followed, False
        if self._assigned is not None and self._assigned != self._placement.assigned:
            self._say_assigned(self._placement.assigned, self._assigned)
            self._placement.assign(self._assigned)
            moved = True
        moved = self._placement.settle(self._others()) or moved
        released = before - self._placement.followed
        if released:
            log.info("slots are served by others now", slots=sorted(released))
        return moved

    def _say_assigned(self, before: frozenset[int], now: frozenset[int]) -> None:
        for event, slots in (("slots gained", now - before), ("slots lost", before - now)):
            if slots:
                log.info(event, slots=sorted(slots), assigned=len(now), of=self._slots)

    # 3. verify

    def _verify(self) -> bool:
        """Look at the topics; True when something new was learnt. Raises EpochChanged: of the definitions' own."""
        before = self._topics.seen(TABLES_TOPIC)
        try:
            news = self._topics.look({table.topic for table in self._live_tables()} | {TABLES_TOPIC})
        except LogUnreachable as error:
            if isinstance(error, AccessDenied):
                self._say_denied(error)
            self._heard(reachable=False)
            return False
        if news is None:
            return False
        self._heard(reachable=True)
        for failure in self._topics.failed.values():
            self._say_denied(failure)
        if before is not None and before != self._topics.seen(TABLES_TOPIC):
            raise EpochChanged(
                f"{TABLES_TOPIC} was deleted or created again under a running node; restore it, or begin anew with "
                "another --data-dir"
            )
        return news

    def _heard(self, *, reachable: bool) -> None:
        """Say so where nobody else does: who follows partitions hears it of them."""
        if not self._lane.followed():
            self._lane.heard(reachable=reachable)

    def _problem(self, table: Table) -> Stop | None:
        unreadable = self._changes.definitions.stopped(table.name)
        if unreadable is not None:
            return Stop(unreadable.word, str(unreadable), 0)
        return self._topics.problem(table)

    # 4. target

    def _retarget(self) -> None:
        targets: dict[PartitionKey, Target] = {}
        for table in self._live_tables():
            if not self._topics.is_looked_at(table):
                continue
            problem, hold = self._problem(table), self._topics.hold(table)
            for partition in range(table.partitions):
                slot = slot_of(partition, self._slots)
                if slot in self._placement.followed:
                    target = Target(table, partition, slot, problem, hold)
                    targets[target.key] = target
        known = self._assigned is not None or self._placement.followed  # else nobody has said yet what to follow
        if known and (targets != self._wanted.targets or self._wanted.generation == 0):
            self._wanted = Targets(self._wanted.generation + 1, targets)
            self._lane.follow(self._wanted)

    def _tell(self) -> None:
        """Faust assigns the first slot to exactly one worker of a group: that one leads."""
        leading = self._assigned is not None and self._first_slot in self._assigned
        self._snapshots.tell(self._changes.definitions, list(self._wanted.targets.values()), leading=leading)

    def _live_tables(self) -> list[Table]:
        return [table for table in self._changes.definitions.tables.values() if not table.dropped]

    # 5. show

    def _show(self) -> None:
        definitions = self._changes.definitions
        nodes = tuple(_node_record(announced) for announced in self._changes.nodes.live())
        self._feed.publish_changed(NodesKey(), NodesRecord(nodes))
        if (
            self._lane.generation == self._wanted.generation > 0
            and definitions.revision != self._published_revision
            and all(map(self._topics.is_looked_at, self._live_tables()))
        ):
            self._published_revision = definitions.revision
            sweep(self._data_dir, definitions.tables.values())
            self._feed.publish(TablesKey(), tables_record(definitions, self._slots, self._tables_id()))
        self._save()

    def _tables_id(self) -> str | None:
        described = self._topics.seen(TABLES_TOPIC)
        return described and described.topic_id

    def _save(self) -> None:
        """Keep what is served, for readers that start without this worker, and for itself after a restart."""
        if self._published_revision < 0:
            return
        served = Served(
            self._feed.get(TablesKey()) or TablesRecord(), self._feed.get(NodesKey()) or NodesRecord(),
            tuple(sorted(self._placement.followed)), self._feed.views(),
        )  # fmt: skip
        self._served_state.save(served)

    def _announcement(self) -> Announcement:
        acks = [ack.tables for ack in self._feed.acks() if ack is not None]
        phases = dict(self._lane.phases)
        held = {key for key, target in self._wanted.targets.items() if target.hold is not None}  # as those that stopped
        behind = {
            slot_of(key[1], self._slots) for key, phase in phases.items() if phase == "catching-up" and key not in held
        }
        behind |= {slot_of(partition, self._slots) for _, partition in self._wanted.targets.keys() - phases.keys()}
        followed = self._placement.followed if self._wanted.generation else frozenset()
        return Announcement(
            *self._me[:5],
            slots=sorted(self._placement.assigned),
            live=sorted(self._confirm.live(frozenset(followed - behind))),
            tables=min([self._published_revision, *acks]),
            pids=_pids(self._data_dir),
        )

    def _announce(self) -> None:
        announcement = self._announcement()
        last, at_s = self._announced
        if announcement != last or time.monotonic() - at_s >= ANNOUNCE_S:
            self._announcer.announce(announcement)
            self._announced = announcement, time.monotonic()
        self._announcer.hear()
        if self._announcer.acknowledged is not None:
            self._feed.publish_changed(ClockKey(), ClockRecord(*self._announcer.acknowledged))


def tables_record(definitions: Definitions, slots: int, topic_id: str | None) -> TablesRecord:
    """Feed record of the definitions."""
    tables = tuple(table.to_json() for table in definitions.tables.values())
    unreadable = tuple(UnreadableTable(name, why.word, str(why)) for name, why in definitions.unreadable.items())
    return TablesRecord(definitions.revision, topic_id, slots, definitions.storage, tables, unreadable)


def _node_record(announced: Announcement) -> NodeRecord:
    """Feed record of an announcement."""
    return NodeRecord(
        announced.node, announced.worker, announced.url, announced.group, announced.zone, tuple(announced.slots),
        tuple(announced.live), _process_ids(announced), announced.tables,
    )  # fmt: skip


def _process_ids(announced: Announcement) -> ProcessIds:
    """The processes that a worker announced; none where another version's announcement cannot be read."""
    try:
        return ProcessIds.decode(announced.pids)
    except UnreadableRecord:  # for information only
        return ProcessIds()


def _pids(data_dir: Path) -> dict[str, Any]:
    """Process ids that the supervisor wrote; empty for a worker that runs without one."""
    try:
        written: dict[str, Any] = orjson.loads((data_dir / "run" / "node.json").read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise LogStoreError(f"{data_dir}/run/node.json is damaged: {error}; restart the node") from error
    return {name: written.get(name) for name in ("node", "kafka", "workers", "readers")}
