import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
from support_jobs import content, context, digests, ends, folded, live, make_table, write
from support_log import produce

from batch import failpoints
from batch.jobs.compact import compact, rebuild
from benchmarks.far_storage import CountingStorage
from logstore.client.store import Store
from logstore.log.control import append_control
from logstore.log.kafka.records import read_records
from logstore.model.errors import Corrupted, JobRunning, Unsupported
from logstore.model.partitioner import partition_of
from logstore.snapshot.storage import Storage


@pytest.fixture
def ctx(kafka, tmp_path):
    return context(kafka.bootstrap, tmp_path / "Münch a::b#%41")  # a path that is also a URL, a chain and a pattern


def check(ctx, table, manifest):
    """The snapshot is, byte for byte, the fold of the log below its cut."""
    for partition, facts in manifest.parts.items():
        expected = live(ctx.bootstrap, table, partition, facts.cut)
        assert content(ctx, manifest, partition) == expected
        truth = folded(ctx.bootstrap, table, partition, facts.cut)
        assert (facts.entries, facts.log_time_ms) == (len(expected), truth.log_time_ms)
        assert [tuple(record) for record in facts.quarantine_records] == truth.quarantined[-1_000:]
    assert ctx.repository(table).verify(manifest.name) == []


def test_a_snapshot_is_the_fold_of_the_log_and_goes_on_from_the_one_before(ctx):
    table = make_table(ctx, "comp-basic", 3)
    write(ctx.bootstrap, table, 2_000)
    first = compact(ctx, table).manifest
    check(ctx, table, first)
    assert first.parent is None
    write(ctx.bootstrap, table, 500, seed=2, deletes=0.5)
    second = compact(ctx, table)
    assert (second.manifest.parent, second.records) == (first.name, 503)  # and a cut record in each partition
    check(ctx, table, second.manifest)
    again = rebuild(ctx, table).manifest
    assert digests(again) == digests(second.manifest)
    check(ctx, table, again)
    current = ctx.repository(table).current()
    assert current is not None
    assert current.name == again.name


def test_what_has_changed_becomes_a_delta_and_a_full_compaction_merges_it(ctx):
    table = make_table(ctx, "comp-levels", 2)
    write(ctx.bootstrap, table, 4_000, keys=2_000)
    first = compact(ctx, table).manifest
    for seed in range(2, 7):
        write(ctx.bootstrap, table, 30, keys=2_000, seed=seed, deletes=0.4)
        done = compact(ctx, table).manifest
        check(ctx, table, done)
        assert [file for file in done.files if not file.level] == first.files, "the base is linked"
        assert {file.level for file in done.files} <= {0, 1, 2, 3}
    full = compact(ctx, table, full=True).manifest
    check(ctx, table, full)
    assert {file.level for file in full.files} == {0}
    assert digests(full) == digests(done) == digests(rebuild(ctx, table).manifest)


def test_the_cut_is_a_record_of_the_log(ctx):
    table = make_table(ctx, "comp-cut", 2)
    write(ctx.bootstrap, table, 50)
    manifest = compact(ctx, table).manifest
    for partition, facts in manifest.parts.items():
        (record,) = read_records(ctx.bootstrap, table.topic, partition, facts.cut, facts.cut + 1)
        assert (record.key(), record.headers()) == (None, [("ls.op", b"cut")])
        assert msgpack.unpackb(record.value()) == {"job": manifest.job, "table": table.name}


def test_partitions_where_nothing_changed_keep_their_files(ctx):
    table = make_table(ctx, "comp-link", 2)
    write(ctx.bootstrap, table, 400)
    first = compact(ctx, table).manifest
    here = next(b"n%d" % n for n in range(99) if partition_of(b"n%d" % n, 2) == 1)
    produce(ctx.bootstrap, table.topic, [(here, b"new")])
    produce(ctx.bootstrap, table.topic, [(None, b"nobody's"), (here, b"elsewhere")], partition=0)
    done = compact(ctx, table)
    assert done.linked == 1
    assert done.manifest.files_of(0) == first.files_of(0)
    assert done.manifest.files_of(1) != first.files_of(1)
    assert done.manifest.parts[0].cut > first.parts[0].cut
    assert done.manifest.parts[0].quarantine_counts == {"null-key": 1, "wrong-partition": 1}
    check(ctx, table, done.manifest)
    assert digests(rebuild(ctx, table).manifest) == digests(done.manifest)


