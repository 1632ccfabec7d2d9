"""Worker: one process of the fast path. Puts the pieces together and ends with an exit status that says why.

    feed        shows this node's readers what is served (`logstore.view.feed`)
    lane        follows the log into the views
    digester    pins views at cuts, computes digests, builds generations (a process of its own)
    adopter     takes over the snapshots that batch jobs make, where digests agree
    schedule    makes such snapshots, in the one worker that leads
    control     knows tables, other workers and slots
    Faust app   group membership: which slots are ours

Order of the end, so that no read fails: 1 Faust leaves the group, 2 the next owners catch up while this worker still
serves, 3 the lane flushes and closes the views, 4 the digest client ends and the feed hangs up.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from logstore.log.kafka import clients, offsets
from logstore.log.membership.permissions import check_worker, group_of
from logstore.log.tables.registry import Registry
from logstore.model.errors import AccessDenied, EpochChanged, LogStoreError, LogTruncated, NotYet
from logstore.process import descriptors, logs
from logstore.process.heartbeat import Heartbeat
from logstore.view import paths
from logstore.view.environment import Sync
from logstore.view.feed.acknowledgement import SnapshotPlace
from logstore.view.feed.log_records import LogKey, LogRecord
from logstore.view.feed.node_records import NodesKey
from logstore.view.feed.server import FeedServer
from logstore.view.feed.table_records import TablesKey
from logstore.view.feed.view_records import CATCHING_UP, STOPPED
from logstore.view.positions import PositionKeeper, position_name
from streaming.adoption.adopter import Adopter
from streaming.adoption.bootstrap import Bootstrapper
from streaming.adoption.discards import Discards
from streaming.adoption.progress import AdoptionProgress
from streaming.adoption.recorder import recorder
from streaming.adoption.snapshot_fetcher import SnapshotFetcher
from streaming.app import SESSION_S, make_app
from streaming.control.control_plane import ControlPlane, Me, SnapshotServices
from streaming.control.demands.asked_ends import AskedEnds
from streaming.control.demands.barriers import Barriers
from streaming.control.served_state import ServedState
from streaming.control.ticks import Ticks
from streaming.control.topics.end_offsets import EndOffsets
from streaming.control.watchdog import UNREAD_S, ReaderWatch, RunningClock, Watchdog
from streaming.control.worker_figures import WorkerFigures
from streaming.digest.client import DigestClient
from streaming.lane.cuts import Cuts
from streaming.lane.lane import Lane
from streaming.schedule.compaction_job import compact
from streaming.schedule.compaction_schedule import CompactionSchedule
from streaming.schedule.schedule_runs import ScheduleRuns
from streaming.transport import check_transport

log = logs.get(__name__)

OnReady = Callable[[dict[str, Any]], None]

WATCH_S = 1.0
PROBE_S = 3.0  # asking whether Kafka is there
STUCK_S = 20.0
ORPHANED_S = 10.0  # a rebalance takes some 3 s, the death of a worker 6 s more
DRAIN_S = 15.0


class Config(NamedTuple):
    """Configuration of a worker; see `python -m streaming --help`."""

    bootstrap: str
    data_dir: Path
    me: Me
    sync: Sync
    heartbeat_fd: int | None
    queued_kbytes: int
    fetch_mb_s: float | None


class Worker:
    """A worker from start to end."""

    def __init__(self, config: Config) -> None:
        """Connect, as soon as Kafka answers; until then readers are shown what was served before.

        Raises AccessDenied where Kafka refuses this worker, and nothing was served before.
        """
        registry = Registry(config.bootstrap)
        self._config, self._heartbeat = config, Heartbeat(config.heartbeat_fd)
        self._group = group_of(config.me.group)
        self._demanded: tuple[AskedEnds | Barriers, ...] = ()
        self._feed = FeedServer(paths.feed_path(config.data_dir, config.me.worker), self._heard)
        has_served = restore(self._feed, ServedState(paths.served_path(config.data_dir, config.me.worker)))
        self._slots = self._await_store(registry, has_served=has_served)
        self._digest_client, progress = DigestClient(), AdoptionProgress(self._feed)
        fetcher = SnapshotFetcher(
            config.data_dir, config.me.node, progress, fetch_mb_s=config.fetch_mb_s, worker=config.me.worker
        )

        def log_start(topic: str, partition: int) -> int:
            return offsets.bounds(registry.admin, topic, [partition])[partition].start

        self._bootstrapper = Bootstrapper(fetcher, progress, log_start)
        self._lane = Lane(
            config.bootstrap, config.data_dir, self._feed, group=self._group, sync=config.sync,
            queued_kbytes=config.queued_kbytes,
            cuts=Cuts(self._digest_client, recorder(progress)), bootstrapper=self._bootstrapper,
        )  # fmt: skip
        self._adopter = Adopter(
            config.bootstrap, self._lane, fetcher, self._digest_client, progress, self._found_damaged, log_start,
            Discards(config.data_dir),
        )  # fmt: skip
        self._schedule = CompactionSchedule(
            fetcher,
            ScheduleRuns(fetcher, self._feed),
            lambda table: {
                p: held.end
                for p, held in offsets.bounds(registry.admin, table.topic, list(range(table.partitions))).items()
            },
            compact(config.bootstrap, config.data_dir),
            config.data_dir / "logs" / "schedule.log",
        )
        self._control_plane = ControlPlane(
            config.bootstrap, config.data_dir, config.me, self._slots, self._feed, self._lane,
            snapshots=SnapshotServices(fetcher, progress, self._schedule),
        )  # fmt: skip
        self._ends = EndOffsets(lambda: registry.admin, self._feed, self._lane)
        self._positions = PositionKeeper(
            config.data_dir,
            config.me.worker,
            lambda: [(position_name(one.target.name, *one.target.key), one.proved) for one in self._lane.followed()],
        )
        self._ticks = Ticks(
            config.bootstrap,
            self._lane,
            self._feed,
            lambda: [wanted for ack in self._feed.demands() for wanted in ack.ticks],
        )
        self._demanded = (
            AskedEnds(
                config.bootstrap, lambda: registry.admin, self._feed, self._lane, self._ends,
                lambda: [wanted for ack in self._feed.demands() for wanted in ack.ends],
            ),
            Barriers(
                config.bootstrap, self._feed, self._lane,
                lambda: [wanted for ack in self._feed.demands() for wanted in ack.barriers],
            ),
        )  # fmt: skip
        self._figures = WorkerFigures(config.data_dir, config.me.worker, self._lane, self._schedule, progress)
        self._watchdog, self._readers = Watchdog(), ReaderWatch()
        self._on_ready: OnReady | None = None
        self.failure: str | None = None

    def run(self, on_ready: OnReady | None = None) -> int:
        """Serve until SIGTERM or a failure; `on_ready` is told once, when readers answer for all slots it was given.

        Returns the exit status. Raises EpochChanged, LogTruncated: of the store's own log.
        """
        self._on_ready = on_ready
        descriptors.raise_limit()  # before views are opened
        faust_dir = self._config.data_dir / "workers" / f"{self._config.me.worker}.faust"
        faust_dir.mkdir(parents=True, exist_ok=True)
        app = make_app(self._group, self._config.bootstrap, faust_dir, self._slots, self._control_plane.assign)
        app.task(self._watch)
        runner = app.Worker()
        try:
            for part in (
                self._digest_client, self._lane, self._control_plane, self._adopter, self._schedule, self._ends,
                self._positions, self._ticks, *self._demanded, self._figures,
            ):  # fmt: skip
                part.start()
            signal.signal(signal.SIGTERM, end)  # until Faust has its own handler
            runner.execute_from_commandline()
        except SystemExit as ended:
            log.info("Faust has left the group", status=ended.code)
        finally:
            self._drain()
            self._adopter.close()
            self._schedule.close()
            self._ends.close()
            self._ticks.close()
            for demanded in self._demanded:
                demanded.close()
            self._figures.close()
            self._lane.close()
            self._positions.close()
            self._control_plane.close()
            self._bootstrapper.close()
            self._digest_client.close()
            self._feed.close()
        if self.failure:
            log.error(f"the worker ends: {self.failure}")
        if isinstance(self._control_plane.failure, (EpochChanged, LogTruncated)):
            raise self._control_plane.failure
        return 1 if self.failure else 0

    def _drain(self) -> None:
        begun_s = time.monotonic()
        left = self._control_plane.drain(DRAIN_S if self.failure is None else 0.0)
        log.info("the worker is drained", seconds=round(time.monotonic() - begun_s, 3), slots_kept=sorted(left))

    def _await_store(self, registry: Registry, *, has_served: bool) -> int:
        """The number of slots. A broker that is away, or has just started and leads nothing yet, ends no worker.

        Raises AccessDenied where nothing could be served meanwhile.
        """
        said = ""
        while True:
            self._heartbeat.beat()
            try:
                if clients.cluster_id(self._config.bootstrap, PROBE_S) is not None:
                    slots = registry.ensure_store()
                    check_worker(self._config.bootstrap, self._group)
                    check_transport(self._config.bootstrap)
                    return slots
                why = f"Kafka at {self._config.bootstrap} does not answer"
            except NotYet as error:
                if isinstance(error, AccessDenied) and not has_served:
                    self._feed.close()
                    raise
                why = str(error)
            self._feed.publish_changed(LogKey(), LogRecord(reachable=False))
            if why != said:
                said = why
                log.warning(f"{why}; readers are shown what was served before, and it goes on by itself")

    async def _watch(self, app: Any) -> None:
        """Look once a second whether everything lives and progresses."""
        clock = RunningClock(SESSION_S, time.monotonic())
        while not app.should_stop:
            self.failure = self._trouble(clock)
            if self.failure:
                await app.crash(LogStoreError(self.failure))
                return
            self._heartbeat.beat()
            self._say_ready()
            await asyncio.sleep(WATCH_S)

    def _say_ready(self) -> None:
        slots = self._control_plane.ready()
        if self._on_ready is not None and slots is not None:
            say, self._on_ready = self._on_ready, None
            me = self._config.me
            say({"ready": True, "node_id": me.node, "worker": me.worker, "slots": sorted(slots), "http": me.url})

    def _heard(self) -> None:
        """A reader has said something; on the feed's thread."""
        for demanded in self._demanded:
            demanded.ring()

    def _found_damaged(self) -> list[SnapshotPlace]:
        """Local snapshots that readers found damaged."""
        return [found for ack in self._feed.demands() for found in ack.damaged]

    def _trouble(self, clock: RunningClock) -> str | None:
        ran_s = clock.look(time.monotonic())
        for part in (self._lane, self._control_plane):
            if part.failure is not None:
                return f"the {part.name} failed: {part.failure}"
            if clock.ran_since(part.beat_s) > STUCK_S:
                return clock.lost_session(part.beat_s) or f"the {part.name} has been stuck for {STUCK_S:g} s"
        threads = (
            self._digest_client,
            self._adopter,
            self._schedule,
            self._ends,
            self._positions,
            self._ticks,
            *self._demanded,
            self._figures,
        )
        for thread in (self._feed.thread, *threads):
            if not thread.is_alive():
                return f"the {thread.name} failed"
        if self._lane.reachable and clock.ran_since(self._control_plane.whole_s) > ORPHANED_S:
            return clock.lost_session(self._control_plane.whole_s) or (
                "slots are assigned to nobody: the group was formed while a broker that had just started did not know "
                "its topics yet"
            )
        if self._readers.gone(len(self._feed.acks()), ran_s):
            return (
                f"the node has had no reader for {UNREAD_S:g} s: its slots go to nodes that answer for them, and come "
                "back with its readers"
            )
        behind = self._lane.behind(self._ends.committed) if self._lane.reachable else {}
        still, again = self._watchdog.look(behind, ran_s)
        if again:
            return f"these partitions do not progress, even with a new consumer: {sorted(again)}"
        if still:
            log.warning("no progress for a while, the lane begins again", partitions=sorted(still))
            self._lane.restart()
        return None


def end(_number: int, _frame: FrameType | None) -> None:
    """End in order: what a signal does until Faust has a handler of its own."""
    sys.exit(0)


def restore(feed: FeedServer, saved: ServedState) -> bool:
    """Show what this worker served before it was restarted, until it is known what it serves now; False: nothing."""
    served = saved.load()
    if served is None:
        return False
    for key, view in served.views.items():
        if view.path and Path(view.path).exists():
            feed.publish(key, view._replace(state=STOPPED if view.state == STOPPED else CATCHING_UP))
    feed.publish(NodesKey(), served.nodes)
    feed.publish(TablesKey(), served.tables)
    return True
