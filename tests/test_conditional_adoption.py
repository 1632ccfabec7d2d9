"""Snapshots of conditional tables on nodes: adopted by those that folded the same, and begun from by empty ones."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest
from support_adopt import adopted, merged, snapshot_is, storage_of
from support_conditional_log import lane_facts, lane_reading, write_hard
from support_jobs import context
from support_log import produce, until
from support_snapshot import judge, records_of
from support_wide_log import sibling_fields, wide_fields, write_rows
from support_worker import make_table

from batch.jobs.compact import compact
from logstore.log.read.ranges import committed_ends
from logstore.model.errors import Corrupted
from logstore.model.folding.entry import TOMBSTONE
from logstore.model.hard_rows.outcomes import AppliedOutcome, DuplicateOutcome, RejectedOutcome
from logstore.snapshot.sst import SstReader
from logstore.snapshot.storage import Storage
from logstore.view.feed.server import FeedServer
from logstore.view.feed.view_records import ViewKey
from logstore.view.reader import ViewReader
from streaming.adoption.bootstrap import Bootstrapper
from streaming.adoption.progress import AdoptionProgress
from streaming.adoption.snapshot_fetcher import SnapshotFetcher
from streaming.digest.view_digest import digest_of
from streaming.lane.disk.opened_view import BootstrapPending
from streaming.lane.partition import FollowedPartition
from streaming.lane.target import Target

ID = [("ls.id", b"i" * 16), ("ls.op", b"incr")]
ONE = (1).to_bytes(8)


@pytest.fixture
def ctx(kafka, tmp_path):
    return context(kafka.bootstrap, tmp_path)


@pytest.fixture
def bootstrapper(ctx, tmp_path):
    """An empty node's bootstrapper, of a log that has lost its beginning."""
    feed = FeedServer(tmp_path / "feed.sock")
    fetcher = SnapshotFetcher(tmp_path / "node", "n", AdoptionProgress(feed), fetch_mb_s=None)
    fetcher.at(ctx.storage.url)
    (tmp_path / "node").mkdir()
    made = Bootstrapper(fetcher, AdoptionProgress(feed), lambda _topic, _partition: 1)
    yield made
    made.close()
    feed.close()


def begun(bootstrapper, table, tmp_path):
    """The partition of an empty node, at the snapshot's cut, with its base."""

    def asked(target):
        def answered():
            try:
                return [bootstrapper(target)]
            except BootstrapPending:
                return None

        return until("there is an answer", answered)[0]

    return FollowedPartition(Target(table, 0, 0), tmp_path / "node", bootstrapper=asked)


def take_rest(bootstrap, followed):
    table, end = followed.target.table, committed_ends(bootstrap, followed.target.table)[0]
    assert followed.take(records_of(bootstrap, table, 0, end), 0), followed.reason
    return end


def test_an_empty_node_answers_outcomes_and_repeats_no_id_of_before_the_cut(ctx, bootstrapper, tmp_path):
    table = make_table(ctx.bootstrap, partitions=1, conditional=True)
    written = [
        produce(ctx.bootstrap, table.topic, [(b"n", ONE)], headers=headers)[0][1]
        for headers in (ID, [("ls.op", b"incr")], [("ls.if", b"absent")])
    ]
    judge(ctx.repository(table), compact(ctx, table).manifest, "agree")
    again = produce(ctx.bootstrap, table.topic, [(b"n", ONE)], headers=ID)[0][1]
    more = produce(ctx.bootstrap, table.topic, [(b"n", ONE)], headers=[("ls.op", b"incr")])[0][1]
    with closing(begun(bootstrapper, table, tmp_path)) as followed:
        assert followed.next_offset > written[-1], "it began at the cut"
        take_rest(ctx.bootstrap, followed)
        with followed.view.reader().reading() as reading:
            became = [reading.decisions.outcome(offset).outcome for offset in (*written, again, more)]
            assert became == [
                AppliedOutcome(), AppliedOutcome(), RejectedOutcome(written[1]),
                DuplicateOutcome(written[0], AppliedOutcome()), AppliedOutcome(),
            ]  # fmt: skip
            assert reading.decisions.counter == 5
            assert reading.get(b"n")[-8:] == (3).to_bytes(8)


