"""Snapshots taken over by real workers.

Agreement first, then the flip; empty nodes; damage; kills. Spark is not needed for that.
"""

import random
import shutil
import threading
from pathlib import Path

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
from logstore.snapshot.verdicts import AUDITOR
from logstore.view import paths
from logstore.view.feed.adoption_records import AdoptionKey, AdoptionRecord
from logstore.view.feed.view_records import ViewKey, ViewRecord
from logstore.view.reader import ViewReader


@pytest.mark.slow
def test_snapshot_after_snapshot_is_adopted_and_the_answers_stay_those_of_the_log(kafka, worker, rng):
    table, manifest = make_table(kafka.bootstrap), None
    for _ in range(3):
        write(kafka, worker, table, some(rng, 3_000))
        manifest = make_snapshot(kafka.bootstrap, table, storage_of(worker), upon=manifest)
        adopted(worker, table, manifest)
        write(kafka, worker, table, some(rng, 300))
        assert_equals_the_log(kafka, worker, table)
    shown = snapshot_is(worker, table, "adopted", 1)
    assert [file.level for file in manifest.files_of(1)] == [0, 1, 2]
    part = manifest.parts[1]
    assert shown.digests[-1] == (part.cut, part.digest, part.entries)
    assert shown.cut == part.cut
    older = worker.watch.values[ViewKey(table.name, table.epoch, 1)].older
    assert [one.cut < part.cut and Path(one.path).is_dir() for one in older] == [True]
    partition_dir = paths.partition_dir(worker.data_dir, table.name, table.epoch, 1)
    until("older generations are removed", lambda: [p.name for p in partition_dir.iterdir() if p.is_dir()] == ["4"])
    snapshots = paths.snapshot_dir(worker.data_dir, table.name, table.epoch, 1)
    until("older snapshots are removed", lambda: len(list(snapshots.glob("*.files"))) == 2)


