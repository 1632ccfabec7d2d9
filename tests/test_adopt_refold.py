"""Snapshots at whose cut a node has no digest: it folds its log again up to there, or takes others' word."""

from typing import NamedTuple

import pytest
from support_adopt import (
    WAIT_S,
    adopted,
    assert_equals_the_log,
    merged,
    repository,
    snapshot_is,
    some,
    storage_of,
    write,
)
from support_log import produce, until
from support_snapshot import cut, folded, judge, make_snapshot
from support_worker import make_table, running_worker

from logstore.log import topics
from logstore.log.kafka.clients import admin
from logstore.log.read.ranges import committed_ends
from logstore.snapshot.manifest import Manifest
from logstore.snapshot.verdicts import AUDITOR
from logstore.view import paths
from logstore.view.feed.adoption_records import AdoptionKey
from logstore.view.feed.view_records import ViewKey


def ends(kafka, table):
    return committed_ends(kafka.bootstrap, table)


@pytest.mark.slow
def test_a_topic_without_control_records_is_folded_again_up_to_the_cut(kafka, worker, rng):
    table = make_table(kafka.bootstrap, adopted=True, allow_control_records=False)
    write(kafka, worker, table, some(rng, 2_000))
    for more in (0, 500):  # with nothing behind the cut, and over a base with something behind it
        cuts = ends(kafka, table)
        write(kafka, worker, table, some(rng, more))
        manifest = make_snapshot(kafka.bootstrap, table, storage_of(worker), cuts=cuts)
        adopted(worker, table, manifest)
        assert_equals_the_log(kafka, worker, table)
        shown = snapshot_is(worker, table, "adopted", 1)
        assert (cuts[1], manifest.parts[1].digest, manifest.parts[1].entries) in shown.digests
        write(kafka, worker, table, some(rng, 500))


def test_without_control_records_a_snapshot_that_is_not_the_fold_is_refused(kafka, worker, rng):
    table = make_table(kafka.bootstrap, partitions=1, adopted=True, allow_control_records=False)
    write(kafka, worker, table, some(rng, 500))

    def without_one(_, entries):
        entries.pop(next(iter(entries)))
        return entries

    make_snapshot(kafka.bootstrap, table, storage_of(worker), cuts=ends(kafka, table), change=without_one)
    shown = snapshot_is(worker, table, "refused")
    assert "differs from snapshot" in shown.reason


class _Missed(NamedTuple):
    """Snapshots made while a node was away. Of the log below the first one nothing is left."""

    first: Manifest
    newest: Manifest
    end: int  # of the log
    rows: dict[bytes, bytes]  # of the whole log


def _while_away(kafka, worker, table, rng):
    """End the worker; make two snapshots, the first one said to agree, and trim the log up to its cut."""
    write(kafka, worker, table, some(rng, 500))
    worker.stop()
    first = make_snapshot(kafka.bootstrap, table, storage_of(worker), cuts=ends(kafka, table), word="agree")
    produce(kafka.bootstrap, table.topic, list(some(rng, 300)))
    newest = make_snapshot(kafka.bootstrap, table, storage_of(worker), cuts=ends(kafka, table))
    produce(kafka.bootstrap, table.topic, list(some(rng, 49)))
    end = newest.parts[0].cut + 50
    rows = folded(kafka.bootstrap, table, 0, end)[0]
    topics.truncate(admin(kafka.bootstrap), table.topic, {0: first.parts[0].cut})
    return _Missed(first, newest, end, rows)


def _stands_on(worker, table, missed):
    adopted(worker, table, missed.newest)
    worker.watch.position(table, 0, missed.end)
    assert merged(worker.watch.values[ViewKey(table.name, table.epoch, 0)])[1] == missed.rows


def test_a_node_that_cannot_fold_its_log_again_goes_on_from_what_others_have_proved(kafka, tmp_path, rng):
    """The log is trimmed while the node is away, up to where its view stands: nobody tells it what was at the cut."""
    table = make_table(kafka.bootstrap, partitions=1, adopted=True, allow_control_records=False)
    with running_worker(kafka.bootstrap, tmp_path / "node") as worker:
        missed = _while_away(kafka, worker, table, rng)
        repository(worker, table).verdicts().forget_others([])  # nobody has proved any of them
        worker.start()
        key = AdoptionKey(table.name, table.epoch, 0)
        word = "was deleted before this node took a snapshot over"
        shown = worker.watch.until(word, lambda values: (one := values.get(key)) and word in one.reason and one, WAIT_S)
        assert (shown.state, shown.candidate) == ("waiting", missed.newest.name)
        assert f"`logstore batch audit {table.name}`" in shown.reason
        assert worker.watch.state(table, 0, "live")
        judge(repository(worker, table), missed.newest, "agree", judge=AUDITOR)
        _stands_on(worker, table, missed)


@pytest.mark.slow
def test_a_node_that_cannot_fold_its_log_from_where_it_stands_takes_a_proved_snapshot_on_its_way(kafka, tmp_path, rng):
    table = make_table(kafka.bootstrap, partitions=1, adopted=True, allow_control_records=False)
    with running_worker(kafka.bootstrap, tmp_path / "node") as worker:
        missed = _while_away(kafka, worker, table, rng)  # the first one is proved, the newest is not
        worker.start()
        _stands_on(worker, table, missed)
        until(
            "its own fold, from the first one, has proved the second",
            lambda: repository(worker, table).verdicts().proof(missed.newest.name, 0).word == "proved",
        )


@pytest.mark.slow
def test_a_digest_that_was_lost_is_had_by_folding_again(kafka, worker, rng):
    table = make_table(kafka.bootstrap, partitions=1)
    write(kafka, worker, table, some(rng, 500))
    cuts = cut(kafka.bootstrap, table)
    write(kafka, worker, table, some(rng, 50))
    kept = paths.partition_dir(worker.data_dir, table.name, table.epoch, 0) / "digests.json"
    until("the digest at the cut is known", kept.exists)
    kept.unlink()
    adopted(worker, table, make_snapshot(kafka.bootstrap, table, storage_of(worker), cuts=cuts))
    assert_equals_the_log(kafka, worker, table)
