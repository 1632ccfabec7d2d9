"""Compaction schedule: makes snapshots of the tables that ask for it.

Run by the leader alone: the worker to which Faust assigned the first slot.

Due is a table with `schedule` {"every_mutations", "every_minutes"} when its log has grown by so much since the current
snapshot's cut, or that snapshot is so old and the log has grown at all. All that are due go into one job (`MOST` at
most, those with the oldest snapshots first), a process of its own that ends with the worker; one at a time here, and
`Repository.lease` keeps others out. After a failure the table waits, twice as long each time; the others do not. How it
went is kept in the storage (`ScheduleRuns`): the next leader goes on from there.
"""

import threading
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

from logstore.model.errors import AccessDenied, LogStoreError, LogUnreachable
from logstore.model.table import Table
from logstore.process import logs
from logstore.snapshot.schedule import FAILED, RUNNING, Standing, due, standing
from streaming.adoption.snapshot_fetcher import SnapshotFetcher
from streaming.schedule.archive_gaps import ArchiveGaps
from streaming.schedule.compaction_job import Command, CompactionJob
from streaming.schedule.schedule_runs import ScheduleRuns

log = logs.get(__name__)

LOOK_S = 5.0
MOST = 100  # tables of one job: a command line has an end
_MOST_UNANSWERED = 1_000  # tables that are remembered for it

LogEnds = Callable[[Table], Mapping[int, int]]  # partition -> end of its log; raises LogUnreachable


class CompactionSchedule(threading.Thread):
    """The thread that starts compactions; runs until `close`."""

    def __init__(
        self, fetcher: SnapshotFetcher, runs: ScheduleRuns, log_ends: LogEnds, command: Command, log_path: Path
    ) -> None:
        """`log_path` gets what the jobs print."""
        super().__init__(name="schedule", daemon=True)
        self._fetcher, self.runs, self._log_ends, self._command = fetcher, runs, log_ends, command
        self.gaps = ArchiveGaps(fetcher)
        self._log_path = log_path
        self._tables: list[Table] = []
        self._leading = False
        self._job: CompactionJob | None = None
        self._closing = threading.Event()
        self._turns, self._unanswered = count(1), dict[str, int]()  # epoch -> the turn in which its log did not answer

    def lead(self, tables: list[Table], *, leading: bool) -> None:
        """Take over the tables; `leading`: whether their compactions are this worker's business."""
        self._tables, self._leading = tables, leading

    def close(self) -> None:
        """Stop, and end a job that runs: the next leader's begins where it was."""
        self._closing.set()
        self.join(10)

    def run(self) -> None:
        """Start the compactions that are due, until `close`."""
        while not self._closing.wait(LOOK_S):
            self._follow()
            tables = self._tables if self._leading else []
            self.runs.only([table for table in tables if table.schedule or self._is_compacted(table)])
            self._start(self._due(tables))
            self.gaps.look(tables)
        if self._job is not None:
            self._job.kill()

    def _is_compacted(self, table: Table) -> bool:
        return self._job is not None and self._job.holds(table)

    def _due(self, tables: list[Table]) -> list[tuple[Table, Standing]]:
        """Tell how the tables stand; those that are due, and how they do."""
        found: list[tuple[Table, Standing]] = []
        for table in sorted(tables, key=lambda table: self._unanswered.get(table.epoch, 0)):
            if table.schedule and not self._is_compacted(table) and not self.runs.rests(table):
                try:
                    now = self._standing(table)
                    self.runs.tell(table, now)
                except LogUnreachable as error:
                    if not isinstance(error, AccessDenied):  # no failure of a compaction; who follows the log says it
                        self._ask_last(table)
                        return found
                    self._failed(table, str(error))
                    continue
                except (LogStoreError, OSError) as error:
                    self._failed(table, str(error))
                    continue
                if not self.runs.rests(table) and due(table.schedule, now):
                    found.append((table, now))
        return found

    def _ask_last(self, table: Table) -> None:
        """Ask for a table whose log does not answer behind all others, next time: they need not wait for it."""
        self._unanswered = {**dict(list(self._unanswered.items())[-_MOST_UNANSWERED:]), table.epoch: next(self._turns)}

    def _standing(self, table: Table) -> Standing:
        run, ends = self.runs.of(table), self._log_ends(table)
        pointer = self._fetcher.current(table)
        manifest = None if pointer is None else self._fetcher.manifest(table, pointer.name)
        return standing(manifest, ends, run.since_ms, time.time_ns() // 1_000_000)

    def _start(self, found: list[tuple[Table, Standing]]) -> None:
        if self._job is not None or not found:
            return
        oldest = sorted(found, key=lambda one: one[1].minutes, reverse=True)[:MOST]
        log.info("a job of scheduled compactions started", tables=len(oldest))
        try:
            self._job = CompactionJob(oldest, self._command, str(self._fetcher.url), self._log_path)
        except OSError as error:
            for table, _ in oldest:
                self._failed(table, f"the job cannot be started: {error}")

    def _follow(self) -> None:
        """Take down whose turns began and ended."""
        if self._job is None:
            return
        ended = self._job.ended
        for table, now, turn in self._job.news():
            if turn.state == RUNNING:
                self._begun(table, now, turn.at_ms)
            elif turn.state == FAILED:
                self._failed(table, turn.why)
            else:
                seconds = self.runs.ended(table, turn.at_ms).took_ms / 1000
                log.info("a scheduled compaction ended", table=table.name, seconds=seconds)
        if ended:
            self._job = None

    def _begun(self, table: Table, now: Standing, at_ms: int) -> None:
        log.info(
            "a scheduled compaction started", table=table.name, mutations=now.mutations,
            minutes=round(now.minutes, 1),
        )  # fmt: skip
        self.runs.begun(table, now, at_ms)

    def _failed(self, table: Table, why: str) -> None:
        run = self.runs.failed(table, why)
        log.warning(
            "a scheduled compaction failed", table=table.name, seconds=run.took_ms / 1000, failures=run.failures,
            next_attempt_s=round((run.next_ms - run.ended_ms) / 1000), reason=why,
        )  # fmt: skip
