import os
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import orjson
import pytest
from support_jobs import context, make_table, write
from support_log import produce

from batch.jobs import archive as archiving
from batch.jobs.archive import archive, repair_archive, verify_archive
from batch.jobs.compact import compact
from batch.tasks import segments
from benchmarks.far_storage import CountingStorage
from logstore.log import topics
from logstore.log.kafka import clients
from logstore.log.kafka.records import read_records
from logstore.log.read import ranges
from logstore.model.errors import Conflict, Corrupted, JobRunning, LogGap, LogTruncated
from logstore.snapshot.archive import index as archive_index
from logstore.snapshot.archive.index import ArchiveIndex
from logstore.snapshot.archive.segment import Segment, path_of
from logstore.snapshot.archive.segment_file import read_segment
from logstore.snapshot.archive.times import may_hold_later
from logstore.snapshot.storage import Storage
from logstore.snapshot.work import OffsetRange


@pytest.fixture
def index(tmp_path):
    """An archive of segments whose files nobody has written."""
    return ArchiveIndex(Storage(f"file://{tmp_path}"), "t", "e" * 32)


def segment(partition, start, end):
    path = path_of("t/" + "e" * 32 + "/archive", partition, start, end, "a")
    return Segment(partition, start, end, path, end - start, 9, "0" * 32)


def test_segments_follow_each_other_from_offset_0_on(index):
    assert (index.segments(), index.next_offsets()) == ([], {})
    assert index.append([segment(1, 0, 5), segment(0, 0, 10), segment(0, 10, 20)], "j") == 0
    assert index.append([segment(0, 20, 21)], "j") == 1
    again = ArchiveIndex(index.storage, "t", "e" * 32)
    assert again.next_offsets() == {0: 21, 1: 5}
    assert [s[:3] for s in again.segments()] == [(0, 0, 10), (0, 10, 20), (0, 20, 21), (1, 0, 5)]
    assert [s[:3] for s in again.covering(0, 9, 11)] == [(0, 0, 10), (0, 10, 20)]
    assert again.covering(0, 5, 5) == []
    with pytest.raises(Corrupted, match="ends at offset 5 of partition 1"):
        again.covering(1, 0, 6)


@pytest.mark.parametrize(
    ("fresh", "says"),
    [
        ((0, 11, 20), "leaves a hole"),
        ((0, 9, 20), "overlaps"),
        ((1, 1, 2), "leaves a hole"),
        ((0, 10, 10), "leaves|overlaps|hole"),
    ],
)
def test_a_hole_or_an_overlap_is_never_committed(index, fresh, says):
    index.append([segment(0, 0, 10)], "j")
    with pytest.raises(Corrupted, match=says):
        index.append([segment(*fresh)], "j")
    assert index.next_offsets() == {0: 10}


def test_of_two_jobs_that_commit_at_once_one_loses(index):
    other = ArchiveIndex(index.storage, "t", "e" * 32)
    other.segments()
    number = "t/" + "e" * 32 + "/archive/manifests/00000000.json"
    create = index.storage.create

    class Late(Storage):
        def create(self, path, data):
            assert path == number
            create(path, b"the other's")
            super().create(path, data)

    other.storage = Late(index.storage.url)
    with pytest.raises(Conflict, match="run this one again"):
        other.append([segment(0, 0, 1)], "j")


def test_what_was_committed_without_the_lease_or_its_files_is_taken_back(index):
    index.append([segment(0, 0, 10)], "j")
    with pytest.raises(Conflict, match="nothing was committed"):
        index.append([segment(0, 10, 20)], "j", lambda: False)
    index.storage.create(segment(0, 10, 20).path, b"123456789")
    with pytest.raises(Conflict, match="this one wrote; nothing was committed"):
        index.append([segment(0, 10, 20)], "j", lambda: False)
    index.storage.remove(segment(0, 10, 20).path)
    with pytest.raises(Conflict, match=f"removed {segment(0, 10, 20).path}"):
        index.append([segment(0, 10, 20)], "j", lambda: False)
    assert ArchiveIndex(index.storage, "t", "e" * 32).next_offsets() == {0: 10}