def tree(ctx, table):
    """Every file of the table's storage, the lease's too, and when it was written."""
    root = Path(str(ctx.storage.local(f"{table.topic}/{table.epoch}")))
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in files}


@pytest.mark.parametrize("controls", [True, False])
def test_nothing_new_is_the_current_snapshot_and_no_file_and_no_record_is_written(ctx, controls):
    table = make_table(ctx, f"comp-idle-{controls}", 3, allow_control_records=controls)
    produce(ctx.bootstrap, table.topic, [(b"a", b"1"), (b"b", b"2")])  # a partition has nothing at all
    first = compact(ctx, table)
    second = compact(ctx, table)  # the first of a line has a successor in any case, for `trim`
    assert (first.unchanged, second.unchanged, second.manifest.parent) == (False, False, first.manifest.name)
    check(ctx, table, second.manifest)
    before, at = tree(ctx, table), ends(ctx, table)
    third = compact(ctx, table)
    assert (third.unchanged, third.manifest, third.linked) == (True, second.manifest, 3)
    assert (tree(ctx, table), ends(ctx, table)) == (before, at)
    with ctx.repository(table).lease("other", "restore"):
        assert compact(ctx, table).unchanged, "what needs no job waits for none"
        produce(ctx.bootstrap, table.topic, [(b"a", b"2")])
        with pytest.raises(JobRunning):
            compact(ctx, table)
    assert not compact(ctx, table).unchanged
    if controls:
        append_control(ctx.bootstrap, table, "cut", {"job": "j", "table": table.name})  # as an audit does
        audited = compact(ctx, table)
        assert (audited.unchanged, audited.linked) == (False, 3)
        assert compact(ctx, table).unchanged
        append_control(ctx.bootstrap, table, "fence", {"table": table.name})  # that is no cut
        assert not compact(ctx, table).unchanged


class Asked(Storage):
    """A storage that counts what the driver asks of it; its tasks have copies of their own."""

    def __init__(self, url):
        super().__init__(url)
        self.asked = Counter()

    def read(self, path):
        self.asked["read", path] += 1
        return super().read(path)

    def size(self, path):
        self.asked["size", path] += 1
        return super().size(path)

    def __reduce__(self):
        return Storage, (self.url,)


def test_the_driver_reads_what_is_archived_once_and_looks_at_no_file_that_is_kept(ctx):
    table = make_table(ctx, "comp-asked", 6)
    for seed in range(3):
        write(ctx.bootstrap, table, 60, seed=seed)
        compact(ctx, table)
    produce(ctx.bootstrap, table.topic, [(b"one", b"1")])
    ctx.storage = Asked(ctx.storage.url)
    done = compact(ctx, table)
    assert (done.linked, len(done.manifest.files) > 6) == (5, True)
    asked = ctx.storage.asked
    archived = {path: count for (what, path), count in asked.items() if what == "read" and "/archive/" in path}
    assert len(archived) >= 3
    assert set(archived.values()) == {1}
    root = f"{table.topic}/{table.epoch}/snapshots"
    assert {path for what, path in asked if what == "size"} & {f"{root}/{f.path}" for f in done.manifest.files} == set()
    check(ctx, table, done.manifest)


@pytest.mark.parametrize("wrong", ["lost", "short"])
@pytest.mark.parametrize("partition", [0, 1])  # which gets something new, and which does not
def test_a_file_that_is_kept_and_not_as_it_was_ends_the_job(ctx, wrong, partition):
    table = make_table(ctx, f"comp-kept-{partition}-{wrong}", 2)
    write(ctx.bootstrap, table, 100)
    first = compact(ctx, table).manifest
    (file,) = first.files_of(partition)
    path = Path(str(ctx.storage.local(f"{table.topic}/{table.epoch}/snapshots/{file.path}")))
    path.unlink() if wrong == "lost" else path.write_bytes(path.read_bytes()[:-1])
    produce(ctx.bootstrap, table.topic, [(next(k for k in keys() if partition_of(k, 2) == 0), b"new")])
    with pytest.raises(Corrupted, match=file.path):
        compact(ctx, table)
    current = ctx.repository(table).current()
    assert current is not None
    assert current.name == first.name


