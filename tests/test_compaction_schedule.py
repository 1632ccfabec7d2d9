"""When a table's snapshot is due, who makes it, and what a failure costs."""

import os
import sys
import time

import pytest
from support_log import produce, until
from support_snapshot import make_snapshot
from support_worker import make_table

from logstore.log.kafka import clients, offsets
from logstore.model.errors import AccessDenied, LogUnreachable
from logstore.snapshot import schedule
from logstore.snapshot.schedule import ScheduleRun, Standing, due, upcoming
from logstore.view import paths
from logstore.view.feed.server import FeedServer
from logstore.view.feed.table_records import ScheduleKey
from streaming.adoption.progress import AdoptionProgress
from streaming.adoption.snapshot_fetcher import SnapshotFetcher
from streaming.schedule import compaction_schedule, schedule_runs
from streaming.schedule.compaction_job import compact
from streaming.schedule.compaction_schedule import CompactionSchedule
from streaming.schedule.schedule_runs import ScheduleRuns


@pytest.mark.parametrize(
    ("setting", "standing", "expected"),
    [
        ({"every_mutations": 100, "every_minutes": None}, Standing(99, 1e9), False),
        ({"every_mutations": 100, "every_minutes": None}, Standing(100, 0), True),
        ({"every_mutations": None, "every_minutes": 5}, Standing(1, 4.9), False),
        ({"every_mutations": None, "every_minutes": 5}, Standing(1, 5), True),
        ({"every_mutations": None, "every_minutes": 5}, Standing(0, 50), False),
        ({"every_mutations": 10, "every_minutes": 5}, Standing(10, 1), True),
    ],
)
def test_a_snapshot_is_due_after_so_many_mutations_or_minutes_and_never_without_a_write(setting, standing, expected):
    assert due(setting, standing) == expected


MINUTE = 60_000


@pytest.mark.parametrize(
    ("setting", "standing", "run", "expected"),
    [
        ({"every_mutations": 100, "every_minutes": None}, Standing(40, 7), ScheduleRun(), (None, 60)),
        ({"every_mutations": None, "every_minutes": 5}, Standing(40, 2), ScheduleRun(), (13 * MINUTE, None)),
        ({"every_mutations": 100, "every_minutes": 5}, Standing(0, 9), ScheduleRun(), (10 * MINUTE, 100)),
        ({"every_mutations": 10, "every_minutes": None}, Standing(10, 0), ScheduleRun(), (10 * MINUTE, 0)),
        ({"every_mutations": 10, "every_minutes": None}, Standing(10, 0), ScheduleRun(next_ms=MINUTE * 12),
         (12 * MINUTE, 0)),
    ],
)  # fmt: skip
def test_the_next_one_is_told_by_time_and_by_mutations_and_waits_after_a_failure(setting, standing, run, expected):
    assert upcoming(setting, standing, run, now_ms=10 * MINUTE) == expected


@pytest.fixture
def feed(tmp_path):
    server = FeedServer(tmp_path / "feed.sock")
    yield server
    server.close()


@pytest.fixture
def fetcher(tmp_path, feed):
    found = SnapshotFetcher(tmp_path, "n", AdoptionProgress(feed), fetch_mb_s=None)
    found.at(None)
    return found


@pytest.fixture
def started(monkeypatch, tmp_path, fetcher, feed, kafka):
    """Start a schedule whose job is this program; ended with the test."""
    monkeypatch.setattr(compaction_schedule, "LOOK_S", 0.1)
    monkeypatch.setattr(schedule_runs, "LEAST_S", 0.4)
    running = []

    def start(program, *tables, leading=True):
        client = clients.admin(kafka.bootstrap)

        def ends(t):
            return {p: held.end for p, held in offsets.bounds(client, t.topic, list(range(t.partitions))).items()}

        def command(tables, storage, journal):
            return [sys.executable, "-c", program, str(journal), storage, *(t.name for t in tables)]

        command = program if callable(program) else command
        one = CompactionSchedule(fetcher, ScheduleRuns(fetcher, feed), ends, command, tmp_path / "logs" / "jobs.log")
        one.lead(list(tables), leading=leading)
        one.start()
        running.append(one)
        return one

    yield start
    for one in running:
        one.close()


def log_of(tmp_path):
    path = tmp_path / "logs" / "jobs.log"
    return path.read_text() if path.exists() else ""