def test_a_commit_without_its_files_that_others_follow_stays_and_is_named(index):
    number = "t/" + "e" * 32 + "/archive/manifests/00000001.json"

    class Followed(Storage):
        """Another job reads the manifest, and commits behind it, before it can be taken back."""

        def create(self, path, data):
            super().create(path, data)
            if path == number:
                ArchiveIndex(Storage(self.url), "t", "e" * 32).append([segment(0, 20, 30)], "other")

    index.append([segment(0, 0, 10)], "j")
    index.storage = Followed(index.storage.url)
    with pytest.raises(Corrupted, match=rf"{segment(0, 10, 20).path} is gone.*--repair"):
        index.append([segment(0, 10, 20)], "j", lambda: False)


def test_what_a_repair_names_is_all_there_is(index):
    index.append([segment(0, 0, 10), segment(1, 0, 5)], "j")
    index.append([segment(0, 10, 20)], "j")
    index.storage.remove("t/" + "e" * 32 + "/archive/manifests/00000000.json")
    fresh = ArchiveIndex(index.storage, "t", "e" * 32)
    assert fresh.readable() == []  # nothing lies end to end from offset 0
    assert fresh.replace([segment(0, 0, 10)], "repair") == 2
    for one in (fresh, index, ArchiveIndex(index.storage, "t", "e" * 32)):
        assert one.segments() == [segment(0, 0, 10)]
    assert fresh.append([segment(0, 10, 20)], "j") == 3
    assert index.next_offsets() == {0: 20}


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b"\xff"])
def test_a_damaged_manifest_is_seen(index, damage):
    index.append([segment(0, 0, 10)], "j")
    path = "t/" + "e" * 32 + "/archive/manifests/00000000.json"
    index.storage.replace(path, damage)
    with pytest.raises(Corrupted, match="manifest"):
        ArchiveIndex(index.storage, "t", "e" * 32).segments()


def test_a_changed_number_in_a_manifest_or_a_lost_manifest_is_seen(index):
    index.append([segment(0, 0, 10)], "j")
    index.append([segment(0, 10, 20)], "j")
    path = "t/" + "e" * 32 + "/archive/manifests/00000001.json"
    body = orjson.loads(index.storage.read(path))
    body["segments"][0][2] = 21
    index.storage.replace(path, orjson.dumps(body))
    with pytest.raises(Corrupted, match="does not have the checksum"):
        ArchiveIndex(index.storage, "t", "e" * 32).segments()
    index.storage.remove("t/" + "e" * 32 + "/archive/manifests/00000000.json")
    with pytest.raises(Corrupted, match="lacks the manifest 0"):
        ArchiveIndex(index.storage, "t", "e" * 32).segments()


def _many(index, runs, job="j"):
    """Runs of one record each in two partitions."""
    for number in range(runs):
        index.append([segment(partition, number, number + 1) for partition in (0, 1)], job)
        index.checkpoint(job)


def _manifests(index, kind):
    names = index.storage.list(f"{index.root}/manifests")
    return [int(name.partition(".")[0]) for name in names if name.endswith(kind)]


def test_checkpoints_bound_what_is_read_and_what_lies_there(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_index, "CHECKPOINT_RUNS", 5)
    index = ArchiveIndex(Storage(f"file://{tmp_path}"), "t", "e" * 32)
    _many(index, 20)
    first, second = _manifests(index, "whole")  # the last two; what was before the first is gone
    assert second - first == 6
    assert _manifests(index, "json") == list(range(first, 20 + 3))  # and three checkpoints
    fresh = ArchiveIndex(index.storage, "t", "e" * 32)
    assert fresh.segments() == index.segments() == [segment(p, n, n + 1) for p in (0, 1) for n in range(20)]
    assert (fresh.next_offsets(), fresh.covering(1, 7, 9)) == (
        {0: 20, 1: 20},
        [segment(1, n, n + 1) for n in (7, 8)],
    )
    index.storage.replace(f"{index.root}/manifests/{second:08d}.json", b"half")
    with pytest.raises(Corrupted, match="manifest"):
        ArchiveIndex(index.storage, "t", "e" * 32).next_offsets()
    assert ArchiveIndex(index.storage, "t", "e" * 32).readable() == index.segments()  # by the checkpoint before


