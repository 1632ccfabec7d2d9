"""Worker and digester are killed while a snapshot is adopted: the answers stay those of the log."""

import threading
from contextlib import suppress

import psutil
import pytest
from support_adopt import WAIT_S, adopted, assert_equals_the_log, some, storage_of, write
from support_snapshot import cut, make_snapshot
from support_tiers import short_and_long
from support_worker import make_table, running_worker

from logstore.view.feed.adoption_records import AdoptionKey, AdoptionRecord
from logstore.view.feed.position_records import AppliedKey


@short_and_long("rounds", 1, 3)
@pytest.mark.slow
def test_killed_at_random_instants_while_it_adopts_it_ends_where_the_log_is(kafka, tmp_path, rng, rounds):
    table = make_table(kafka.bootstrap)
    with running_worker(kafka.bootstrap, tmp_path / "node") as worker:
        for _ in range(rounds):
            _killed_while_adopting(kafka, worker, table, rng)
        assert_equals_the_log(kafka, worker, table)
        assert worker.stop() == 0


def _killed_while_adopting(kafka, worker, table, rng):
    write(kafka, worker, table, some(rng, 4_000))
    cuts = cut(kafka.bootstrap, table)
    for partition in range(2):
        key = AdoptionKey(table.name, table.epoch, partition)
        done = [cuts[partition]]
        worker.watch.until(
            "its digest is there",
            lambda v, key=key, done=done: [d.cut for d in v.get(key, AdoptionRecord()).digests][-1:] == done,
        )
    manifest = make_snapshot(kafka.bootstrap, table, storage_of(worker), cuts=cuts)
    for _ in range(3):
        threading.Event().wait(rng.random() * 2)
        worker.kill()
        worker.start()
        worker.watch.until("it serves again", lambda values: AppliedKey(table.epoch, 0) in values)
    adopted(worker, table, manifest)


@short_and_long("rounds", 1, 3)
@pytest.mark.slow
def test_a_digester_killed_while_it_builds_costs_an_attempt_and_nothing_else(kafka, worker, rng, rounds):
    table = make_table(kafka.bootstrap)
    for _ in range(rounds):
        write(kafka, worker, table, some(rng, 20_000, keys=20_000))
        manifest = make_snapshot(kafka.bootstrap, table, storage_of(worker))
        key = AdoptionKey(table.name, table.epoch, 0)
        worker.watch.until(
            "it builds", lambda values, key=key, made=manifest: _builds(values.get(key, AdoptionRecord()), made), WAIT_S
        )
        _kill_digester(worker)
        write(kafka, worker, table, some(rng, 100))
        adopted(worker, table, manifest)
        assert_equals_the_log(kafka, worker, table)


def _builds(shown, manifest):
    return shown.state == "building" or shown.base == manifest.name


def _kill_digester(worker):
    for child in psutil.Process(worker.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "streaming.digest.digester" in child.cmdline():
                child.kill()


@pytest.mark.slow
def test_a_cut_without_a_digester_holds_nothing_up_and_has_no_digest(kafka, worker, rng):
    table = make_table(kafka.bootstrap, partitions=1)
    write(kafka, worker, table, some(rng, 100))
    _kill_digester(worker)
    cuts = cut(kafka.bootstrap, table)
    write(kafka, worker, table, some(rng, 10))
    make_snapshot(kafka.bootstrap, table, storage_of(worker), cuts=cuts)
    key = AdoptionKey(table.name, table.epoch, 0)
    shown = worker.watch.until(
        "it waits or was quick",
        lambda values: values.get(key, AdoptionRecord()).state in ("waiting", "adopted") and values[key],
        WAIT_S,
    )
    assert shown.state == "adopted" or "is not known" in shown.reason
    adopted(worker, table, make_snapshot(kafka.bootstrap, table, storage_of(worker)))
    assert_equals_the_log(kafka, worker, table)