@pytest.fixture
def due_after(kafka, scheduled):
    def make(mutations):
        table = scheduled(2, mutations)
        produce(kafka.bootstrap, table.topic, [(b"k%d" % n, b"v") for n in range(10)])
        return table

    return make


def test_the_leader_runs_what_is_due_with_the_storage_of_the_store(kafka, tmp_path, started, due_after):
    table = due_after(10)
    started("import sys; print('made', *sys.argv[2:])", table)
    until("the job has run", lambda: f"made {paths.default_storage(tmp_path)} {table.name}" in log_of(tmp_path))


def test_a_snapshot_that_was_made_is_not_made_again_before_the_next_mutations(kafka, tmp_path, started, due_after):
    table = due_after(10)
    make_snapshot(kafka.bootstrap, table, paths.default_storage(tmp_path))
    produce(kafka.bootstrap, table.topic, [(b"k%d" % n, b"v") for n in range(9)])
    started("print('made')", table)
    with pytest.raises(AssertionError, match="still not"):
        until("nothing runs", lambda: log_of(tmp_path), timeout_s=1)
    produce(kafka.bootstrap, table.topic, [(b"k", b"v")])
    until("the job has run", lambda: "made" in log_of(tmp_path))


def test_a_table_that_kafka_denies_keeps_no_other_from_its_turn(kafka, tmp_path, fetcher, feed, monkeypatch, scheduled):
    monkeypatch.setattr(compaction_schedule, "LOOK_S", 0.1)
    denied, silent, well = (scheduled(1, minutes=1) for _ in range(3))
    asked = []

    def log_ends(table):
        asked.append(table.name)
        if table == denied:
            raise AccessDenied("no DESCRIBE")
        if table == silent:
            raise LogUnreachable("no leader")
        return {0: 0}

    runs = ScheduleRuns(fetcher, feed)
    schedule_of_three = CompactionSchedule(fetcher, runs, log_ends, lambda *_: [], tmp_path / "log")
    schedule_of_three.lead([denied, silent, well], leading=True)
    schedule_of_three.start()
    try:
        until("every table had its turn", lambda: {denied.name, silent.name, well.name} <= set(asked))
        until("the denied one has failed", lambda: runs.of(denied).failures == 1)
        assert runs.of(denied).why == "no DESCRIBE"
        assert runs.of(silent).failures == 0
    finally:
        schedule_of_three.close()


def test_who_does_not_lead_makes_nothing(kafka, tmp_path, started, due_after):
    table = due_after(1)
    one = started("print('made')", table, leading=False)
    with pytest.raises(AssertionError, match="still not"):
        until("nothing runs", lambda: log_of(tmp_path), timeout_s=1)
    one.lead([table], leading=True)
    until("the job has run", lambda: "made" in log_of(tmp_path))


def test_a_failure_is_tried_again_later_and_later_and_never_two_at_once(kafka, tmp_path, started, due_after):
    program = "import os, sys, time; print('at', time.monotonic(), flush=True); os.path.exists('x'); "
    program += "time.sleep(0.3); sys.exit(3)"
    started(program, due_after(1))
    until("three attempts", lambda: log_of(tmp_path).count("at ") >= 3)
    at = [float(line.split()[1]) for line in log_of(tmp_path).splitlines()]
    assert at[1] - at[0] > 0.3 + 0.4
    assert at[2] - at[1] > 0.3 + 0.8


def test_a_job_ends_with_its_leader(kafka, tmp_path, started, due_after):
    one = started("import os, time; print(os.getpid(), flush=True); time.sleep(600)", due_after(1))
    pid = int(until("the job runs", lambda: log_of(tmp_path).strip()))
    begun = time.monotonic()
    one.close()
    assert time.monotonic() - begun < 90
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_all_that_is_due_is_made_in_one_job_with_one_engine_and_one_failure_keeps_no_other(
    kafka, tmp_path, fetcher, started, monkeypatch, due_after
):
    monkeypatch.setattr(schedule_runs, "LEAST_S", 600.0)
    monkeypatch.setenv("LOGSTORE_LOG_LEVEL", "info,batch=debug")
    made, busy, also = tables = [due_after(1) for _ in range(3)]
    with fetcher.repository(busy).lease("other", "compact", 600):
        started(compact(kafka.bootstrap, tmp_path), *tables)
        until("the others are done", lambda: kept(fetcher, made).done == kept(fetcher, also).done == 1)
        until("the one in the way is noticed", lambda: kept(fetcher, busy).failed == 1)
    assert "works on the table" in kept(fetcher, busy).why
    assert [fetcher.current(table) is not None for table in tables] == [True, False, True]
    assert log_of(tmp_path).count("engine local begins") == 1