def test_a_checkpoint_counts_from_the_moment_it_is_there(tmp_path, monkeypatch):
    """A job is killed before it leaves the mark by which later readers skip what is older; another reads on."""
    monkeypatch.setattr(archive_index, "CHECKPOINT_RUNS", 10)
    index = ArchiveIndex(Storage(f"file://{tmp_path}"), "t", "e" * 32)
    _many(index, 10)
    behind = ArchiveIndex(index.storage, "t", "e" * 32)
    behind.next_offsets()

    class Killed(Storage):
        def replace(self, path, data):
            raise KeyboardInterrupt(path)

    index.storage = Killed(index.storage.url)
    index.append([segment(0, 10, 11)], "j")
    with pytest.raises(KeyboardInterrupt, match="whole"):
        index.checkpoint("j")
    assert _manifests(index, "whole") == []
    for one in (behind, ArchiveIndex(Storage(index.storage.url), "t", "e" * 32)):
        assert one.next_offsets() == {0: 11, 1: 10}
        assert not one.checkpoint("other")  # there is one
    behind.append([segment(0, 11, 12)], "other")
    assert behind.next_offsets() == {0: 12, 1: 10}


def test_a_commit_that_was_taken_back_leaves_no_hole_behind_who_saw_it(index):
    index.append([segment(0, 0, 10)], "j")
    seen = ArchiveIndex(index.storage, "t", "e" * 32)

    class Seen(Storage):
        def create(self, path, data):
            super().create(path, data)
            seen.next_offsets()

    index.storage = Seen(index.storage.url)
    with pytest.raises(Conflict, match="nothing was committed"):
        index.append([segment(0, 10, 20)], "j", lambda: False)
    assert seen.append([segment(1, 0, 1)], "other") == 1
    assert seen.next_offsets() == {0: 10, 1: 1}


def test_only_a_killed_job_has_the_archive_searched_for_its_files(index):
    left = f"{index.root}/p00000/{0:020d}-{9:020d}-dead.parquet"
    index.storage.create(left, b"half")
    os.utime(str(index.storage.local(left)), (1, 1))
    assert index.collect_killed() == []
    index.begin("dead")
    assert index.collect_killed() == []  # it may be suspended, and write more
    os.utime(str(index.storage.local(f"{index.root}/attempts/dead")), (1, 1))
    assert index.collect_killed() == [left]
    assert index.storage.list(f"{index.root}/attempts") == []


@pytest.fixture
def ctx(kafka, tmp_path):
    return context(kafka.bootstrap, tmp_path)


def test_the_archive_is_the_log_in_rounds_and_goes_on_where_it_ended(ctx, monkeypatch):
    monkeypatch.setattr(archiving, "ROUND_RECORDS", 600)
    monkeypatch.setattr(archiving, "CHUNK_RECORDS", 100)
    table = make_table(ctx, "arch-rounds")
    write(ctx.bootstrap, table, 1_500)
    first = archive(ctx, table)
    assert (first.records, first.rounds > 1) == (1_500, True)
    write(ctx.bootstrap, table, 100, seed=2)
    second = archive(ctx, table)
    assert (second.records, second.rounds) == (100, 1)
    assert archive(ctx, table).records == 0
    assert verify_archive(ctx, table)["records"] == 1_600
    for partition in range(2):
        end = second.upto[partition]
        found = rows_of(ctx, table, partition)
        log = list(read_records(ctx.bootstrap, table.topic, partition, 0, end))
        assert found == [(r.offset(), r.timestamp()[1], r.key(), r.value()) for r in log]
        for one in ctx.archive(table).covering(partition, 0, end):
            assert one.latest_ms == max(time_ms for offset, time_ms, *_ in found if one.start <= offset < one.end)


def test_where_nothing_is_new_no_lease_is_taken_and_no_file_written(ctx):
    table = make_table(ctx, "arch-nothing", 4)
    write(ctx.bootstrap, table, 100)
    first = archive(ctx, table)
    files = {path: path.stat().st_mtime_ns for path in Path(str(ctx.storage.local(table.topic))).rglob("*")}
    ctx.storage = storage = CountingStorage(ctx.storage.url)
    storage.asked = 0
    again = archive(ctx, table)
    assert (again.records, again.rounds, again.upto) == (0, 0, first.upto)
    assert storage.asked == 3  # manifests, the one that is there, and marks of killed jobs
    with ctx.repository(table).lease("other", "compact"):
        assert archive(ctx, table).upto == first.upto
        write(ctx.bootstrap, table, 1, seed=2)
        with pytest.raises(JobRunning):
            archive(ctx, table)
    after = {path: path.stat().st_mtime_ns for path in Path(str(ctx.storage.local(table.topic))).rglob("*")}
    assert {p: at for p, at in after.items() if "_JOB" not in p.parts} == {
        p: at for p, at in files.items() if "_JOB" not in p.parts
    }


