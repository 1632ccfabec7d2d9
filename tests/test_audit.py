import threading
from dataclasses import replace
from pathlib import Path

import pytest
import support_planted
from support_audit import whole
from support_jobs import content, live, write
from support_log import produce, until
from support_wide_log import FAMILIES, write_rows

from batch.cli import audit as cli_audit
from batch.jobs.audit import audit
from batch.jobs.compact import compact
from batch.tasks import compare
from logstore.model.folding.entry import CELLS, Entry
from logstore.model.folding.fold import Folded
from logstore.model.hard_rows.changes.cell_differences import column_name
from logstore.model.hard_rows.packed import pack_row, unpack_row
from logstore.model.hard_rows.row import RowState
from logstore.snapshot.work import SeenValue
from logstore.view import paths
from logstore.view.view import View, ViewIdentity


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with whole(tmp_path_factory.mktemp("audit") / "data") as made:
        yield made


def named(found, kind):
    """(partition, key) of everything that the audit named in suspects of this kind."""
    return {(s.partition, one.key) for s in found.suspects if s.name.startswith(kind) for one in s.guilty}


def wrong_keys(ctx, table, manifest):
    """(partition, key) where the snapshot is not the fold of the log, found in another way."""
    wrong = set()
    for partition, facts in manifest.parts.items():
        expected, held = live(ctx.bootstrap, table, partition, facts.cut), content(ctx, manifest, partition)
        wrong |= {(partition, key) for key in expected.keys() | held.keys() if expected.get(key) != held.get(key)}
    return wrong


def verdicts(found, kind):
    return {suspect.verdict for suspect in found.suspects if suspect.name.startswith(kind)}


def test_log_snapshot_and_views_that_agree_are_said_to(store, monkeypatch):
    table = store.create("agrees")
    ctx = store.context()
    write(ctx.bootstrap, table, 800)
    without = audit(ctx, table)
    assert (without.verdict(), without.snapshot, len(without.suspects)) == ("agree", None, 2)
    manifest = compact(ctx, table).manifest
    store.adopted(table, manifest.name)
    write(ctx.bootstrap, table, 300, seed=2, deletes=0.6)
    found = audit(ctx, table, explain=True)
    assert (found.verdict(), found.problems, named(found, "")) == ("agree", [], set())
    assert [s.verdict for s in found.suspects] == ["agree"] * 4  # a snapshot and a node, two partitions each
    assert {p: entries for p, (_, entries) in found.folded.items()} == {
        p: len(live(ctx.bootstrap, table, p, c)) for p, c in found.cuts.items()
    }
    told = store.batch(monkeypatch, cli_audit.audit, "agrees", status=0)
    assert (told["verdict"], told["snapshot"], told["nodes_compared"]) == ("agree", manifest.name, True)


def test_a_changed_and_a_lost_row_of_a_view_are_named(store, monkeypatch):
    table = store.create("viewed")
    write(store.node.bootstrap, table, 600, deletes=0)
    partition = 1
    changed, lost = sorted(live(store.node.bootstrap, table, partition, audit(store.context(), table).cuts[partition]))[
        5:7
    ]
    store.stop()
    (path,) = [p for p in paths.partition_dir(store.data, table.name, table.epoch, partition).iterdir() if p.is_dir()]
    view = View(path, ViewIdentity(table.name, table.epoch, partition, table.partitions, table.max_value_bytes))
    with view.reader().reading() as reading:
        before = {key: Entry.decode(reading.get(key)) for key in (changed, lost)}
    bad = {
        changed: before[changed]._replace(payload=b"?").encode(),
        lost: before[lost]._replace(kind=1, payload=b"").encode(),
    }
    view.apply(Folded(view.next_offset, view.state.log_time_ms, bad, [], None))
    view.close()
    store.start()
    ctx = store.context()
    found = audit(ctx, table, explain=True)
    assert found.verdict() == "differ"
    assert found.verdict(0) == "agree"
    (suspect,) = [s for s in found.suspects if s.verdict == "differ"]
    version, size = before[changed].version, len(before[changed].payload)
    expected = [
        (changed, (version, size), (version, 1), ()),
        (lost, (before[lost].version, len(before[lost].payload)), None, ()),
    ]
    assert (suspect.partition, suspect.guilty, suspect.counts) == (partition, expected, {"different": 1, "missing": 1})
    told = store.batch(monkeypatch, cli_audit.audit, "viewed", "--explain", status=1)
    keys = [one["key"] for p in told["partitions"] for compared in p["compared"] for one in compared["keys"]]
    assert keys == [changed.decode(), lost.decode()]
    # a snapshot that the log made is not adopted over such a view
    manifest = compact(ctx, table).manifest
    until("partition 0 stands on it", lambda: manifest.name in store.base(table))
    assert None in store.base(table)
    assert verdicts(audit(ctx, table), "snapshot") == {"agree"}


