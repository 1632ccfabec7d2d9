"""The lane on a real broker: what stops a partition, what does not, and what survives."""

import subprocess
import threading
import time
from dataclasses import replace

import pytest
from support_log import produce, transactional, until
from support_tiers import short_and_long
from support_view import truncate, used_bytes, zero_pages, zero_root
from support_worker import make_table, opened, rows, running_worker

from logstore.log import topics
from logstore.log.kafka.clients import admin
from logstore.log.tables.registry import Registry
from logstore.model.folding.fold import FoldRules, Records, fold_batch
from logstore.model.partitioner import partition_of
from logstore.view import paths
from logstore.view.feed.log_records import EndsKey, EndsRecord, LogKey, LogRecord
from logstore.view.feed.server import FeedServer
from logstore.view.feed.view_records import ViewKey, ViewRecord
from logstore.view.view import View, ViewIdentity
from streaming.digest.client import DigestClient
from streaming.lane.cuts import Cuts
from streaming.lane.disk.opened_view import Bootstrap
from streaming.lane.lane import Lane, Targets
from streaming.lane.target import Target

CONTROL = [("ls.op", b"cut")]


def test_a_put_walks_into_the_view_and_a_delete_takes_it_out(kafka, worker):
    table = make_table(kafka.bootstrap)
    placed = produce(kafka.bootstrap, table.topic, [(b"ada", b"1"), (b"bob", b"2"), (b"ada", b"3"), (b"bob", None)])
    for partition, offset in placed:
        worker.watch.position(table, partition, offset + 1)
    assert rows(worker.data_dir, table) == {b"ada": b"3"}


def test_kcat_is_a_first_class_writer(kafka, worker):
    table = make_table(kafka.bootstrap, partitions=5)
    lines = {f"key-{n}".encode(): f"value {n}".encode() for n in range(1_000)}
    text = b"".join(key + b"\t" + value + b"\n" for key, value in lines.items())
    command = [
        "kcat",
        "-P",
        "-q",
        "-b",
        kafka.bootstrap,
        "-t",
        table.topic,
        "-K",
        "\t",
        "-X",
        "partitioner=murmur2_random",
    ]
    subprocess.run(command, input=text, check=True, timeout=60)
    for partition in range(5):
        worker.watch.position(table, partition, sum(partition_of(key, 5) == partition for key in lines))
    assert rows(worker.data_dir, table) == lines


def test_garbage_is_skipped_listed_and_changes_nothing(kafka, worker):
    table = make_table(kafka.bootstrap, partitions=2)
    here = next(key for key in (b"a", b"b", b"c", b"d") if partition_of(key, 2) == 0)
    there = next(key for key in (b"a", b"b", b"c", b"d") if partition_of(key, 2) == 1)
    produce(kafka.bootstrap, table.topic, [(here, b"good"), (None, b"x"), (there, b"lost"), (b"", b"x")], partition=0)
    produce(kafka.bootstrap, table.topic, [(here, b"x")], 0, [("ls.nonsense", b"1")])
    produce(kafka.bootstrap, table.topic, [(None, b"\x80")], 0, CONTROL)
    ((_, last),) = produce(kafka.bootstrap, table.topic, [(here, b"better")], 0, [("mine", b"kept")])
    worker.watch.position(table, 0, last + 1)
    assert rows(worker.data_dir, table) == {here: b"better"}
    with opened(worker.data_dir, table, 0) as reader, reader.reading() as reading:
        assert reading.quarantine().records == [
            (1, "null-key"),
            (2, "wrong-partition"),
            (3, "empty-key"),
            (4, "unknown-header"),
        ]


@pytest.mark.parametrize(
    "headers", [[("ls.v", b"\x02")], [("ls.op", b"incr")], [("ls.id", b"i" * 16)], [("ls.ttl", b"\0" * 8)]]
)
def test_what_a_later_build_would_fold_stops_that_partition_only(kafka, worker, headers):
    table = make_table(kafka.bootstrap, partitions=2)
    by_partition = {partition_of(key, 2): key for key in (b"a", b"b", b"c", b"d")}
    produce(kafka.bootstrap, table.topic, [(by_partition[0], b"before")])
    produce(kafka.bootstrap, table.topic, [(by_partition[0], b"12345678")], headers=headers)
    produce(kafka.bootstrap, table.topic, [(by_partition[0], b"after"), (by_partition[1], b"goes on")])
    shown = worker.watch.state(table, 0, "stopped")
    assert "offset 1" in shown.reason
    worker.watch.position(table, 1, 1)
    with opened(worker.data_dir, table, 0) as reader:
        assert (reader.state().next_offset, reader.state().stop.word) == (1, "unsupported")