def test_what_a_run_asks_of_the_storage_does_not_grow_with_partitions_or_runs(ctx):
    """Tasks ask for their own files; so the driver's questions are as many, whatever the partitions."""
    asked = {}
    for partitions in (1, 16):
        table = make_table(ctx, f"arch-asked-{partitions}", partitions)
        for number in range(4):
            write(ctx.bootstrap, table, 200, seed=number)
            index = archive_index.ArchiveIndex(CountingStorage(ctx.storage.url), table.topic, table.epoch)
            with ctx.repository(table).lease(f"j{number}", "archive"):
                assert archiving.archive_leased(ctx, table, f"j{number}", index=index).records == 200
            asked[partitions, number] = index.storage.asked
    assert asked[16, 3] == asked[1, 3] <= 10
    assert asked[1, 3] - asked[1, 1] == 2  # a manifest for each run since the checkpoint


def test_who_has_the_table_looks_for_manifests_once_and_another_commit_is_a_conflict(index):
    index.append([segment(0, 0, 10)], "a")
    held = ArchiveIndex(CountingStorage(index.storage.url), "t", "e" * 32)
    held.hold()
    held.storage.asked = 0
    held.append([segment(0, 10, 20)], "b")
    held.append([segment(1, 0, 5), segment(0, 20, 30)], "b")
    assert held.next_offsets() == {0: 30, 1: 5}
    assert [one[:3] for one in held.covering(0, 5, 25)] == [(0, 0, 10), (0, 10, 20), (0, 20, 30)]
    assert held.storage.asked == 2  # the commits
    assert index.next_offsets() == held.next_offsets()
    index.append([segment(0, 30, 40)], "a")
    with pytest.raises(Conflict):
        held.append([segment(0, 30, 41)], "b")


def test_after_a_checkpoint_who_has_the_table_goes_on_from_it(index, monkeypatch):
    monkeypatch.setattr(archive_index, "CHECKPOINT_RUNS", 2)
    index.hold()
    for number in range(8):
        index.append([segment(0, number, number + 1)], "a")
        index.tidy("a")
        index.hold()
    again = ArchiveIndex(index.storage, "t", "e" * 32)
    assert [one[:3] for one in index.segments()] == [one[:3] for one in again.segments()]
    assert index.next_offsets() == again.next_offsets() == {0: 8}


@pytest.mark.parametrize(
    ("latest_ms", "opened"),
    [([1_000, 1_001, 1_002], []), ([1_000, 1_003, 1_004], [1]), ([-1, 1_001, 1_003, 1_004], [0, 2]), ([-1, 5], [0])],
)
def test_only_segments_that_may_hold_the_first_later_record_are_opened(latest_ms, opened):
    """Earlier builds left the time out."""
    segments = [Segment(0, n, n + 1, f"{n}.parquet", 1, 9, "0" * 32, latest_ms=at) for n, at in enumerate(latest_ms)]
    assert may_hold_later(segments, 1_002) == [segments[n] for n in opened]


def rows_of(ctx, table, partition):
    index = ctx.archive(table)
    skips = table.skips.get(partition, [])
    archived = [segment for segment in index.segments() if segment.partition == partition]
    batches = [batch for segment in archived for batch in read_segment(segment, ctx.storage, skips)]
    return [(r["offset"], r["timestamp"], r["key"], r["value"]) for b in batches for r in b.to_pylist()]


def test_large_values_are_archived_in_several_files_of_one_stretch(ctx, monkeypatch):
    monkeypatch.setattr(segments, "FILE_BYTES", 1 << 20)
    monkeypatch.setattr(segments, "read_range", partial(ranges.read_range, size_bytes=1 << 20))
    table = make_table(ctx, "arch-large", 1, max_value_bytes=2_000_000)
    rng = random.Random(3)
    values = [rng.randbytes(700_000) for _ in range(9)]
    for n, value in enumerate(values):
        produce(ctx.bootstrap, table.topic, [(b"k%d" % n, value)])
    copied = segments.extract(OffsetRange(0, 0, 9), ctx.bootstrap, table, ctx.storage, "j")
    assert len(copied) > 1
    ctx.archive(table).append(copied, "j")
    assert [row[3] for row in rows_of(ctx, table, 0)] == values