@pytest.mark.parametrize("bug", support_planted.BUGS)
def test_rows_that_a_wrong_fold_put_into_a_snapshot_are_named(store, monkeypatch, bug):
    table = store.create(f"planted-{bug}")
    ctx = store.context()
    write(ctx.bootstrap, table, 300, keys=80)
    compact(ctx, table)
    write(ctx.bootstrap, table, 40, seed=2, keys=80, deletes=0.7)
    manifest = support_planted.run_with(monkeypatch, ctx, bug, lambda: compact(ctx, table)).manifest
    expected = wrong_keys(ctx, table, manifest)
    assert 0 < len(expected) < compare.LISTED
    found = audit(ctx, table, explain=True)
    assert found.verdict() == "differ"
    assert named(found, "snapshot") == expected
    assert sum(sum(s.counts.values()) for s in found.suspects) == len(expected)
    assert verdicts(found, "view") == {"agree"}
    assert found.problems == []  # its files are what was written


def test_a_flipped_bit_in_an_sstable_is_named_by_file(store):
    table = store.create("flipped")
    ctx = store.context()
    write(ctx.bootstrap, table, 300)
    manifest = compact(ctx, table).manifest
    file = manifest.files_of(1)[0]
    path = Path(str(ctx.storage.local(f"{table.topic}/{table.epoch}/snapshots/{file.path}")))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    store.adopted(table, manifest.name)
    path.unlink()  # nodes have links to it
    path.write_bytes(data)
    found = audit(ctx, table, explain=True)
    assert (found.verdict(0), found.verdict(1)) == ("agree", "differ")
    assert any(file.path in problem for problem in found.problems)
    assert verdicts(found, "view") == {"agree"}


def test_rows_are_compared_one_by_one_where_the_topic_takes_no_cut_while_writes_go_on(store):
    ended = threading.Event()
    ctx = store.context()
    table = replace(store.create("uncut"), allow_control_records=False)
    write(ctx.bootstrap, table, 2_500, keys=2_000)

    def go_on():
        seed = 10
        while not ended.is_set():
            write(ctx.bootstrap, table, 50, seed=seed, keys=2_000, deletes=0.5)
            seed += 1

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        silent = audit(ctx, table)
        explained = audit(ctx, table, explain=True)
    finally:
        ended.set()
        writer.join(60)
    assert (silent.verdict(), verdicts(silent, "view")) == ("agree", {"not compared"})
    assert (explained.verdict(), verdicts(explained, "view")) == ("agree", {"agree"})


def test_a_changed_cell_of_a_view_is_named_and_those_that_are_the_same_are_not(store):
    families = [option for name in FAMILIES for option in ("--family", f"{name}:versions=3")]
    table = store.create("wide-viewed", "--wide", *families, "--partitions", "1")
    write_rows(store.node.bootstrap, table, 200)
    found = audit(store.context(), table)
    assert (found.verdict(), verdicts(found, "view")) == ("agree", {"agree"})
    store.stop()
    (path,) = [p for p in paths.partition_dir(store.data, table.name, table.epoch, 0).iterdir() if p.is_dir()]
    view = View(path, ViewIdentity.of(table, 0))
    with view.reader().reading() as reading:
        rows = {key: Entry.decode(raw) for key, raw in reading.scan()}
    key, entry = next((key, one) for key, one in rows.items() if one.kind == CELLS)
    row = unpack_row(entry)
    column, cell = next(iter(row.cells.items()))
    newest = cell.members[0]
    cells = {**row.cells, column: cell._replace(members=(newest._replace(payload=b"not in the log"),))}
    wrong = pack_row(RowState(cells, row.versions), entry.version, entry.timestamp_ms, wide=True).encode()
    view.apply(Folded(view.next_offset, view.state.log_time_ms, {key: wrong}, [], None))
    view.close()
    store.start()
    (suspect,) = [one for one in audit(store.context(), table, explain=True).suspects if one.verdict == "differ"]
    assert [(one.key, one.cells) for one in suspect.guilty] == [
        (key, ((column_name(column), (newest.version, len(newest.payload)), (newest.version, 14)),))
    ]


def test_a_node_that_does_not_answer_in_time_leaves_the_verdict_open(store, monkeypatch):
    table = store.create("silent")
    ctx = store.context()
    produce(ctx.bootstrap, table.topic, [(b"k", b"v")])
    monkeypatch.setattr("batch.jobs.node_digests.adoptions_at", lambda url, table: {})
    found = audit(ctx, table, timeout_s=0.5)
    assert found.verdict() == "unknown"
    assert {s.reason for s in found.suspects} == {"no node of group default serves it"}


def test_what_two_sorted_lists_do_not_share_is_missing_extra_or_different():
    def cells(**rows):
        return [(key.encode(), SeenValue(version, 1), value) for key, (version, value) in sorted(rows.items())]

    expected = cells(a=(1, b"x"), b=(2, b"x"), d=(4, b"x"), e=(5, b"x"))
    found = cells(b=(2, b"x"), c=(3, b"x"), d=(4, b"y"), e=(6, b"x"), z=(9, b"x"))
    tally = compare.Tally(lambda key: key == b"z")
    tally.take(compare.differences(expected, found))
    assert tally.counts == {"missing": 1, "extra": 1, "different": 2}
    assert tally.listed[:2] == [(b"a", (1, 1), None, ()), (b"c", None, (3, 1), ())]
    assert cli_audit._line("a", tally.listed[0]) == "'a': expected version 1 of 1 bytes, found nothing"