def keys():
    return (b"n%d" % n for n in range(99))


def test_a_partition_to_which_only_cuts_came_is_neither_archived_nor_folded(ctx):
    table = make_table(ctx, "comp-cuts", 2)
    write(ctx.bootstrap, table, 200)
    first = compact(ctx, table).manifest
    key = next(b"n%d" % n for n in range(99) if partition_of(b"n%d" % n, 2) == 1)
    for value in (b"1", b"2"):
        produce(ctx.bootstrap, table.topic, [(key, value)])
        done = compact(ctx, table)
        assert (done.linked, done.records) == (1, 3)  # the cut before in each, and the one put
        check(ctx, table, done.manifest)
    assert done.manifest.files_of(0) == first.files_of(0)
    archived = ctx.archive(table).next_offsets()
    assert archived == {0: first.parts[0].cut, 1: done.manifest.parts[1].cut}
    assert done.manifest.parts[0].cut == first.parts[0].cut + 2
    again = rebuild(ctx, table).manifest  # archives the rest
    assert digests(again) == digests(done.manifest)
    assert ctx.archive(table).next_offsets() == {p: part.cut for p, part in again.parts.items()}


def test_files_that_are_kept_are_looked_at_and_read_where_that_is_asked_for(ctx):
    table = make_table(ctx, "comp-kept", 1)
    write(ctx.bootstrap, table, 300)
    first = compact(ctx, table).manifest
    path = Path(str(ctx.storage.local(f"{table.topic}/{table.epoch}/snapshots/{first.files[0].path}")))
    sound = path.read_bytes()
    path.unlink()
    path.write_bytes(sound[:-9] + bytes(9))
    assert compact(ctx, table).linked == 1  # a file of the right size
    with pytest.raises(Corrupted, match=path.name):
        compact(ctx, table, verify_all=True)
    compact(ctx, table)
    produce(ctx.bootstrap, table.topic, [(b"", b"quarantined")])
    for harm in (lambda: path.write_bytes(sound[:-1]), path.unlink):
        harm()
        with pytest.raises(Corrupted, match=path.name):
            compact(ctx, table)


def test_a_row_that_was_deleted_does_not_come_back_and_an_empty_table_is_a_snapshot(ctx):
    table = make_table(ctx, "comp-empty", 2)
    empty = compact(ctx, table).manifest
    assert (empty.files, [part.entries for part in empty.parts.values()]) == ([], [0, 0])
    produce(ctx.bootstrap, table.topic, [(b"k%d" % n, b"v") for n in range(30)])
    compact(ctx, table)
    produce(ctx.bootstrap, table.topic, [(b"k%d" % n, None) for n in range(30)])
    gone = compact(ctx, table).manifest
    assert (gone.files, [part.entries for part in gone.parts.values()]) == ([], [0, 0])
    assert digests(gone) == digests(empty) == digests(rebuild(ctx, table).manifest)


def test_a_record_of_a_later_build_ends_the_job_unless_a_repair_gave_it_up(ctx):
    table = make_table(ctx, "comp-later", 1)
    produce(ctx.bootstrap, table.topic, [(b"a", b"1")])
    produce(ctx.bootstrap, table.topic, [(b"a", b"2")], headers=[("ls.v", b"\x02")])
    with pytest.raises(Unsupported, match="offset 1 of comp-later/0"):
        compact(ctx, table)
    assert ctx.repository(table).current() is None
    manifest = compact(ctx, replace(table, skips={0: [(1, 1)]})).manifest
    assert [entry[17:] for entry in content(ctx, manifest, 0).values()] == [b"1"]


def test_a_topic_without_control_records_is_cut_at_its_end(ctx):
    table = make_table(ctx, "comp-adopted", 2, adopted=True, allow_control_records=False)
    write(ctx.bootstrap, table, 300)
    manifest = compact(ctx, table).manifest
    assert sum(part.cut for part in manifest.parts.values()) == 300
    check(ctx, table, manifest)