def test_a_transactional_writer_is_found_out_and_a_repair_lets_the_partition_go_on(kafka, worker):
    table = make_table(kafka.bootstrap, partitions=1)
    writer = transactional(kafka.bootstrap, table.name)
    writer.begin_transaction()
    writer.produce(table.topic, b"committed", b"k")
    writer.commit_transaction(30)  # offset 0, and its marker at offset 1: the last offset of the log
    shown = worker.watch.state(table, 0, "stopped")
    assert "--skip 1..1" in shown.reason
    registry = Registry(kafka.bootstrap)
    registry.write(registry.table(table.name).with_skip(0, 1, 1))
    worker.watch.state(table, 0, "live")
    worker.watch.position(table, 0, 2)
    assert rows(worker.data_dir, table) == {b"k": b"committed"}


def test_an_aborted_value_is_never_served(kafka, worker):
    table = make_table(kafka.bootstrap, partitions=1)
    produce(kafka.bootstrap, table.topic, [(b"k", b"sound")])
    writer = transactional(kafka.bootstrap, table.name)
    writer.begin_transaction()
    writer.produce(table.topic, b"aborted", b"k")
    writer.flush(30)
    worker.watch.until(
        "an open transaction is a reason",
        lambda v: "transaction" in v.get(ViewKey(table.name, table.epoch, 0), ViewRecord()).reason,
    )
    writer.abort_transaction(30)
    shown = worker.watch.state(table, 0, "stopped")
    assert "--skip 1..2" in shown.reason
    assert rows(worker.data_dir, table) == {b"k": b"sound"}


def test_a_log_that_was_cut_stops_the_partition(kafka, tmp_path):
    table = make_table(kafka.bootstrap, partitions=1)
    produce(kafka.bootstrap, table.topic, [(b"k%d" % n, b"v") for n in range(20)])
    topics.truncate(admin(kafka.bootstrap), table.topic, {0: 10})
    with running_worker(kafka.bootstrap, tmp_path / "node") as worker:
        shown = worker.watch.state(table, 0, "stopped")
        assert "does not hold offset 0" in shown.reason


@pytest.mark.slow
def test_a_log_that_was_cut_above_the_views_position_is_followed_behind_what_a_repair_gives_up(kafka, tmp_path):
    table = make_table(kafka.bootstrap, partitions=1)
    with running_worker(kafka.bootstrap, tmp_path / "node") as worker:
        produce(kafka.bootstrap, table.topic, [(b"k%02d" % n, b"v") for n in range(20)])
        worker.watch.position(table, 0, 20)
        worker.kill()
        produce(kafka.bootstrap, table.topic, [(b"k%02d" % n, b"v") for n in range(20, 60)])
        topics.truncate(admin(kafka.bootstrap), table.topic, {0: 50})
        for _ in range(2):  # a stop that was found stays, whoever starts again
            shown = worker.start().watch.state(table, 0, "stopped")
            assert "does not hold offset 20, which this view needs next: it begins at 50" in shown.reason
            worker.kill()
        registry = Registry(kafka.bootstrap)
        registry.write(registry.table(table.name).with_skip(0, 20, 49))
        for _ in range(2):
            worker.start().watch.state(table, 0, "live")
            worker.watch.position(table, 0, 60)
            assert rows(worker.data_dir, table) == {b"k%02d" % n: b"v" for n in (*range(20), *range(50, 60))}
            worker.kill()


def test_a_topic_that_was_created_again_stops_the_table_and_the_others_go_on(kafka, worker):
    table, other = make_table(kafka.bootstrap, partitions=1), make_table(kafka.bootstrap, partitions=1)
    produce(kafka.bootstrap, table.topic, [(b"k", b"old")])
    worker.watch.position(table, 0, 1)
    client = admin(kafka.bootstrap)
    topics.delete(client, table.topic)
    until(
        "the topic is there again", lambda: topics.create(client, table.topic, 1, 1, topics.wal_settings(1_000_000, 1))
    )
    shown = worker.watch.state(table, 0, "stopped")
    assert "deleted and created again" in shown.reason or "is gone" in shown.reason
    produce(kafka.bootstrap, other.topic, [(b"k", b"v")])
    worker.watch.position(other, 0, 1)


def test_a_topic_with_more_partitions_than_defined_stops_the_table(kafka, worker):
    table = make_table(kafka.bootstrap, partitions=1)
    worker.watch.state(table, 0, "live")
    topics.add_partitions(admin(kafka.bootstrap), table.topic, 3)
    assert "3 partitions" in worker.watch.state(table, 0, "stopped").reason


