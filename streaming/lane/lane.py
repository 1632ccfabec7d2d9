"""Lane: the data plane of a worker. One thread follows the log of its partitions into their views.

    1. follow   open and close views when the targets have changed
    2. take     whole fetched batches, from the position each view holds
    3. fold     and commit entries and position in one LMDB transaction (`partition.FollowedPartition.take`)
    4. publish  the new position to the node's readers

A batch is split where a snapshot ends: the view is committed exactly there and pinned (`cuts.Cuts`). What an adopter
has to have done to a view is done between two batches (`mailbox.Mailbox`).

A rebalance only changes the targets: positions are the views' own, so nothing can be lost, repeated or paused by it. A
partition that stops, or whose disk is full, is let go alone; one whose view is damaged begins again with a new one; the
others go on.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from logstore.log.read.tail import End, FetchedBatch, Tail, Trouble, Unreachable
from logstore.model.errors import Corrupted, LogStoreError, NotYet
from logstore.model.table import PartitionKey
from logstore.process import logs
from logstore.view.environment import Sync
from logstore.view.feed.log_records import LogKey, LogRecord
from logstore.view.feed.server import FeedServer
from logstore.view.layout import Stop
from streaming.lane.counts import LaneCounts
from streaming.lane.cuts import Cuts
from streaming.lane.disk.opened_view import Bootstrap
from streaming.lane.mailbox import Mailbox
from streaming.lane.opening import RETRY_S, OpenLater, ViewOpening
from streaming.lane.partition import FollowedPartition
from streaming.lane.status import LaneStatus
from streaming.lane.target import Target

log = logs.get(__name__)

POLL_S = 0.1
QUICK_S = 0.01
TICK_S = 1.0
OPEN_S = 0.1  # of opening views before the others' records are taken again
ANNOUNCE_S = 5.0
CHECK_S = 10.0
RECHECK_S = 30.0  # between two looks at a log that does not hold what was applied


class Targets(NamedTuple):
    """Targets of a lane, and a number that rises with every change."""

    generation: int
    targets: dict[PartitionKey, Target]


class Lane(threading.Thread):
    """Lane that follows its targets until `close`. Views belong to this thread alone."""

    def __init__(
        self,
        bootstrap: str,
        data_dir: Path,
        feed: FeedServer,
        *,
        group: str,
        sync: Sync,
        cuts: Cuts,
        bootstrapper: Callable[[Target], Bootstrap],
        queued_kbytes: int = 32_768,
    ) -> None:
        """`queued_kbytes` bounds what is fetched ahead, and so the memory; `bootstrapper` begins views."""
        super().__init__(name="lane", daemon=True)
        self._brokers, self._feed, self._group, self._queued_kbytes, self._cuts = (
            bootstrap,
            feed,
            group,
            queued_kbytes,
            cuts,
        )
        self.mailbox = Mailbox()
        self._wanted = Targets(0, {})
        self._generation = 0  # until somebody says what to follow, what an earlier run has shown stays
        self._followed: dict[PartitionKey, FollowedPartition] = {}
        self._by_topic: dict[PartitionKey, FollowedPartition] = {}
        self._retry_at_s: dict[PartitionKey, float] = {}
        self._status = LaneStatus(feed)
        self._opening = ViewOpening(data_dir, sync, bootstrapper, self._status)
        self._running = True
        self._restart = False
        self.failure: BaseException | None = None
        self.beat_s = time.monotonic()  # when the loop last came round
        self.counts = LaneCounts()
        self.applied = 0  # records, since the start
        self.reachable = True
        self.generation = -1  # of the targets that are followed now
        self.phases: dict[PartitionKey, str] = {}

    def follow(self, wanted: Targets) -> None:
        """Follow exactly these targets from now on; `generation` tells when it is done."""
        self._wanted = wanted

    def restart(self) -> None:
        """Begin with a new consumer: this one does not progress."""
        self.counts.restarts += 1
        self._restart = True

    def followed(self) -> list[FollowedPartition]:
        """Followed partitions; other threads look at them, and change them through the mailbox only."""
        return list(self._followed.values())

    def at(self, key: PartitionKey) -> FollowedPartition | None:
        """The partition, if it is followed; as of `followed`."""
        return self._followed.get(key)

    def behind(self, ends: Mapping[PartitionKey, int]) -> dict[PartitionKey, int]:
        """Next offsets of the partitions that lag behind what is committed (`ends`) for no reason that is known."""
        held = {f.target.key: f for f in self.followed() if f.stop is None and f.held is None}
        return {key: f.next_offset for key, f in held.items() if ends.get(key, -1) > f.next_offset}

    def close(self, timeout_s: float = 20.0) -> None:
        """Stop following; flush and close every view."""
        self._running = False
        self.join(timeout_s)

    def run(self) -> None:
        """The thread. A failure ends it and is kept in `failure`: the worker ends, and is started again."""
        try:
            while self._running:
                self._restart = False
                self._run_once()
        except BaseException as error:  # the worker looks at `failure` and ends
            log.exception("the lane failed")
            self.failure = error
        finally:
            for followed in self._followed.values():
                _close(followed)

    def _run_once(self) -> None:
        """Consume with one consumer, until it is let go."""
        tail = Tail(self._brokers, group=f"{self._group}.applied", queued_kbytes=self._queued_kbytes)
        try:
            for followed in self.followed():
                self._start(tail, followed)
            ticked = announced = checked = time.monotonic()
            while self._running and not self._restart:
                self._reconcile(tail)
                self._do_mail(tail)
                for event in tail.take(self._patience_s()):
                    self._on_event(tail, event)
                self.beat_s = now = time.monotonic()
                if now - ticked >= TICK_S:
                    ticked = now
                    self._tick(tail)
                if now - announced >= ANNOUNCE_S:
                    announced = now
                    self._announce(tail)
                if now - checked >= CHECK_S:
                    checked = now
                    self._free_slots()
            self._announce(tail)
        finally:
            tail.close()

    # 1. follow

    def _reconcile(self, tail: Tail) -> None:
        wanted = self._wanted
        changed = wanted.generation != self._generation
        due = {key for key, at_s in self._retry_at_s.items() if at_s <= time.monotonic()}
        if not changed and not due:
            return
        for key in [
            key
            for key, f in self._followed.items()
            if key not in wanted.targets or wanted.targets[key].name != f.target.name
        ]:
            self._leave(tail, key)
        for key, followed in list(self._followed.items()):
            if followed.target != wanted.targets[key] or key in due:
                followed.target = wanted.targets[key]
                self._restart_one(tail, followed)
        closed = [key for key in wanted.targets if key not in self._followed and (changed or key in due)]
        self._open_some(tail, [wanted.targets[key] for key in closed])
        if changed:
            self._forget_others(wanted)
        self._generation = wanted.generation
        if all(key in self.phases for key in wanted.targets):
            self.generation = wanted.generation

    def _open_some(self, tail: Tail, closed: list[Target]) -> None:
        """Open views for a moment, those that have waited longest first; the rest are due in the next round.

        A worker may have thousands to open: what it follows already goes on meanwhile.
        """
        until_s = time.monotonic() + OPEN_S
        for target in sorted(closed, key=lambda target: self._retry_at_s.get(target.key, 0.0)):
            if time.monotonic() < until_s:
                self._open(tail, target)
            else:
                self._retry_at_s[target.key] = 0.0

    def _forget_others(self, wanted: Targets) -> None:
        """Take back what is left of other targets, and what the feed shows of an earlier run of this worker."""
        self._retry_at_s = {key: at_s for key, at_s in self._retry_at_s.items() if key in wanted.targets}
        self._status.only(wanted.targets.values())

    def _open(self, tail: Tail, target: Target) -> None:
        self._retry_at_s.pop(target.key, None)
        followed = self._opening.open(target)
        if isinstance(followed, OpenLater):
            self._retry_at_s[target.key] = time.monotonic() + followed.again_s
            if followed.phase is not None:
                self.phases[target.key] = followed.phase
            return
        followed.counts = self.counts.of(target.table.name)
        self._followed[target.key] = self._by_topic[target.table.topic, target.partition] = followed
        self._start(tail, followed)

    def _start(self, tail: Tail, followed: FollowedPartition) -> None:
        target = followed.target
        if target.problem is not None:
            if self._halt(tail, followed, target.problem):
                self._publish(followed)
            return
        if target.hold is not None:
            self._hold(tail, followed, target.hold)
            self._publish(followed)
            return
        try:
            where = followed.start()
        except Corrupted as error:
            self._remove(tail, followed, error)
            return
        except (NotYet, OSError) as error:
            self._hold(tail, followed, str(error))
            where = None
        if where is not None:
            tail.follow(target.table.topic, target.partition, *where)
        self._publish(followed)

    def _halt(self, tail: Tail, followed: FollowedPartition, problem: Stop) -> bool:
        """False when its view is damaged, and was removed."""
        try:
            followed.halt(problem)
            followed.held = None
        except Corrupted as error:
            self._remove(tail, followed, error)
            return False
        except (NotYet, OSError) as error:
            self._hold(tail, followed, str(error))
        return True

    def _restart_one(self, tail: Tail, followed: FollowedPartition) -> None:
        self._retry_at_s.pop(followed.target.key, None)
        tail.leave(followed.target.table.topic, followed.target.partition)
        self._start(tail, followed)

    def _leave(self, tail: Tail, key: PartitionKey) -> None:
        followed = self._followed.pop(key)
        target = followed.target
        del self._by_topic[target.table.topic, target.partition]
        tail.leave(target.table.topic, target.partition)
        for gone in (self._retry_at_s, self.phases):
            gone.pop(key, None)
        self._status.gone(target)
        _close(followed)

    def _remove(self, tail: Tail, followed: FollowedPartition, why: Corrupted) -> None:
        """A view that is damaged goes; the partition begins again from its bootstrap, as one that was never here."""
        target = followed.target
        log.error(
            "the view is removed and begins again", table=target.table.name, partition=target.partition,
            applied=followed.next_offset, reason=str(why),
        )  # fmt: skip
        tail.leave(target.table.topic, target.partition)
        del self._followed[target.key], self._by_topic[target.table.topic, target.partition]
        _discard(followed)
        self._status.removed(target, str(why))
        self.phases[target.key] = "catching-up"
        self._retry_at_s[target.key] = time.monotonic() + RETRY_S

    # 2. take, 3. fold

    def _on_event(self, tail: Tail, event: FetchedBatch | End | Trouble | Unreachable) -> None:
        if isinstance(event, Unreachable):
            self.heard(reachable=False)
            return
        followed = self._by_topic.get((event.topic, event.partition))
        if followed is None or not tail.follows(event.topic, event.partition):  # fetched before it was let go
            return
        if not isinstance(event, Trouble):  # that of one partition says nothing about the others
            self.heard(reachable=True)
        try:
            following = self._apply(tail, followed, event) and not self._cuts.holds(followed.target.key)
            if not isinstance(event, Trouble):
                followed.held = None
        except Corrupted as error:
            self._remove(tail, followed, error)
            return
        except (NotYet, OSError) as error:
            self._hold(tail, followed, str(error))
            following = True
        if not following:
            tail.leave(event.topic, event.partition)
        if followed.proof.again:  # after all events that were fetched before
            self._retry(tail, followed, 0.0)
        elif followed.is_cut_back:  # an unclean leader may go as it came
            self._retry(tail, followed, RECHECK_S)
        self._publish(followed)

    def _apply(self, tail: Tail, followed: FollowedPartition, event: FetchedBatch | End | Trouble) -> bool:
        if isinstance(event, FetchedBatch):
            self.applied += len(event.records.offsets)
            followed.end = max(followed.end, tail.end(event.topic, event.partition))
            if not followed.prove(event.records):
                return False
            return self._take(followed, event)
        if isinstance(event, End):
            if followed.proof.wanted is None:
                return followed.at_end(event.offset)
            # a leader that has just come hands over less than it has, until its followers have fetched (KIP-207)
            followed.prove_end(tail.bounds(event.topic, event.partition)[1])
            return False
        if event.word == "truncated":
            followed.out_of_range(*tail.bounds(event.topic, event.partition), event.detail)
            return False
        # a topic that is gone is found out by the control plane, which looks at the ids
        self._hold(tail, followed, f"{event.topic}/{event.partition}: {event.detail}")
        return True

    def _take(self, followed: FollowedPartition, batch: FetchedBatch) -> bool:
        """Apply a batch, up to the first record that has its writer's time; False when the partition stopped."""
        before, stop = followed.upto_foreign_time(batch.records, batch.by_writers)
        following = self._cuts.take(followed, before, batch.leader_epoch)
        if stop is None or not following or not followed.reaches(stop.offset):
            return following
        followed.halt(stop)
        return False

    def _hold(self, tail: Tail, followed: FollowedPartition, why: str) -> None:
        """Hold a partition: its view stays as it is, and the same records are tried again a little later."""
        if followed.held != why:
            target = followed.target
            log.warning(
                "the partition waits", table=target.table.name, partition=target.partition,
                applied=followed.next_offset, reason=why,
            )  # fmt: skip
            followed.held = why
        self._retry(tail, followed)

    def _retry(self, tail: Tail, followed: FollowedPartition, again_s: float = RETRY_S) -> None:
        """Let go now, begin again at the view's position a little later."""
        tail.leave(followed.target.table.topic, followed.target.partition)
        self._retry_at_s[followed.target.key] = time.monotonic() + again_s

    def _do_mail(self, tail: Tail) -> None:
        for key in self._cuts.over():
            if key in self._followed:
                self._restart_one(tail, self._followed[key])
        for followed, moved in self.mailbox.answer(self._followed):
            if followed.discarded is not None:
                self._remove(tail, followed, Corrupted(followed.discarded))
                continue
            if moved:
                self._restart_one(tail, followed)
            if followed.target.key in self._followed:
                self._publish(followed)

    def _patience_s(self) -> float:
        """Seconds to wait for records: fewer when a view may begin, or a step is to be done, at any moment."""
        soonest_s = min(self._retry_at_s.values(), default=float("inf")) - time.monotonic()
        return QUICK_S if self._cuts.waiting or self.mailbox.hurried else min(max(soonest_s, QUICK_S), POLL_S)

    # 4. publish

    def _publish(self, followed: FollowedPartition) -> None:
        self._status.show(followed)
        self.phases[followed.target.key] = followed.phase

    def heard(self, *, reachable: bool) -> None:
        """The log answers, or not, as somebody has just found out. Any thread."""
        if reachable != self.reachable:
            self._say(reachable=reachable)
        self.reachable = reachable
        self._feed.publish_changed(LogKey(), LogRecord(reachable))

    def _say(self, *, reachable: bool) -> None:
        if reachable:
            log.info("Kafka answers again", lines_left_out=logs.OUTAGE.end())
        else:
            log.warning("Kafka does not answer: what is served does not advance")
            logs.OUTAGE.begin()

    def _tick(self, tail: Tail) -> None:
        """Look once a second at what only looking shows."""
        self._cuts.watch(self._followed.values())
        for followed in self._followed.values():
            if followed.stop is None:
                followed.look(tail.end(followed.target.table.topic, followed.target.partition))
            self._publish(followed)

    def _free_slots(self) -> None:
        """Readers that were killed leave slots taken, and what they were reading pinned.

        Then the file could only grow.
        """
        for followed in self._followed.values():
            followed.view.free_slots()

    def _announce(self, tail: Tail) -> None:
        tail.announce((f.target.table.topic, f.target.partition, f.next_offset) for f in self._followed.values())


def _close(followed: FollowedPartition) -> None:
    try:
        followed.close()
    except (LogStoreError, OSError) as error:  # it keeps its mark, and is thrown away after a power cut
        log.warning(f"{followed.view.path} is not flushed: {error}")


def _discard(followed: FollowedPartition) -> None:
    try:
        followed.discard()
    except OSError as error:  # then it is found damaged again
        log.warning(f"{followed.view.path} cannot be removed: {error}")
