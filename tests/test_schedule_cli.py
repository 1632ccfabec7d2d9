"""`logstore batch schedule`: what is set is what the definition says, and how it went is what the storage says."""

import orjson
import pytest
from support_dev import call
from support_worker import make_table

from logstore.cli import compactions
from logstore.log.tables.registry import Registry
from logstore.snapshot import schedule as schedules
from logstore.snapshot.repository import Repository
from logstore.snapshot.schedule import ScheduleRun, Standing
from logstore.snapshot.storage import Storage


def test_a_schedule_is_set_shown_and_taken_back(kafka):
    table = make_table(kafka.bootstrap, partitions=1)

    def schedule(*argv, status=0):
        done = call("batch", "schedule", table.name, *argv, LOGSTORE_BOOTSTRAP=kafka.bootstrap)
        assert done.returncode == status, done.stderr.decode()
        return done

    assert b"never" in schedule().stdout
    shown = orjson.loads(schedule("--every-mutations", "1000", "--json").stdout)
    limits = shown["schedule"]
    assert limits == {"every_mutations": 1_000, "every_minutes": None}
    assert Registry(kafka.bootstrap).table(table.name).schedule == limits
    assert b"1,000 mutations" in schedule().stdout
    assert b"--off takes no limits" in schedule("--off", "--every-minutes", "5", status=2).stderr
    assert b"last: none yet\n  next: after 1,000 more mutations\n" in schedule().stdout
    assert (shown["result"], shown["mutations"], shown["next_mutations"], shown["next_ms"]) == (None, 0, 1_000, None)
    assert b"never" in schedule("--off").stdout
    assert Registry(kafka.bootstrap).table(table.name).schedule is None
    schedule("--every-minutes", "0", status=2)


def test_how_the_last_one_went_is_shown_by_schedule_and_by_describe(kafka, scheduled, tmp_path):
    table = scheduled(1, mutations=9)
    storage = f"file://{tmp_path}"
    run = ScheduleRun(since_ms=1, done=3, failed=2, failures=2, begun_ms=1_000, ended_ms=8_500, took_ms=7_500, why="no")
    schedules.save(Repository(Storage(storage), table.topic, table.epoch), run)
    where = {"LOGSTORE_BOOTSTRAP": kafka.bootstrap, "LOGSTORE_STORAGE": storage}
    shown = call("batch", "schedule", table.name, **where).stdout.decode()
    assert "last: failed 1970-01-01T00:00:08Z, 2 times in a row: no\n  next: after 9 more mutations\n" in shown
    described = orjson.loads(call("table", "describe", table.name, "--json", **where).stdout)["compactions"]
    assert (described["result"], described["done"], described["took_ms"]) == ("failed", 3, 7_500)


@pytest.mark.parametrize(
    ("run", "standing", "says"),
    [
        (ScheduleRun(done=1, begun_ms=1_000, ended_ms=3_000, took_ms=2_000), Standing(4, 0),
         ["last: done 1970-01-01T00:00:03Z, took 2.0 s", "next: after 6 more mutations or 1970-01-01T02:46:40Z"]),
        (ScheduleRun(begun_ms=5_000, ended_ms=3_000), None,
         ["last: began 1970-01-01T00:00:05Z, and runs", "next: not known"]),
        (ScheduleRun(), Standing(0, 0),
         ["last: none yet", "next: after 10 more mutations or 1970-01-01T02:46:40Z, once something is written"]),
        (ScheduleRun(), Standing(10, 0), ["last: none yet", "next: now"]),
    ],
)  # fmt: skip
def test_a_schedule_is_told_in_words(monkeypatch, run, standing, says):
    monkeypatch.setattr(compactions.time, "time", lambda: 4_000.0)
    limits = {"every_mutations": 10, "every_minutes": 100}
    assert compactions.lines(schedules.document(limits, standing, run, now_ms=4_000_000)) == says