def test_views_and_local_snapshots_of_a_dropped_table_are_removed_and_those_of_others_stay(kafka, worker):
    gone, stays = make_table(kafka.bootstrap), make_table(kafka.bootstrap)
    for table in (gone, stays):
        worker.watch.state(table, 0, "live")
        paths.snapshot_dir(worker.data_dir, table.name, table.epoch, 0).mkdir(parents=True)
    Registry(kafka.bootstrap).write(replace(gone, dropped=True))
    views, snapshots = worker.data_dir / "views", worker.data_dir / "snapshots"
    until(
        "what lay here of it is removed",
        lambda: not (views / gone.name).exists() and not (snapshots / gone.name).exists(),
    )
    assert paths.snapshot_dir(worker.data_dir, stays.name, stays.epoch, 0).exists()
    assert (views / stays.name / stays.epoch / "0" / "1" / "data.mdb").exists()


def test_a_log_that_is_shorter_than_the_view_stops_the_partition(kafka, tmp_path):
    table = make_table(kafka.bootstrap, partitions=1)
    produce(kafka.bootstrap, table.topic, [(b"k", b"v")] * 5)
    path = paths.partition_dir(tmp_path / "node", table.name, table.epoch, 0) / "1"
    view = View(path, ViewIdentity(table.name, table.epoch, 0, 1, table.max_value_bytes))
    view.apply(
        fold_batch(
            Records(range(10), [b"k"] * 10, [b"v"] * 10, [1] * 10, [None] * 10), FoldRules(0, 1, 1_000_000), 0, 0
        )
    )
    view.close()
    with running_worker(kafka.bootstrap, tmp_path / "node") as worker:
        assert "does not hold offset 10" in worker.watch.state(table, 0, "stopped").reason


@short_and_long("rounds", 2, 4)
@pytest.mark.slow
def test_killed_at_random_instants_every_view_is_a_prefix_and_nothing_is_lost(kafka, tmp_path, rounds, rng):
    table = make_table(kafka.bootstrap, partitions=2)
    with running_worker(kafka.bootstrap, tmp_path / "node") as worker:
        _kill_again_and_again(kafka, worker, table, rng, rounds)
        assert worker.stop() == 0


def _kill_again_and_again(kafka, worker, table, rng, rounds):
    for partition in range(2):
        worker.watch.state(table, partition, "live")
    written: dict[bytes, bytes] = {}
    ends = {0: 0, 1: 0}
    for round_ in range(rounds):
        batch = [(b"%d-%06d" % (round_, n), rng.randbytes(100)) for n in range(5_000 * rounds)]
        placed = produce(kafka.bootstrap, table.topic, batch)
        written |= dict(batch)
        for partition, offset in placed:
            ends[partition] = max(ends[partition], offset + 1)
        worker.watch.position(table, 0, rng.randrange(1, ends[0]))
        worker.kill()
        _assert_prefix(worker.data_dir, table, written, placed=ends)
        worker.start()
    for partition, end in ends.items():
        worker.watch.position(table, partition, end)
    assert rows(worker.data_dir, table) == written


def _assert_prefix(data_dir, table, written, placed):
    """Unique keys, so a view that stands at n holds exactly n rows, each with the bytes that were written."""
    for partition in placed:
        with opened(data_dir, table, partition) as reader, reader.reading() as reading:
            found = dict(reading.scan())
            assert sorted(int.from_bytes(raw[1:9], "big") for raw in found.values()) == list(
                range(reading.state.next_offset)
            )
            assert all(raw[17:] == written[key] for key, raw in found.items())


@pytest.mark.slow
def test_the_broker_dies_and_comes_back(kafka, worker):
    table = make_table(kafka.bootstrap, partitions=1)
    produce(kafka.bootstrap, table.topic, [(b"k", b"1")])
    worker.watch.position(table, 0, 1)
    kafka.kill()
    worker.watch.until("the log is away", lambda v: v.get(LogKey()) == LogRecord(reachable=False))
    kafka.restart()
    back_ms = time.time_ns() // 1_000_000
    worker.watch.until(
        "it is heard of although nothing is written",
        lambda v: v.get(LogKey()) == LogRecord(reachable=True) and v.get(EndsKey(), EndsRecord()).asked_ms > back_ms,
    )
    worker.watch.until(
        "the end of its log is told again",
        lambda v: (table.epoch, 0, 1) in v.get(EndsKey(), EndsRecord()).ends,
    )
    produce(kafka.bootstrap, table.topic, [(b"k", b"2")])
    worker.watch.position(table, 0, 2, timeout_s=60)
    assert rows(worker.data_dir, table) == {b"k": b"2"}


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda path: truncate(path, used_bytes(path) // 2), id="cut short"),
        pytest.param(zero_root, id="zeroed", marks=pytest.mark.long),  # pages of zeros: the next test, and of test_view
    ],
)
@pytest.mark.slow
def test_a_view_that_was_damaged_meanwhile_is_built_again_from_the_log(kafka, tmp_path, harm):
    table = make_table(kafka.bootstrap, partitions=2)
    written = {b"k%04d" % n: b"v" * 100 for n in range(2_000)}
    ends = _ends(produce(kafka.bootstrap, table.topic, list(written.items())))
    with running_worker(kafka.bootstrap, tmp_path / "node") as worker:
        _reached(worker, table, ends)
        assert worker.stop() == 0
        harm(paths.partition_dir(worker.data_dir, table.name, table.epoch, 1) / "1")
        worker.watch.values.clear()  # of the run before
        worker.start()
        _reached(worker, table, ends)
        worker.watch.state(table, 1, "live")
        assert rows(worker.data_dir, table) == written
        assert "is damaged" in worker.log()


