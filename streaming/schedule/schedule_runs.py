"""Schedule runs: how scheduled compactions of the tables went, kept in the storage and told to the node's readers."""

import time
from collections.abc import Iterable

from logstore.model.errors import LogStoreError
from logstore.model.table import Table
from logstore.process import logs
from logstore.snapshot import schedule
from logstore.snapshot.schedule import ScheduleRun, Standing
from logstore.view.feed.server import FeedServer
from logstore.view.feed.table_records import ScheduleKey, ScheduleRecord
from streaming.adoption.snapshot_fetcher import SnapshotFetcher

log = logs.get(__name__)

LEAST_S, MOST_S = 10.0, 600.0  # between a failure and the next attempt
_MOST_DOUBLINGS = 16


class ScheduleRuns:
    """Runs of the tables with a schedule, while this worker leads; the schedule's thread only, but for `known`."""

    def __init__(self, fetcher: SnapshotFetcher, feed: FeedServer) -> None:
        self._fetcher, self._feed = fetcher, feed
        self._runs: dict[ScheduleKey, ScheduleRun] = {}
        self._again_s: dict[ScheduleKey, float] = {}  # no attempt before, of a monotonic clock
        self._read: set[ScheduleKey] = set()  # whose earlier runs are known
        self._unsaved: set[ScheduleKey] = set()

    def known(self) -> dict[str, ScheduleRun]:
        """Runs by table."""
        return {key.table: run for key, run in self._runs.copy().items()}

    def only(self, tables: Iterable[Table]) -> None:
        """Forget all but these: others lead now, or nothing is scheduled any more."""
        wanted = {_key(table) for table in tables}
        for key in self._runs.keys() - wanted:
            del self._runs[key]
            self._again_s.pop(key, None)
            self._read.discard(key)
            self._unsaved.discard(key)
            self._feed.publish(key, None)

    def rests(self, table: Table) -> bool:
        """True while the pause after a failure lasts."""
        return time.monotonic() < self._again_s.get(_key(table), 0.0)

    def of(self, table: Table) -> ScheduleRun:
        """Runs of the table; of those of an earlier leader too. Raises StorageUnreachable."""
        key = _key(table)
        if key not in self._read:
            before = schedule.load(self._fetcher.repository(table))
            self._read.add(key)
            self._take_over(table, before, self._runs.get(key, ScheduleRun()))
        elif key in self._unsaved:
            self._keep(table, self._runs[key])
        return self._runs[key]

    def tell(self, table: Table, standing: Standing) -> None:
        """Publish how the table stands."""
        self._feed.publish_changed(_key(table), _record(self._runs[_key(table)], standing))

    def begun(self, table: Table, standing: Standing, at_ms: int) -> None:
        """Take down that a compaction has begun."""
        self._keep(table, self.of(table)._replace(begun_ms=at_ms))
        self.tell(table, standing)

    def ended(self, table: Table, at_ms: int) -> ScheduleRun:
        """Take down that the compaction is done."""
        run = self._end(table, at_ms)
        return self._note(table, run._replace(done=run.done + 1, failures=0, why="", next_ms=0))

    def failed(self, table: Table, why: str) -> ScheduleRun:
        """Take down a failure; the table rests, twice as long each time."""
        run = self._end(table, _now_ms())
        wait_s = min(LEAST_S * 2 ** min(run.failures, _MOST_DOUBLINGS), MOST_S)
        self._again_s[_key(table)] = time.monotonic() + wait_s
        again_ms = _now_ms() + round(wait_s * 1000)
        return self._note(
            table, run._replace(failed=run.failed + 1, failures=run.failures + 1, why=why, next_ms=again_ms)
        )

    def _take_over(self, table: Table, run: ScheduleRun, blind: ScheduleRun) -> None:
        """Go on from what an earlier leader kept; `blind`: failures of this one's before it could be read."""
        now_ms = _now_ms()
        run = run._replace(since_ms=run.since_ms or now_ms)
        if run.result == schedule.RUNNING:
            blind = blind._replace(failed=blind.failed + 1, failures=blind.failures + 1, ended_ms=now_ms)
            blind = blind._replace(why=blind.why or "the worker that ran it ended first")
        if blind.failures:
            failed, failures = run.failed + blind.failed, run.failures + blind.failures
            run = blind._replace(since_ms=run.since_ms, begun_ms=run.begun_ms, done=run.done, failed=failed)
            run = run._replace(failures=failures)
        wait_s = min((run.next_ms - now_ms) / 1000, MOST_S)  # whatever its clock said
        self._again_s[_key(table)] = time.monotonic() + wait_s
        self._keep(table, run)

    def _end(self, table: Table, at_ms: int) -> ScheduleRun:
        run = self._runs.get(_key(table), ScheduleRun())
        ended_ms = max(at_ms, run.begun_ms)
        took_ms = ended_ms - run.begun_ms if run.result == schedule.RUNNING else 0
        return run._replace(ended_ms=ended_ms, took_ms=took_ms)

    def _note(self, table: Table, run: ScheduleRun) -> ScheduleRun:
        self._keep(table, run)
        before = self._feed.get(_key(table)) or ScheduleRecord()
        self._feed.publish(_key(table), ScheduleRecord(**{**before._asdict(), **run._asdict()}))
        return run

    def _keep(self, table: Table, run: ScheduleRun) -> None:
        key = _key(table)
        self._runs[key] = run
        if key not in self._read:
            return
        try:
            schedule.save(self._fetcher.repository(table), run)
            self._unsaved.discard(key)
        except (LogStoreError, OSError) as error:  # it is told all the same, and tried again at the next look
            if key not in self._unsaved:
                log.warning("how the schedule went is not kept", table=table.name, reason=str(error))
            self._unsaved.add(key)


def _key(table: Table) -> ScheduleKey:
    return ScheduleKey(table.name, table.epoch)


def _record(run: ScheduleRun, standing: Standing) -> ScheduleRecord:
    return ScheduleRecord(**run._asdict(), mutations=standing.mutations, snapshot_ms=_since_ms(standing))


def _since_ms(standing: Standing) -> int:
    """Time at which the snapshot was made, to the second: so that the record does not change while nothing happens."""
    return round(time.time() - standing.minutes * 60) * 1000


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