@pytest.mark.parametrize("harm", ["flip", "cut", "gone", "swap"])
def test_a_damaged_file_is_named(ctx, harm):
    table = make_table(ctx, f"arch-{harm}")
    write(ctx.bootstrap, table, 400)
    archive(ctx, table)
    one, other = (Path(str(ctx.storage.local(s.path))) for s in ctx.archive(table).segments()[:2])
    data = bytearray(one.read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 1
        one.write_bytes(data)
    elif harm == "cut":
        os.truncate(one, len(data) - 5)
    elif harm == "gone":
        one.unlink()
    else:
        one.write_bytes(other.read_bytes())
    with pytest.raises(Corrupted, match=one.name):
        verify_archive(ctx, table)


def test_holes_are_archived_only_where_a_repair_steps_over_them(ctx):
    table = make_table(ctx, "arch-holes", 1)
    produce(ctx.bootstrap, table.topic, [(b"k", b"%d" % n) for n in range(20)])
    topics.truncate(clients.admin(ctx.bootstrap), table.topic, {0: 7})
    with pytest.raises(LogTruncated, match="offset 0 of"):
        archive(ctx, table)
    repaired = replace(table, skips={0: [(0, 6)]})
    assert archive(ctx, repaired).records == 13
    assert [row[0] for row in rows_of(ctx, repaired, 0)] == list(range(7, 20))
    with pytest.raises(Corrupted, match="lacks offset 0"):
        verify_archive(ctx, table)
    with pytest.raises(LogGap):
        archive(ctx, repaired, {0: 30})
    assert ctx.archive(table).next_offsets() == {0: 20}


def test_files_of_killed_attempts_are_removed(ctx):
    table = make_table(ctx, "arch-garbage")
    write(ctx.bootstrap, table, 100)
    left = f"{ctx.archive(table).root}/p00000/{0:020d}-{9:020d}-dead.parquet"
    ctx.storage.create(left, b"half")
    ctx.archive(table).begin("dead")
    assert archive(ctx, table).removed == 0  # of a job that was suspended, perhaps
    for old in (left, f"{ctx.archive(table).root}/attempts/dead"):
        os.utime(str(ctx.storage.local(old)), (1, 1))
    assert archive(ctx, table).removed == 1
    assert archive(ctx, table).removed == 0


def test_an_archive_is_cut_back_to_what_is_whole_while_the_log_holds_the_rest(ctx):
    table = make_table(ctx, "arch-repair", 2)
    for seed in (1, 2, 3):
        write(ctx.bootstrap, table, 100, seed=seed)
        archive(ctx, table)
    assert not repair_archive(ctx, table).replaced
    before = ctx.archive(table).segments()
    middle = [segment for segment in before if segment.partition == 0][1]
    ctx.storage.remove(middle.path)
    with pytest.raises(Corrupted):
        verify_archive(ctx, table)
    done = repair_archive(ctx, table)
    assert (done.replaced, done.given_up, done.upto[0]) == (True, 2, middle.start)
    assert ctx.archive(table).next_offsets()[0] == middle.start
    archive(ctx, table)
    assert verify_archive(ctx, table)["records"] == 300
    last = ctx.archive(table).segments()[-1]
    ctx.storage.remove(last.path)
    topics.truncate(clients.admin(ctx.bootstrap), table.topic, {last.partition: last.end})
    with pytest.raises(LogTruncated, match="are nowhere; nothing was changed"):
        repair_archive(ctx, table)


def test_a_log_that_lost_its_end_and_grew_again_is_never_put_behind_what_was_archived(kafka, tmp_path):
    ctx = context(kafka.bootstrap, tmp_path)
    table = make_table(ctx, "arch-lost", 1)
    write(ctx.bootstrap, table, 50)
    log = kafka.data_dir / "log" / f"{table.topic}-0" / f"{0:020d}.log"
    kept = log.stat().st_size
    write(ctx.bootstrap, table, 50, seed=2)
    assert archive(ctx, table).upto == {0: 100}
    kafka.kill()
    os.truncate(log, kept)  # as after a power cut: acknowledged, and never on the disk
    kafka.restart()
    for job in (archive, compact):
        with pytest.raises(LogTruncated, match=r"ends at 5., the archive holds everything before 100"):
            job(ctx, table)
    write(ctx.bootstrap, table, 80, seed=3)
    for job in (archive, compact):
        with pytest.raises(LogTruncated, match=r"offset 99 of .* is not the one that was archived"):
            job(ctx, table)
    assert verify_archive(ctx, table)["records"] == 100
