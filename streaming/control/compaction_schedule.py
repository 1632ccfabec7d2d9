"""Compaction schedule: makes snapshots of the tables that ask for it.

Run by the leader alone: the worker to which Faust assigned the first slot.

Due is a table with `schedule` {"every_mutations", "every_minutes"} when its log has grown by so much since the current
snapshot's cut, or that snapshot is so old and the log has grown at all. The job is a process of its own that ends with
the worker; one at a time here, and `Repository.lease` keeps others out. After a failure the table waits, twice as long
each time. How it went is kept in the storage (`ScheduleRuns`): the next leader goes on from there.
"""

import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from logstore.model.errors import LogStoreError, LogUnreachable
from logstore.model.table import Table
from logstore.process import child, logs
from logstore.snapshot.schedule import Standing, due, standing
from streaming.adoption.snapshot_fetcher import SnapshotFetcher
from streaming.control.archive_gaps import ArchiveGaps
from streaming.control.schedule_runs import ScheduleRuns

log = logs.get(__name__)

LOOK_S = 5.0

LogEnds = Callable[[Table], Mapping[int, int]]  # partition -> end of its log; raises LogUnreachable
Command = Callable[[Table, str], list[str]]  # (table, storage URL) -> argv of the job


def compact(bootstrap: str, data_dir: Path) -> Command:
    """Command line of a compaction."""

    def command(table: Table, storage: str) -> list[str]:
        where = ["--bootstrap", bootstrap, "--storage", storage, "--data-dir", str(data_dir)]
        return child.python("batch", "compact", table.name, *where)

    return command


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
        self._job: tuple[Table, subprocess.Popen[bytes]] | None = None
        self._closing = threading.Event()

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
            self._reap()
            tables = self._tables if self._leading else []
            self.runs.only([table for table in tables if table.schedule or self._is_compacted(table)])
            self._look(tables)
            self.gaps.look(tables)
        if self._job is not None:
            self._job[1].kill()
            self._job[1].wait(10)

    def _is_compacted(self, table: Table) -> bool:
        return self._job is not None and self._job[0].epoch == table.epoch

    def _look(self, tables: list[Table]) -> None:
        """Tell how the tables stand, and start one that is due."""
        for table in tables:
            if table.schedule and not self._is_compacted(table) and not self.runs.rests(table):
                try:
                    self._look_at(table, table.schedule)
                except LogUnreachable:  # which is no failure of a compaction, and said by who follows the log
                    return
                except (LogStoreError, OSError) as error:
                    self._failed(table, str(error))

    def _look_at(self, table: Table, schedule: Mapping[str, int | None]) -> None:
        now = self._standing(table)
        self.runs.tell(table, now)
        if self._job is None and not self.runs.rests(table) and due(schedule, now):
            self._start(table, now)

    def _standing(self, table: Table) -> Standing:
        run, ends = self.runs.of(table), self._log_ends(table)
        pointer = self._fetcher.current(table)
        manifest = None if pointer is None else self._fetcher.manifest(table, pointer.name)
        return standing(manifest, ends, run.since_ms, time.time_ns() // 1_000_000)

    def _start(self, table: Table, now: Standing) -> None:
        log.info(
            "a scheduled compaction started", table=table.name, mutations=now.mutations,
            minutes=round(now.minutes, 1),
        )  # fmt: skip
        self.runs.begun(table, now)
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as output:
            self._job = table, child.spawn(self._command(table, str(self._fetcher.url)), output=output)

    def _reap(self) -> None:
        if self._job is None or self._job[1].poll() is None:
            return
        table, process = self._job
        self._job = None
        if process.returncode:
            self._failed(table, f"it ended with status {process.returncode}; {self._log_path} says why")
        else:
            seconds = self.runs.ended(table).took_ms / 1000
            log.info("a scheduled compaction ended", table=table.name, seconds=seconds)

    def _failed(self, table: Table, why: str) -> None:
        run = self.runs.failed(table, why)
        log.warning(
            "a scheduled compaction failed", table=table.name, seconds=run.took_ms / 1000, failures=run.failures,
            next_attempt_s=round((run.next_ms - run.ended_ms) / 1000), reason=why,
        )  # fmt: skip
