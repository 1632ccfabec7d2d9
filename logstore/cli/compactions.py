"""Compactions of a table by its schedule: when the last one ran, how it went, and when the next one begins."""

import time
from datetime import UTC, datetime
from typing import Any

from logstore.cli import show
from logstore.log.kafka.offsets import bounds
from logstore.log.tables.registry import Registry
from logstore.model.errors import LogStoreError
from logstore.model.table import Table
from logstore.snapshot import schedule
from logstore.snapshot.repository import Repository
from logstore.snapshot.storage import Storage, storage_url


def look(registry: Registry, table: Table, storage: str | None, data_dir: Any) -> dict[str, Any] | None:
    """Document of the table's compactions, as storage and log tell it; None: it has no schedule.

    What cannot be asked is said on stderr, and null.
    """
    if not table.schedule:
        return None
    now_ms, run, now = time.time_ns() // 1_000_000, schedule.ScheduleRun(), None
    try:
        url = storage_url(storage, registry.read().known_storage(), data_dir)
        repository = Repository(Storage(url), table.topic, table.epoch)
        run = schedule.load(repository)
        now = _standing(registry, table, repository, run.since_ms or now_ms, now_ms)
    except LogStoreError as error:
        show.warn(f"warning: how the schedule of {table.name} stands is not known: {error}")
    return schedule.document(table.schedule, now, run, now_ms)


def _standing(
    registry: Registry, table: Table, repository: Repository, since_ms: int, now_ms: int
) -> schedule.Standing:
    ends = {p: held.end for p, held in bounds(registry.admin, table.topic, list(range(table.partitions))).items()}
    pointer = repository.current()
    manifest = None if pointer is None else repository.manifest(pointer.name)
    return schedule.standing(manifest, ends, since_ms, now_ms)


def words(found: dict[str, Any]) -> tuple[str, str]:
    """Words for people: the last one, the next one."""
    return _last(found), _next(found)


def lines(found: dict[str, Any]) -> list[str]:
    """Lines of the same."""
    last, following = words(found)
    return [f"last: {last}", f"next: {following}"]


def _last(found: dict[str, Any]) -> str:
    match found["result"]:
        case schedule.RUNNING:
            return f"began {_time(found['begun_ms'])}, and runs"
        case schedule.DONE:
            return f"done {_time(found['ended_ms'])}, took {found['took_ms'] / 1000:,.1f} s"
        case schedule.FAILED:
            times = "" if found["failures"] == 1 else f", {found['failures']:,} times in a row"
            return f"failed {_time(found['ended_ms'])}{times}: {found['why']}"
    return "none yet"


def _next(found: dict[str, Any]) -> str:
    if found["mutations"] is None:
        return "not known"
    left, at_ms = found["next_mutations"], found["next_ms"]
    if at_ms is not None and found["mutations"] > 0 and at_ms <= time.time() * 1000:
        return "now"
    ways = [] if left is None or left == 0 else [f"after {left:,} more mutations"]
    if at_ms is not None:
        written = "" if found["mutations"] > 0 else ", once something is written"
        ways.append(f"{_time(at_ms)}{written}")
    return " or ".join(ways)


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
