"""Short stretches of several partitions, read by one consumer and archived together."""

import secrets
from pathlib import Path

import pytest
from support_jobs import context, make_table, write
from support_log import markers_written, produce, transactional

from batch import task_groups
from batch.jobs import archive as archiving
from batch.tasks import segments
from logstore.log import topics
from logstore.log.kafka.clients import admin
from logstore.log.read.range_group import read_group
from logstore.log.read.ranges import read_range
from logstore.model.errors import Corrupted, EpochChanged, LogGap, LogTruncated
from logstore.model.record_identity import identify
from logstore.snapshot.archive.segment_file import read_segment
from logstore.snapshot.storage import Storage
from logstore.snapshot.work import OffsetRange


@pytest.fixture
def ctx(kafka, tmp_path):
    return context(kafka.bootstrap, tmp_path)


def named(name):
    return f"{name}-{secrets.token_hex(4)}"


def rows(batches):
    """Rows by partition, in the order in which they came."""
    found: dict[int, list] = {}
    for batch in batches:
        assert len(set(batch.column("part").to_pylist())) == 1, "a batch is of one partition"
        found.setdefault(batch.column("part")[0].as_py(), []).extend(batch.to_pylist())
    return found


def test_a_group_reads_what_each_of_its_ranges_is_read_as_alone(ctx):
    table = make_table(ctx, named("group-rows"), 5)
    write(ctx.bootstrap, table, 600)
    ends = archiving.committed_ends(ctx.bootstrap, table)
    wanted = {0: (0, ends[0]), 1: (7, 20), 2: (ends[2] - 1, ends[2]), 4: (3, ends[4] - 2)}  # some end before the log
    for size_bytes in (1 << 20, 1_000):
        found = rows(read_group(ctx.bootstrap, table, wanted, size_bytes=size_bytes))
        assert found == {p: rows(read_range(ctx.bootstrap, table, p, *span))[p] for p, span in wanted.items()}


def test_what_is_missing_from_one_range_is_named(ctx):
    table = make_table(ctx, named("group-missing"), 3)
    for partition in range(3):
        produce(ctx.bootstrap, table.topic, [(b"k", b"v")] * 10, partition=partition)
    whole = {0: (0, 10), 1: (0, 10)}
    with pytest.raises(LogGap, match=r"offsets 10 to 11 are missing from the log of group-missing-\w+/2"):
        rows(read_group(ctx.bootstrap, table, {**whole, 2: (0, 12)}))
    topics.truncate(admin(ctx.bootstrap), table.topic, {1: 5})
    with pytest.raises(LogTruncated, match=r"offset 0 of .*/1 is gone: the log begins at 5"):
        rows(read_group(ctx.bootstrap, table, whole))
    found = rows(read_group(ctx.bootstrap, table.with_skip(1, 0, 4), whole))
    assert [len(found[partition]) for partition in (0, 1)] == [10, 5]
    assert rows(read_group(ctx.bootstrap, table.with_skip(1, 0, 4), {0: (0, 10), 1: (0, 3)})).keys() == {0}
    topics.delete(admin(ctx.bootstrap), table.topic)
    topics.create(admin(ctx.bootstrap), table.topic, 3, 1, topics.wal_settings(1_000_000, 1))
    with pytest.raises(EpochChanged, match="created again"):
        rows(read_group(ctx.bootstrap, table, whole))


def test_markers_at_the_end_of_one_range_are_holes_unless_a_repair_steps_over_them(ctx):
    table = make_table(ctx, named("group-markers"), 2)
    produce(ctx.bootstrap, table.topic, [(b"k", b"v")] * 4, partition=0)
    writer = transactional(ctx.bootstrap, table.topic)
    writer.begin_transaction()
    writer.produce(table.topic, b"v", b"k", partition=1)
    writer.flush(60)
    writer.commit_transaction(10)
    markers_written(ctx.bootstrap, table.topic, 1)
    with pytest.raises(LogGap, match="offsets 1 to 1 are missing"):
        rows(read_group(ctx.bootstrap, table, {0: (0, 4), 1: (0, 2)}))
    found = rows(read_group(ctx.bootstrap, table.with_skip(1, 1, 1), {0: (0, 4), 1: (0, 2)}))
    assert [len(found[partition]) for partition in (0, 1)] == [4, 1]