BEGUN = "import os, sys, time; journal = open(sys.argv[1], 'ab', 0); names = sys.argv[3:]; print(*names, flush=True); "
BEGUN += 'note = lambda name, state: journal.write(b\'{"table":"%s","state":"%s","at_ms":5}\\n\' % '
BEGUN += "(name.encode(), state)); "


def test_a_job_that_dies_counts_for_the_table_whose_turn_it_was(
    kafka, tmp_path, fetcher, started, monkeypatch, due_after
):
    monkeypatch.setattr(schedule_runs, "LEAST_S", 600.0)
    tables = [due_after(1) for _ in range(3)]
    dies = "note(names[0], b'running'); len(names) < 3 or note(names[0], b'done'); "
    dies += "len(names) < 3 or note(names[1], b'running'); os.kill(os.getpid(), 9)"
    started(BEGUN + dies, *tables)
    lines = until("it has run twice", lambda: (lines := log_of(tmp_path).splitlines())[1:] and lines)
    first, second, third = ({t.name: t for t in tables}[name] for name in lines[0].split())
    until("whose turn it was has failed", lambda: kept(fetcher, second).failed == 1)
    assert kept(fetcher, first).done == 1
    assert third.name in lines[1].split()
    assert second.name not in lines[1].split()


def kept(fetcher, table):
    return schedule.load(fetcher.repository(table))


def test_how_it_went_is_kept_and_told_and_the_next_leader_goes_on_from_there(kafka, fetcher, feed, started, due_after):
    table = due_after(5)
    first = started("import sys; sys.exit(7)", table)
    until("it has failed twice", lambda: kept(fetcher, table).failures >= 2)
    until("readers are told", lambda: (told := feed.get(ScheduleKey(table.name, table.epoch))) and told.failures >= 2)
    assert feed.get(ScheduleKey(table.name, table.epoch)).mutations == 10
    first.close()
    before = kept(fetcher, table)
    assert "status 7" in before.why or "ended first" in before.why or before.result == schedule.RUNNING
    second = started("print('made')", table)
    after = until("it is done", lambda: (run := kept(fetcher, table)) and run.done and run)
    assert after.failed >= before.failed
    assert (after.failures, after.why, after.since_ms) == (0, "", before.since_ms)
    assert second.runs.known()[table.name].done >= after.done  # the next one may have ended by now


def test_a_run_that_was_cut_off_counts_as_failed(kafka, fetcher, started, due_after):
    table = due_after(1)
    schedule.save(fetcher.repository(table), ScheduleRun(since_ms=1, done=4, begun_ms=9, ended_ms=5, next_ms=2**50))
    started("print('made')", table)
    run = until("it is done", lambda: (run := kept(fetcher, table)) and run.done >= 5 and run)
    assert (run.failed, run.failures, run.since_ms) == (1, 0, 1)


def test_who_leads_no_more_tells_nothing(kafka, feed, started, due_after):
    table = due_after(1_000)
    one = started("print('made')", table)
    until("readers are told", lambda: feed.get(ScheduleKey(table.name, table.epoch)))
    one.lead([table], leading=False)
    until("it is taken back", lambda: feed.get(ScheduleKey(table.name, table.epoch)) is None)
    assert one.runs.known() == {}


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b'{"done": "x"}', b'{"done": null}'])
def test_a_damaged_file_counts_as_none(kafka, fetcher, damage):
    table = make_table(kafka.bootstrap, partitions=1)
    repository = fetcher.repository(table)
    repository.storage.replace(repository.file_path("_SCHEDULE.json"), damage)
    assert schedule.load(repository) == ScheduleRun()


def test_what_the_archive_lacks_below_the_snapshot_is_told(kafka, tmp_path, fetcher, started, due_after):
    table = due_after(1_000)
    one = started("print('made')", table)
    assert one.gaps.found() == []
    make_snapshot(kafka.bootstrap, table, paths.default_storage(tmp_path))
    gaps = until("it is told", one.gaps.found)
    manifest = fetcher.manifest(table, fetcher.current(table).name)
    expected = {str(partition): float(part.cut) for partition, part in manifest.parts.items()}
    assert {labels["partition"]: gap for labels, gap in gaps} == expected