KINDS = {
    "one value": ({"conditional": True}, write_hard), "wide": (wide_fields(), write_rows),
    "siblings": (sibling_fields(), write_rows),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_node_comes_to_the_state_of_one_that_folded_everything(ctx, bootstrapper, tmp_path, kind):
    fields, write = KINDS[kind]
    table = make_table(ctx.bootstrap, partitions=1, dedup_records=120, **fields)
    for seed in range(2):
        write(ctx.bootstrap, table, 300, seed=seed)
        manifest = compact(ctx, table).manifest
    judge(ctx.repository(table), manifest, "agree")
    write(ctx.bootstrap, table, 100, seed=9)
    with closing(begun(bootstrapper, table, tmp_path)) as followed:
        assert followed.view.base.snapshot == manifest.name
        take_rest(ctx.bootstrap, followed)
        base_dir = followed.base_dir
    write(ctx.bootstrap, table, 100, seed=10)
    with closing(FollowedPartition(Target(table, 0, 0), tmp_path / "node")) as followed:  # as after a restart
        assert followed.view.base.snapshot == manifest.name
        followed.base_dir = base_dir
        end = take_rest(ctx.bootstrap, followed)
        with followed.view.reader().reading() as mine, closing(SstReader.open(followed.base_dir)) as base:
            found = digest_of(mine, followed.view.base, base)
            with lane_reading(ctx.bootstrap, table, 0, end, tmp_path / "lane") as wanted:
                assert found == digest_of(wanted, None, None)
                assert list(mine.decisions.items()) == list(wanted.decisions.items())
                assert mine.decisions.counter == wanted.decisions.counter


def test_outcomes_that_are_damaged_where_they_lie_are_fetched_again(ctx, bootstrapper, tmp_path):
    table = make_table(ctx.bootstrap, partitions=1, conditional=True)
    write_hard(ctx.bootstrap, table, 100)
    manifest = compact(ctx, table).manifest
    judge(ctx.repository(table), manifest, "agree")
    begun(bootstrapper, table, tmp_path).close()
    (local,) = (tmp_path / "node" / "snapshots").rglob("decisions.sst")
    local.unlink()  # it may be a link to what the storage holds
    local.write_bytes(b"damaged")
    shutil.rmtree(tmp_path / "node" / "views")
    with closing(begun(bootstrapper, table, tmp_path)) as followed:
        take_rest(ctx.bootstrap, followed)
        with followed.view.reader().reading() as reading:
            assert reading.decisions.counter == manifest.parts[0].counter


def test_a_view_that_would_begin_without_outcomes_of_its_snapshot_is_not_begun(ctx, bootstrapper, tmp_path):
    table = make_table(ctx.bootstrap, partitions=1, conditional=True)
    write_hard(ctx.bootstrap, table, 100)
    judge(ctx.repository(table), compact(ctx, table).manifest, "agree")

    def forgetful(target):
        found = until("there is an answer", lambda: _or_none(bootstrapper, target))
        return found._replace(decided=None)

    with pytest.raises(Corrupted, match="its digest counts"):
        FollowedPartition(Target(table, 0, 0), tmp_path / "node", bootstrapper=forgetful)
    assert not list((tmp_path / "node" / "views").rglob("1/data.mdb")), "half a view is none"


def _or_none(bootstrapper, target):
    try:
        return bootstrapper(target)
    except BootstrapPending:
        return None


def of_worker(ctx, worker):
    """The context of jobs on the worker's storage."""
    ctx.storage = Storage(storage_of(worker))
    return ctx


def assert_is_the_fold(ctx, worker, table, folder):
    for partition, end in committed_ends(ctx.bootstrap, table).items():
        worker.watch.position(table, partition, end)
        shown = worker.watch.values[ViewKey(table.name, table.epoch, partition)]
        position, rows = merged(shown)
        with lane_reading(ctx.bootstrap, table, partition, position, folder / str(partition)) as wanted:
            assert rows == {key: entry for key, entry in wanted.scan() if entry[0] != TOMBSTONE}
            with closing(ViewReader.open(Path(shown.path))) as view, view.reading() as reading:
                assert reading.state.next_offset == position
                assert list(reading.decisions.items()) == list(wanted.decisions.items())


@pytest.mark.parametrize(
    ("kind", "control"), [("one value", True), ("one value", False), ("wide", True)], ids=["pinned", "refolded", "wide"]
)
@pytest.mark.slow
def test_a_worker_adopts_what_it_folded_itself_and_goes_on_upon_it(ctx, worker, tmp_path, kind, control):
    of_worker(ctx, worker)
    fields, write = KINDS[kind]
    more = {} if control else {"adopted": True, "allow_control_records": False}
    table = make_table(ctx.bootstrap, dedup_records=150, **fields, **more)
    for seed in range(2):
        write(ctx.bootstrap, table, 300, seed=seed)
        manifest = compact(ctx, table).manifest
        write(ctx.bootstrap, table, 60, seed=10 + seed)
        adopted(worker, table, manifest)
        assert_is_the_fold(ctx, worker, table, tmp_path / f"lane-{seed}")
    part, shown = manifest.parts[1], snapshot_is(worker, table, "adopted", 1)
    assert (part.cut, part.digest, part.entries) in shown.digests
    assert lane_facts(ctx.bootstrap, table, manifest, tmp_path / "at-the-cut")[1][0].hex == part.digest