def test_stretches_archived_together_are_the_segments_of_each_alone(ctx):
    table = make_table(ctx, named("group-segments"), 4)
    write(ctx.bootstrap, table, 400)
    ends = archiving.committed_ends(ctx.bootstrap, table)
    after = {p: identity_of(ctx, table, p, 4) for p in range(2)}
    chunks = [OffsetRange(p, 5 if p in after else 0, ends[p], after.get(p, "")) for p in range(4)]
    extract = segments.extract_group
    together = extract(chunks, ctx.bootstrap, table, ctx.storage, "j")
    alone = [one for chunk in chunks for one in extract([chunk], ctx.bootstrap, table, ctx.storage, "k")]
    own = {"path": "", "checksum": "", "size_bytes": 0}  # of the attempt, and of how batches fell
    assert [one._replace(**own) for one in together] == [one._replace(**own) for one in alone]
    for one, other in zip(together, alone, strict=True):
        assert rows(read_segment(one, ctx.storage, [])) == rows(read_segment(other, ctx.storage, []))
    pieces = [OffsetRange(0, 0, 5), OffsetRange(0, 5, 9)]
    assert [one[:3] for one in extract(pieces, ctx.bootstrap, table, ctx.storage, "j")] == [one[:3] for one in pieces]


def identity_of(ctx, table, partition, offset):
    (record,) = rows(read_range(ctx.bootstrap, table, partition, offset, offset + 1))[partition]
    return identify(record["offset"], record["timestamp"], record["key"], record["value"]).text


def test_a_stretch_whose_log_lost_the_record_before_it_ends_its_group(ctx):
    table = make_table(ctx, named("group-lost"), 2)
    for partition in range(2):
        produce(ctx.bootstrap, table.topic, [(b"k", b"v")] * 6, partition=partition)
    lost = identify(2, 1, b"k", b"another").text
    chunks = [OffsetRange(0, 0, 6), OffsetRange(1, 3, 6, lost)]
    with pytest.raises(LogTruncated, match=r"offset 2 of group-lost-\w+/1 is not the one that was archived"):
        segments.extract_group(chunks, ctx.bootstrap, table, ctx.storage, "j")
    skipping = table.with_skip(1, 0, 5)
    topics.truncate(admin(ctx.bootstrap), table.topic, {1: 6})
    with pytest.raises(LogTruncated, match=r"offset 2 of group-lost-\w+/1 is not the one that was archived"):
        segments.extract_group(chunks, ctx.bootstrap, skipping, ctx.storage, "j")


class Cutting(Storage):
    """A storage that keeps one byte less of each file that it is given with others."""

    def upload_all(self, files):
        super().upload_all(files)
        for _, path in files:
            there = Path(str(self.local(path)))
            there.write_bytes(there.read_bytes()[:-1])


def test_a_file_that_is_shorter_than_it_was_written_ends_its_group(ctx):
    table = make_table(ctx, named("group-cut"), 2)
    for partition in range(2):
        produce(ctx.bootstrap, table.topic, [(b"k", b"v")], partition=partition)
    with pytest.raises(Corrupted, match="was uploaded with"):
        segments.extract_group(
            [OffsetRange(0, 0, 1), OffsetRange(1, 0, 1)], ctx.bootstrap, table, Cutting(ctx.storage.url), "j"
        )


def test_many_files_are_kept_as_one_is(tmp_path):
    storage, local = Storage(f"file://{tmp_path}/storage"), tmp_path / "local"
    local.mkdir()
    files = []
    for number in range(40):
        (local / str(number)).write_bytes(b"%d" % number)
        files.append((local / str(number), f"p{number % 3}/{number}"))
    storage.upload_all(files)
    storage.upload_all([])
    assert [storage.read(path) for _, path in files] == [b"%d" % number for number in range(40)]
    assert not list(Path(str(storage.local("p0"))).glob(".*")), "nothing half-written is left"
    with pytest.raises(FileNotFoundError):
        storage.upload_all([(local / "0", "p0/again"), (local / "absent", "p0/absent")])
    assert not list(Path(str(storage.local("p0"))).glob(".*"))


@pytest.mark.parametrize(
    ("costs", "most", "cores", "groups"),
    [
        ([], 9, 0, []),
        ([1] * 8, 9, 0, [1] * 8),  # a task for every core
        ([1] * 256, 99, 0, [32] * 8),
        ([1] * 256, 99, 64, [32] * 8),
        ([1] * 256, 999, 2, [64] * 4),
        ([1] * 256, 99, 1, [99, 99, 58]),
        ([1] * 256, 10, 2, [10] * 25 + [6]),
        ([50, 1, 1, 1] + [50] * 60, 10, 0, [1, 3] + [1] * 60),  # what is large has a task of its own
    ],
)
def test_items_are_grouped_with_their_neighbours(costs, most, cores, groups):
    found = task_groups.grouped(costs, lambda cost: cost, most, cores)
    assert ([len(group) for group in found], task_groups.flattened(found)) == (groups, costs)