def test_values_of_the_maximum_go_through_in_one_batch_each(ctx):
    table = make_table(ctx, "comp-large", 1, max_value_bytes=8 << 20)
    values = [os.urandom(8 << 20) for _ in range(4)]
    with Store(ctx.bootstrap) as store:
        for n, value in enumerate(values):
            store.put(table.name, b"k%d" % (n % 3), value)
    manifest = compact(ctx, table).manifest
    assert {k: e[17:] for k, e in content(ctx, manifest, 0).items()} == {
        b"k0": values[3],
        b"k1": values[1],
        b"k2": values[2],
    }


def test_only_so_many_snapshots_are_kept(ctx, monkeypatch):
    monkeypatch.setattr("logstore.snapshot.repository._YOUNG_MS", -60_000)  # as if an hour had passed
    table = make_table(ctx, "comp-keep", 1, keep_snapshots=2)
    names = []
    for n in range(4):
        produce(ctx.bootstrap, table.topic, [(b"k", b"%d" % n)])
        names.append(compact(ctx, table).manifest.name)
    assert ctx.repository(table).names() == names[-2:]
    assert ctx.repository(table).verify(names[-1]) == []


def test_a_flipped_bit_in_the_snapshot_before_is_seen_before_it_is_merged(ctx):
    table = make_table(ctx, "comp-flip", 1)
    write(ctx.bootstrap, table, 300)
    first = compact(ctx, table).manifest
    path = Path(str(ctx.storage.local(f"{table.topic}/{table.epoch}/snapshots/{first.files[0].path}")))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.unlink()
    path.write_bytes(data)
    write(ctx.bootstrap, table, 10, seed=2)
    with pytest.raises(Corrupted, match=path.name):
        compact(ctx, table, full=True)
    assert any(first.files[0].path in problem for problem in ctx.repository(table).verify(first.name))
    current = ctx.repository(table).current()
    assert current is not None
    assert current.name == first.name


@pytest.mark.parametrize("consent", [None, "", failpoints.CONSENT.strip(), failpoints.CONSENT.encode() + b"\xff"])
def test_a_variable_alone_arms_no_failpoint(tmp_path, monkeypatch, capsys, consent):
    monkeypatch.setenv("LOGSTORE_TEST_CRASH", "compact:1")
    failpoints.crash("compact:1")
    monkeypatch.setenv("LOGSTORE_TEST_CRASH_DIR", str(tmp_path))
    if consent is not None:
        (tmp_path / "may-crash").write_bytes(consent if isinstance(consent, bytes) else consent.encode())
    failpoints.crash("compact:1")
    failpoints.warn()
    assert (failpoints.armed(), capsys.readouterr().err) == ([], "")
    (tmp_path / "may-crash").write_text(failpoints.CONSENT)
    failpoints.crash("compact:2")  # armed, another point
    failpoints.warn()
    assert failpoints.armed() == ["compact:1"]
    assert "failpoints are armed" in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_compaction_asks_of_the_storage_is_the_same_for_few_partitions_and_many(ctx):
    """The driver's own questions: tasks ask for their files, and what is collected goes at once."""
    asked = {}
    for partitions in (2, 12):
        table = make_table(ctx, f"cmp-asked-{partitions}", partitions)
        for number in range(6):  # the first snapshots are collected by the last runs
            write(ctx.bootstrap, table, 300, seed=number)
            counting = replace(ctx, storage=CountingStorage(ctx.storage.url), lease_s=600)  # not renewed meanwhile
            done = compact(counting, table)
            assert not done.unchanged
            asked[partitions, number] = counting.storage.asked
        assert done.removed == 1
        counting.storage.asked = 0
        assert compact(counting, table).unchanged
        assert counting.storage.asked <= 30
    assert asked[12, 5] == asked[2, 5] <= 110


def test_what_a_compaction_asks_of_the_storage_is_bounded_whatever_the_runs_and_partitions(ctx):
    """Lists, reads and writes of the driver: tasks ask for their own files."""
    asked = {}
    for partitions in (1, 9):
        table = make_table(ctx, f"comp-asked-{partitions}", partitions, keep_snapshots=2)
        for number in range(7):
            write(ctx.bootstrap, table, 90, seed=number)
            ctx.storage = storage = CountingStorage(ctx.storage.url)
            storage.asked = 0
            assert compact(ctx, table).records >= 90
            asked[partitions, number] = storage.asked
    assert max(asked.values()) < 50
    assert asked[9, 6] - asked[9, 4] <= 3  # a manifest of the archive for each run since its checkpoint
