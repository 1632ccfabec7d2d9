"""Compactions by schedule: when a table asks for one, and how the last ones went, `snapshots/_SCHEDULE.json`.

    {"since_ms", "done", "failed", "failures", "begun_ms", "ended_ms", "took_ms", "why", "next_ms"}

The worker that leads writes it, at the beginning and the end of each run, so that whoever leads next goes on from it,
and anybody who reaches the storage can look. Times are milliseconds since 1970.

One job compacts all tables that are due. Its journal, a file on its machine, has a line for each beginning and each end
of a table's turn: {"table", "state", "at_ms", "why"}.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from logstore.snapshot.manifest import Manifest
from logstore.snapshot.repository import Repository

DONE, FAILED, RUNNING = "done", "failed", "running"
_FILE = "_SCHEDULE.json"

Limits = Mapping[str, int | None]  # "every_mutations", "every_minutes": a definition's `schedule`


class Standing(NamedTuple):
    """Mutations and minutes of a table since its current snapshot."""

    mutations: int
    minutes: float


class ScheduleRun(NamedTuple):
    """Scheduled compactions of one table, whoever ran them; fields of the last one."""

    since_ms: int = 0  # when the schedule was first looked at: the age of a table without a snapshot
    done: int = 0
    failed: int = 0
    failures: int = 0  # in a row
    begun_ms: int = 0
    ended_ms: int = 0
    took_ms: int = 0
    why: str = ""  # the last one failed
    next_ms: int = 0  # no attempt before, after a failure

    @property
    def result(self) -> str | None:
        """Result of the last one: done, failed, running; None: there was none."""
        if self.begun_ms > self.ended_ms:
            return RUNNING
        return None if not self.ended_ms else FAILED if self.failures else DONE


class Turn(NamedTuple):
    """Line of a job's journal: a table's turn began (`state` RUNNING), or ended."""

    table: str
    state: str  # RUNNING, DONE, FAILED
    at_ms: int
    why: str = ""  # it failed

    @property
    def line(self) -> bytes:
        """Bytes of the line."""
        return orjson.dumps(self._asdict()) + b"\n"


def turns(lines: bytes) -> list[Turn]:
    """Turns of a journal's lines; what is no line of a journal is left out."""
    found: list[Turn] = []
    for line in lines.splitlines():
        try:
            found.append(Turn(**orjson.loads(line)))
        except (ValueError, TypeError):  # of a machine that stopped while it was written
            continue
    return found


class Upcoming(NamedTuple):
    """Conditions under which the next compaction begins.

    `at_ms`: a time, where something was written; None: no time does.
    """

    at_ms: int | None
    mutations: int | None  # more of them; None: however many


def due(schedule: Limits, standing: Standing) -> bool:
    """True when a snapshot is to be made. Nothing is due while nothing was written."""
    mutations, minutes = schedule.get("every_mutations"), schedule.get("every_minutes")
    many = mutations is not None and standing.mutations >= mutations
    old = minutes is not None and standing.minutes >= minutes
    return standing.mutations > 0 and (many or old)


def standing(manifest: Manifest | None, ends: Mapping[int, int], since_ms: int, now_ms: int) -> Standing:
    """Standing of a table: `manifest` of its current snapshot, None where it has none; `ends` of its log."""
    if manifest is None:
        return Standing(sum(ends.values()), (now_ms - since_ms) / 60_000)
    written = sum(
        max(ends[partition] - part.cut - 1, 0) for partition, part in manifest.parts.items()
    )  # the cut itself is no mutation
    return Standing(written, (now_ms - manifest.created_ms) / 60_000)


def upcoming(schedule: Limits, now: Standing, run: ScheduleRun, now_ms: int) -> Upcoming:
    """Conditions of the next one: after a failure not before its pause is over."""
    every, minutes = schedule.get("every_mutations"), schedule.get("every_minutes")
    left = None if every is None else max(every - now.mutations, 0)
    at_ms = None if minutes is None else max(now_ms + round((minutes - now.minutes) * 60_000), now_ms)
    if left == 0:
        at_ms = now_ms
    return Upcoming(None if at_ms is None else max(at_ms, run.next_ms), left)


def load(repository: Repository) -> ScheduleRun:
    """Runs so far; none where the file is not there or is none. Raises StorageUnreachable."""
    try:
        found = orjson.loads(repository.storage.read(repository.file_path(_FILE)))
        known = {name: kind(found[name]) for name, kind in ScheduleRun.__annotations__.items() if name in found}
    except (FileNotFoundError, ValueError, TypeError):  # it tells of the past only: what is lost with it is that
        return ScheduleRun()
    return ScheduleRun(**known)


def save(repository: Repository, run: ScheduleRun) -> None:
    """Replace the file. Raises StorageUnreachable."""
    repository.storage.replace(repository.file_path(_FILE), orjson.dumps(run._asdict()))


def document(schedule: Limits, now: Standing | None, run: ScheduleRun, now_ms: int) -> dict[str, Any]:
    """JSON document of a table's schedule; `now` None: how it stands is not known, nor is when the next one begins."""
    coming = Upcoming(None, None) if now is None else upcoming(schedule, now, run, now_ms)
    return {
        "schedule": dict(schedule), "result": run.result, "why": run.why, "done": run.done, "failed": run.failed,
        "failures": run.failures, "begun_ms": run.begun_ms or None, "ended_ms": run.ended_ms or None,
        "took_ms": run.took_ms if run.ended_ms else None,
        "mutations": None if now is None else now.mutations,
        "next_ms": coming.at_ms, "next_mutations": coming.mutations,
    }  # fmt: skip
