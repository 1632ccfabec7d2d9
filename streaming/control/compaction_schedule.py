"""Compaction schedule: makes snapshots of the tables that ask for it.

Run by the leader alone: the worker to which Faust assigned the first slot.

Due is a table with `schedule` {"every_mutations", "every_minutes"} when its log has grown by so much since the current
snapshot's cut, or that snapshot is so old and the log has grown at all. The job is a process of its own that ends with
the worker; one at a time here, and `Repository.lease` keeps others out. After a failure the table waits, twice as long
each time.
"""

import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from logstore.model.errors import LogStoreError
from logstore.model.table import Table
from logstore.process import child, logs
from streaming.adoption.snapshot_fetcher import SnapshotFetcher

log = logs.get(__name__)

LOOK_S = 5.0
LEAST_S, MOST_S = 10.0, 600.0  # between a failure and the next attempt

LogEnds = Callable[[Table], Mapping[int, int]]  # partition -> end of its log; raises LogUnreachable
Command = Callable[[Table, str], list[str]]  # (table, storage URL) -> argv of the job


class Standing(NamedTuple):
    """Mutations and minutes of a table since its current snapshot."""

    mutations: int
    minutes: float


def due(schedule: Mapping[str, int | None], standing: Standing) -> bool:
    """True when a snapshot is to be made. Nothing is due while nothing was written."""
    mutations, minutes = schedule.get("every_mutations"), schedule.get("every_minutes")
    many = mutations is not None and standing.mutations >= mutations
    old = minutes is not None and standing.minutes >= minutes
    return standing.mutations > 0 and (many or old)


def compact(bootstrap: str, data_dir: Path) -> Command:
    """Command line of a compaction."""

    def command(table: Table, storage: str) -> list[str]:
        where = ["--bootstrap", bootstrap, "--storage", storage, "--data-dir", str(data_dir)]
        return child.python("batch", "compact", table.name, *where)

    return command


@dataclass(slots=True)
class ScheduleRun:
    """Scheduled compactions of one table, as far as this worker has run them."""

    done: int = 0
    failed: int = 0
    failures: int = 0  # in a row
    begun_s: float | None = None  # seconds since 1970, of the last
    ended_s: float | None = None  # that of the last that has ended
    took_s: float | None = None
    why: str = ""  # the last one failed
    next_s: float | None = None  # no attempt before, after a failure
    again_s: float = 0.0  # the same, of a monotonic clock


class CompactionSchedule(threading.Thread):
    """The thread that starts compactions; runs until `close`."""

    def __init__(self, fetcher: SnapshotFetcher, log_ends: LogEnds, command: Command, log_path: Path) -> None:
        """`log_path` gets what the jobs print."""
        super().__init__(name="schedule", daemon=True)
        self._fetcher, self._log_ends, self._command, self._log_path = fetcher, log_ends, command, log_path
        self._tables: list[Table] = []
        self._leading = False
        self._job: tuple[Table, subprocess.Popen[bytes]] | None = None
        self._runs: dict[str, ScheduleRun] = {}
        self._begun_s = time.time()
        self._closing = threading.Event()

    def lead(self, tables: list[Table], *, leading: bool) -> None:
        """Take over the tables; `leading`: whether their compactions are this worker's business."""
        self._tables, self._leading = tables, leading

    def runs(self) -> dict[str, ScheduleRun]:
        """Runs of each table that has had one."""
        return dict(self._runs)

    def close(self) -> None:
        """Stop, and end a job that runs: the next leader's begins where it was."""
        self._closing.set()
        self.join(10)

    def run(self) -> None:
        """Start the compactions that are due, until `close`."""
        while not self._closing.wait(LOOK_S):
            self._reap()
            if self._leading and self._job is None:
                self._begin_one()
        if self._job is not None:
            self._job[1].kill()
            self._job[1].wait(10)

    def _begin_one(self) -> None:
        for table in self._tables:
            if table.schedule and time.monotonic() >= self._runs.get(table.name, ScheduleRun()).again_s:
                try:
                    standing = self._standing(table)
                    if due(table.schedule, standing):
                        self._start(table, standing)
                        return
                except (LogStoreError, OSError) as error:
                    self._failed(table, str(error))

    def _standing(self, table: Table) -> Standing:
        ends = self._log_ends(table)
        pointer = self._fetcher.current(table)
        if pointer is None:
            return Standing(sum(ends.values()), (time.time() - self._begun_s) / 60)
        manifest = self._fetcher.manifest(table, pointer.name)
        written = sum(
            max(ends[partition] - part.cut - 1, 0) for partition, part in manifest.parts.items()
        )  # the cut itself is no mutation
        return Standing(written, (time.time() * 1000 - manifest.created_ms) / 60_000)

    def _start(self, table: Table, standing: Standing) -> None:
        log.info(
            "a scheduled compaction started", table=table.name, mutations=standing.mutations,
            minutes=round(standing.minutes, 1),
        )  # fmt: skip
        self._runs.setdefault(table.name, ScheduleRun()).begun_s = time.time()
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
            run = self._ended(table)
            run.done, run.failures, run.why, run.next_s, run.again_s = run.done + 1, 0, "", None, 0.0
            log.info("a scheduled compaction ended", table=table.name, seconds=run.took_s)

    def _ended(self, table: Table) -> ScheduleRun:
        """Take down the end of the table's last job."""
        run = self._runs.setdefault(table.name, ScheduleRun())
        run.ended_s = time.time()
        run.took_s = None if run.begun_s is None else round(run.ended_s - run.begun_s, 1)
        return run

    def _failed(self, table: Table, why: str) -> None:
        run = self._ended(table)
        run.failed, run.failures, run.why = run.failed + 1, run.failures + 1, why
        wait_s = min(LEAST_S * 2 ** (run.failures - 1), MOST_S)
        run.next_s, run.again_s = time.time() + wait_s, time.monotonic() + wait_s
        log.warning(
            "a scheduled compaction failed", table=table.name, seconds=run.took_s, failures=run.failures,
            next_attempt_s=round(wait_s), reason=why,
        )  # fmt: skip
