"""Figures of a worker, written once a second for the readers of its node (`logstore.process.figures`).

Lag in seconds is told here, where it is seen when a view last had all of the log; a view that has not been there since
this worker began is as old as the last record that it holds.
"""

import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from logstore.model.table import PartitionKey
from logstore.process import figures
from logstore.process.figures import UNKNOWN, Family, counter, gauge
from logstore.snapshot.schedule import DONE, FAILED, RUNNING
from logstore.snapshot.verdicts import AGREE, CONSISTENT, REFUSE
from streaming.adoption.progress import AdoptionProgress
from streaming.lane.lane import Lane
from streaming.lane.partition import FollowedPartition
from streaming.schedule.compaction_schedule import CompactionSchedule

log = logging.getLogger(__name__)


class LagClock:
    """Seconds for which each view has not had all of its log."""

    def __init__(self) -> None:
        self._whole_s: dict[PartitionKey, float] = {}  # when it last had all, of a monotonic clock

    def look(self, followed: Iterable[FollowedPartition], *, reachable: bool) -> dict[tuple[str, int], float]:
        """Lag in seconds by (table, partition); NaN where it is not known: no answer of the log, or a stop."""
        now_s, found, whole_s = time.monotonic(), {}, self._whole_s
        self._whole_s = {}
        for one in followed:
            key, is_known = one.target.key, reachable and one.stop is None
            if is_known and one.held is None and one.reached_end and one.next_offset >= one.end:
                self._whole_s[key] = now_s
            elif key in whole_s:
                self._whole_s[key] = whole_s[key]
            found[one.target.table.name, one.target.partition] = self._behind_s(one, now_s) if is_known else UNKNOWN
        return found

    def _behind_s(self, one: FollowedPartition, now_s: float) -> float:
        if one.target.key in self._whole_s:
            return now_s - self._whole_s[one.target.key]
        log_time_ms = one.view.state.log_time_ms
        return max(time.time() - log_time_ms / 1000, 0.0) if log_time_ms > 0 else UNKNOWN


class WorkerFigures(threading.Thread):
    """The thread that writes them; runs until `close`."""

    def __init__(
        self, data_dir: Path, worker: int, lane: Lane, schedule: CompactionSchedule, progress: AdoptionProgress
    ) -> None:
        super().__init__(name="figures", daemon=True)
        self._progress = progress
        self._data_dir, self._worker, self._lane, self._schedule = data_dir, worker, lane, schedule
        self._lag, self._complaint = LagClock(), ""
        self._closing = threading.Event()

    def close(self) -> None:
        """Write no more."""
        self._closing.set()
        self.join(5)

    def run(self) -> None:
        """Write once a second, until `close`."""
        while not self._closing.wait(figures.EVERY_S):
            try:
                figures.publish(self._data_dir, f"worker-{self._worker}", self.families())
                self._complaint = ""
            except OSError as error:  # a full disk ends no worker
                self._complain(str(error))

    def families(self) -> Iterable[Family]:
        """Figures of this worker, all that are told."""
        yield from figures.of_process(f"worker-{self._worker}")
        yield from self._of_tables()
        yield self._verdicts()
        yield from self._of_schedule()
        mine = {"worker": str(self._worker)}
        yield counter(
            "logstore_lane_restarts", "Consumers begun anew: the one before did not progress.",
            [(mine, self._lane.counts.restarts)],
        )  # fmt: skip
        lag = self._lag.look(self._lane.followed(), reachable=self._lane.reachable)
        values = [({"table": table, "partition": str(partition)}, value) for (table, partition), value in lag.items()]
        yield gauge("logstore_worker_lag_seconds", "As logstore_lag_seconds, by the worker's own word.", values)

    def _of_tables(self) -> Iterable[Family]:
        counts = [
            ({"worker": str(self._worker), "table": table}, one) for table, one in self._lane.counts.tables().items()
        ]
        yield counter(
            "logstore_applied_records", "Records applied to views.", [(la, one.records) for la, one in counts]
        )
        yield counter("logstore_batches", "Batches applied to views.", [(la, one.batches) for la, one in counts])
        yield counter("logstore_fold_seconds", "Time spent in folds.", [(la, one.fold_s) for la, one in counts])
        yield counter("logstore_commit_seconds", "Time spent in commits.", [(la, one.commit_s) for la, one in counts])

    def _verdicts(self) -> Family:
        """Verdicts of this worker; of every table that it follows, from 0 on, so that the first one is an increase."""
        found = self._progress.verdicts()
        tables = {one.target.table.name for one in self._lane.followed()} | {table for table, _ in found}
        words = [(table, word) for table in sorted(tables) for word in (AGREE, CONSISTENT, REFUSE)]
        mine = {"worker": str(self._worker)}
        return counter(
            "logstore_snapshot_verdicts", "Partitions of snapshots that this worker compared with its own fold.",
            [({**mine, "table": table, "verdict": word}, found.get((table, word), 0)) for table, word in words],
        )  # fmt: skip

    def _of_schedule(self) -> Iterable[Family]:
        """Families of the worker that leads, or has led since it began."""
        runs = [({"table": table}, run) for table, run in self._schedule.runs.known().items()]
        yield counter(
            "logstore_schedule_runs", "Scheduled compactions that ended, by result, whoever ran them.",
            [
                ({**labels, "result": result}, count)
                for labels, run in runs
                for result, count in ((DONE, run.done), (FAILED, run.failed))
            ],
        )  # fmt: skip
        yield gauge(
            "logstore_schedule_failures_in_a_row", "Scheduled compactions that failed since the last that did not.",
            [(labels, run.failures) for labels, run in runs],
        )  # fmt: skip
        yield gauge(
            "logstore_schedule_running", "1 while a scheduled compaction runs.",
            [(labels, run.result == RUNNING) for labels, run in runs],
        )  # fmt: skip
        ended = [(labels, run) for labels, run in runs if run.ended_ms]
        yield gauge(
            "logstore_schedule_ended_timestamp_seconds", "When the last scheduled compaction ended, since 1970.",
            [(labels, run.ended_ms / 1000) for labels, run in ended],
        )  # fmt: skip
        yield gauge(
            "logstore_schedule_seconds", "Duration of the last scheduled compaction.",
            [(labels, run.took_ms / 1000) for labels, run in ended],
        )  # fmt: skip
        yield gauge(
            "logstore_archive_gap_records", "Offsets below the current snapshot that are not archived, nor trimmed so.",
            self._schedule.gaps.found(),
        )  # fmt: skip

    def _complain(self, why: str) -> None:
        if why != self._complaint:
            self._complaint = why
            log.warning("figures of this worker are not written: %s; it is tried again", why)