def test_adopting_under_writes_fails_no_read_and_no_position_goes_back(kafka, worker, rng):
    table = make_table(kafka.bootstrap, partitions=1)
    write(kafka, worker, table, some(rng, 20_000))
    ended, problems, reads = threading.Event(), [], []
    threads = [
        threading.Thread(target=_write_on, args=(kafka, table, ended, random.Random(1))),
        threading.Thread(target=_read_on, args=(worker, table, ended, problems, reads)),
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            adopted(worker, table, make_snapshot(kafka.bootstrap, table, storage_of(worker)))
    finally:
        ended.set()
        for thread in threads:
            thread.join(WAIT_S)
    assert not problems
    assert len(reads) > 100
    assert reads == sorted(reads)
    write(kafka, worker, table, some(rng, 10))
    assert_equals_the_log(kafka, worker, table)


def _write_on(kafka, table, ended, rng):
    while not ended.is_set():
        produce(kafka.bootstrap, table.topic, list(some(rng, 500)))


def _read_on(worker, table, ended, problems, reads):
    """A reader of its own: opens what the feed shows, reads point after point, each from one state."""
    watch = type(worker.watch)(worker.data_dir)
    key = ViewKey(table.name, table.epoch, 0)
    path, reader, rng = None, None, random.Random(2)
    try:
        while not ended.is_set():
            shown = watch.until("it is shown", lambda values: values.get(key))
            watch._receive(0.0)
            if shown.path != path:
                if reader:
                    reader.close()
                path, reader = shown.path, ViewReader.open(Path(shown.path))
            with reader.reading() as reading:
                reads.append(reading.state.next_offset)
                reading.get(b"k%d" % rng.randrange(2_000))
            ended.wait(0.001)
    except Exception as error:
        problems.append(error)
    finally:
        watch.close()
        if reader:
            reader.close()


def test_a_snapshot_with_another_digest_is_refused_and_nothing_changes(kafka, worker, rng):
    table = make_table(kafka.bootstrap, partitions=1)
    write(kafka, worker, table, some(rng, 500))

    def one_less(_, entries):
        entries.pop(next(iter(entries)))
        return entries

    manifest = make_snapshot(kafka.bootstrap, table, storage_of(worker), change=one_less)
    shown = snapshot_is(worker, table, "refused", candidate=manifest.name)
    part = manifest.parts[0]
    for word in (f"{table.name}/0", f"{part.cut:,}", part.digest, f"logstore batch audit {table.name} --explain"):
        assert word in shown.reason
    assert shown.digests[-1][1] in shown.reason
    assert worker.watch.values[ViewKey(table.name, table.epoch, 0)].base is None
    adopted(worker, table, make_snapshot(kafka.bootstrap, table, storage_of(worker)))
    assert_equals_the_log(kafka, worker, table)


def test_a_damaged_file_is_refused_until_it_is_whole_again(kafka, worker, rng):
    table = make_table(kafka.bootstrap, partitions=1)
    write(kafka, worker, table, some(rng, 500))
    manifest = make_snapshot(kafka.bootstrap, table, storage_of(worker), move=False)
    path = Path(storage_of(worker).removeprefix("file://")) / repository(worker, table).file_path(
        manifest.files[0].path
    )
    sound = path.read_bytes()
    path.unlink()
    path.write_bytes(sound[:100] + bytes([sound[100] ^ 1]) + sound[101:])
    repository(worker, table).move(None, manifest.name, "test")
    shown = snapshot_is(worker, table, "refused")
    assert manifest.files[0].path in shown.reason
    assert worker.watch.values[ViewKey(table.name, table.epoch, 0)].base is None
    path.unlink()
    path.write_bytes(sound)
    adopted(worker, table, manifest)
    assert_equals_the_log(kafka, worker, table)


def test_a_snapshot_ahead_of_the_view_waits_and_the_reason_says_for_what(kafka, worker, rng):
    table = make_table(kafka.bootstrap, partitions=1)
    write(kafka, worker, table, some(rng, 100))
    ahead = make_snapshot(kafka.bootstrap, table, storage_of(worker), cuts={0: 50})
    shown = snapshot_is(worker, table, "waiting", candidate=ahead.name)
    assert "digest at the cut 50 is not known" in shown.reason


def test_an_empty_node_begins_at_the_snapshot_though_the_log_before_is_gone(kafka, worker, rng, tmp_path):
    table = make_table(kafka.bootstrap)
    write(kafka, worker, table, some(rng, 3_000))
    manifest = make_snapshot(kafka.bootstrap, table, storage_of(worker))
    adopted(worker, table, manifest)
    write(kafka, worker, table, some(rng, 200))
    expected = {p: merged(worker.watch.values[ViewKey(table.name, table.epoch, p)]) for p in range(2)}
    topics.truncate(admin(kafka.bootstrap), table.topic, {p: part.cut for p, part in manifest.parts.items()})
    _carry_storage(worker, tmp_path / "empty")
    with running_worker(kafka.bootstrap, tmp_path / "empty") as empty:
        for partition in range(2):
            empty.watch.state(table, partition, "live")
            empty.watch.position(table, partition, expected[partition][0])
            assert merged(empty.watch.values[ViewKey(table.name, table.epoch, partition)]) == expected[partition]
        assert _skipped(empty, table) == _skipped(worker, table)
        assert snapshot_is(empty, table, "adopted", base=manifest.name).cut == manifest.parts[0].cut


def _skipped(worker, table):
    reader = ViewReader.open(Path(worker.watch.values[ViewKey(table.name, table.epoch, 0)].path))
    with reader.reading() as reading:
        found = reading.quarantine()
    reader.close()
    return found


def _carry_storage(worker, data_dir):
    if storage_of(worker) == paths.default_storage(worker.data_dir):
        shutil.copytree(worker.data_dir / "storage", data_dir / "storage")


@pytest.mark.slow
def test_a_node_that_was_away_while_the_log_was_trimmed_leaps_to_the_snapshot(kafka, tmp_path, rng):
    table = make_table(kafka.bootstrap, partitions=1)
    with running_worker(kafka.bootstrap, tmp_path / "node") as worker:
        write(kafka, worker, table, some(rng, 500))
        worker.stop()
        produce(kafka.bootstrap, table.topic, list(some(rng, 500)))
        manifest = make_snapshot(kafka.bootstrap, table, storage_of(worker))
        produce(kafka.bootstrap, table.topic, list(some(rng, 50)))
        expected = folded(kafka.bootstrap, table, 0, manifest.parts[0].cut + 52)[0]
        topics.truncate(admin(kafka.bootstrap), table.topic, {0: manifest.parts[0].cut})
        worker.start()
        adopted(worker, table, manifest)
        worker.watch.position(table, 0, manifest.parts[0].cut + 52)
        worker.watch.state(table, 0, "live")
        assert merged(worker.watch.values[ViewKey(table.name, table.epoch, 0)])[1] == expected


def test_a_restored_table_is_never_begun_without_its_base(kafka, worker):
    table = make_table(kafka.bootstrap, partitions=1)
    worker.watch.state(table, 0, "live")
    restored = make_table(kafka.bootstrap, partitions=1, base={"snapshot": "00000000000001-deadbeef"})
    key = ViewKey(restored.name, restored.epoch, 0)
    shown = worker.watch.until("it says why", lambda values: values.get(key))
    assert shown.path is None
    assert "00000000000001-deadbeef" in shown.reason
    manifest = make_snapshot(kafka.bootstrap, restored, storage_of(worker))
    worker.watch.state(restored, 0, "live")
    assert worker.watch.values[key].base.snapshot == manifest.name


@pytest.mark.slow
def test_a_view_whose_beginning_is_refused_later_begins_again_by_itself(kafka, tmp_path, rng):
    table = make_table(kafka.bootstrap, partitions=1)
    with running_worker(kafka.bootstrap, tmp_path / "node") as worker:
        write(kafka, worker, table, some(rng, 300))
        worker.stop()
        good = make_snapshot(kafka.bootstrap, table, storage_of(worker), word="agree")

        def one_less(_, entries):
            entries.pop(next(iter(entries)))
            return entries

        wrong = make_snapshot(kafka.bootstrap, table, storage_of(worker), change=one_less, word="agree")
        shutil.rmtree(worker.data_dir / "views")
        worker.start()
        adopted(worker, table, wrong)  # believed, for a node said so
        judge(repository(worker, table), wrong, "refuse", judge=AUDITOR)
        snapshot_is(worker, table, "refused", base=good.name, proof="proved")
        assert_equals_the_log(kafka, worker, table)


def test_a_pointer_that_is_moved_back_leaves_what_was_agreed_with(kafka, worker, rng):
    table = make_table(kafka.bootstrap, partitions=1)
    write(kafka, worker, table, some(rng, 200))
    first = make_snapshot(kafka.bootstrap, table, storage_of(worker))
    adopted(worker, table, first)
    write(kafka, worker, table, some(rng, 200))
    second = make_snapshot(kafka.bootstrap, table, storage_of(worker))
    adopted(worker, table, second)
    repository(worker, table).rollback(first.name)
    key = AdoptionKey(table.name, table.epoch, 0)
    worker.watch.until("the rollback is seen", lambda values: first.name in values[key].reason)
    assert (worker.watch.values[key].base, worker.watch.values[key].state) == (second.name, "adopted")
    assert_equals_the_log(kafka, worker, table)


def test_digests_outlive_a_restart(kafka, tmp_path, rng):
    table = make_table(kafka.bootstrap, partitions=1)
    with running_worker(kafka.bootstrap, tmp_path / "node") as worker:
        write(kafka, worker, table, some(rng, 200))
        cuts = cut(kafka.bootstrap, table)
        key = AdoptionKey(table.name, table.epoch, 0)
        worker.watch.until("the digest is there", lambda values: values.get(key, AdoptionRecord()).digests)
        worker.kill()
        write_after = produce(kafka.bootstrap, table.topic, list(some(rng, 50)))
        worker.start()
        worker.watch.position(table, 0, write_after[-1][1] + 1)
        adopted(worker, table, make_snapshot(kafka.bootstrap, table, storage_of(worker), cuts=cuts))
        assert_equals_the_log(kafka, worker, table)


@pytest.mark.slow
def test_a_base_that_was_damaged_on_this_node_is_fetched_again(kafka, tmp_path, rng):
    table = make_table(kafka.bootstrap, partitions=1)
    with running_worker(kafka.bootstrap, tmp_path / "node") as worker:
        write(kafka, worker, table, some(rng, 500))
        manifest = make_snapshot(kafka.bootstrap, table, storage_of(worker))
        adopted(worker, table, manifest)
        worker.kill()
        _flip_a_bit_of_the_copy(paths.snapshot_dir(worker.data_dir, table.name, table.epoch, 0))
        worker.start()
        key = ViewKey(table.name, table.epoch, 0)
        worker.watch.until("another copy is read", lambda values: "~2" in str(values.get(key, ViewRecord()).base))
        assert_equals_the_log(kafka, worker, table)


def _flip_a_bit_of_the_copy(directory):
    """The local file is a link to the storage's: it is replaced, as a damaged disk would only change this one."""
    (file,) = directory.glob("*.files/*.sst")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 4
    file.unlink()
    file.write_bytes(raw)
