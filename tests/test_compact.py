import os
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
from support_log import produce
from support_spark import content, context, digests, folded, live, make_table, write

from batch import failpoints
from batch.jobs.compact import compact, rebuild
from logstore.client.store import Store
from logstore.log.kafka.records import read_records
from logstore.model.errors import Corrupted, Unsupported
from logstore.model.partitioner import partition_of


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


def test_a_flipped_bit_in_the_snapshot_before_is_seen_before_it_is_folded_on(ctx):
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
        compact(ctx, table)
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