def test_a_view_that_is_damaged_while_it_is_followed_is_built_again_and_the_worker_stays(kafka, worker):
    table = make_table(kafka.bootstrap, partitions=2)
    written = {b"k%04d" % n: b"v" * 100 for n in range(2_000)}
    _reached(worker, table, _ends(produce(kafka.bootstrap, table.topic, list(written.items()))))
    pid = worker.process.pid
    zero_pages(paths.partition_dir(worker.data_dir, table.name, table.epoch, 1) / "1")
    newer = {b"k%04d" % n: b"newer" for n in range(100)}
    _reached(worker, table, _ends(produce(kafka.bootstrap, table.topic, list(newer.items()))))
    worker.watch.until(
        "it is live again", lambda values: values.get(ViewKey(table.name, table.epoch, 1), ViewRecord()).state == "live"
    )
    until("every row is back", lambda: rows(worker.data_dir, table) == written | newer)
    assert worker.process.poll() is None
    assert worker.process.pid == pid
    assert "is damaged" in worker.log()


def test_what_an_earlier_run_has_shown_stays_until_it_is_known_what_to_follow(kafka, tmp_path):
    feed = FeedServer(tmp_path / "feed.sock")
    lane = Lane(
        kafka.bootstrap,
        tmp_path,
        feed,
        group="early",
        sync="none",
        cuts=Cuts(DigestClient(), lambda *_: None),
        bootstrapper=lambda _: Bootstrap(),
    )
    shown = ViewKey("t", "e" * 32, 0)
    feed.publish(shown, ViewRecord("somewhere"))
    lane.start()
    begun_s = lane.beat_s
    until("the lane has come round", lambda: lane.beat_s > begun_s)
    assert shown in feed.snapshot()
    lane.follow(Targets(1, {}))
    until("it is taken back", lambda: shown not in feed.snapshot())
    lane.close()
    feed.close()


def _ends(placed):
    """Partition -> next offset behind what was produced."""
    return {partition: max(offset for p, offset in placed if p == partition) + 1 for partition, _ in placed}


def _reached(worker, table, ends):
    for partition, end in ends.items():
        worker.watch.position(table, partition, end)


@pytest.mark.slow
def test_many_views_are_opened_a_few_at_a_time_and_others_records_do_not_wait(kafka, tmp_path):
    small, large = make_table(kafka.bootstrap, partitions=1), make_table(kafka.bootstrap, partitions=200)
    wanted = {target.key: target for target in [Target(small, 0, 0), *(Target(large, p, 0) for p in range(200))]}
    feed = FeedServer(tmp_path / "feed.sock")
    begun, gaps_s, applied = [], [], threading.Event()

    def slow_disk(target):
        if target.table is large:
            time.sleep(0.03 if applied.is_set() else 0.3)  # so that the record comes in the middle of it
            begun.append(target.partition)
            gaps_s.append(time.monotonic() - lane.beat_s)
        return Bootstrap()

    lane = Lane(
        kafka.bootstrap, tmp_path, feed, group="many", sync="none", cuts=Cuts(DigestClient(), lambda *_: None),
        bootstrapper=slow_disk,
    )  # fmt: skip
    lane.start()
    first = Target(small, 0, 0).key
    lane.follow(Targets(1, {first: wanted[first]}))
    until("the small table is live", lambda: lane.phases.get(first) == "live")
    lane.follow(Targets(2, wanted))
    until("the large one begins", lambda: begun)
    assert lane.generation < 2
    ((_, last),) = produce(kafka.bootstrap, small.topic, [(b"k", b"v")])
    until(
        "the small table's record is applied",
        lambda: any(f.target.table is small and f.next_offset > last for f in lane.followed()),
    )
    assert len(begun) < 200, "it did not wait for them all"
    applied.set()
    until("all are followed", lambda: lane.generation == 2)
    until("all are live", lambda: set(lane.phases.values()) == {"live"})
    assert len(begun) == 200
    assert sorted(gaps_s)[100] < 2, "a round is short, however many there are to open"
    lane.close()
    feed.close()
