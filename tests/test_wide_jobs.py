"""Batch jobs on tables of wide rows and siblings: what they make of them is what the lane makes, whatever runs them."""

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgpack
import pytest
import support_spark
from support_conditional_log import facts, lane_facts, lane_reading
from support_jobs import content, context, ends, make_table, token
from support_log import produce, until
from support_wide_log import sibling_fields, wide_fields, write_rows
from test_conditional_jobs import sound

from batch.cli import audit as cli_audit
from batch.cli import diff as cli_diff
from batch.jobs.audit import AGREE, DIFFER, audit
from batch.jobs.compact import compact, rebuild
from batch.jobs.diff import diff
from batch.jobs.restore import restore
from batch.jobs.trim import trim
from batch.tasks.sst_files import SstTarget
from batch.tasks.sst_output import SstOutput
from logstore.model.folding.difference import ended
from logstore.model.folding.digest import TOMBSTONES, Digest
from logstore.model.folding.entry import Entry
from logstore.model.hard_rows.packed import pack_row, unpack_row
from logstore.model.hard_rows.row import CellState, RowState

KINDS = {"wide": wide_fields, "siblings": sibling_fields}


@pytest.fixture
def ctx(kafka, tmp_path):
    return context(kafka.bootstrap, tmp_path)


def without_time(by_partition):
    """Facts but for the log time, which a later cut has moved."""
    return {partition: one[:3] for partition, one in by_partition.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_lane_local_engine_and_spark_come_to_the_same_rows(ctx, tmp_path, kind):
    more = {"multi_row": True} if kind == "wide" else {}
    table = make_table(ctx, f"{kind}-engines", 2, **KINDS[kind](**more))
    write_rows(ctx.bootstrap, table, 500)
    made = rebuild(ctx, table).manifest
    assert sound(ctx, table, made) == lane_facts(ctx.bootstrap, table, made, tmp_path / "lane")
    assert all(part.decisions and part.entries and part.counter for part in made.parts.values())
    ctx.engines = support_spark.context(ctx.bootstrap, tmp_path).engines
    again = rebuild(ctx, table).manifest
    assert sound(ctx, table, again) == lane_facts(ctx.bootstrap, table, again, tmp_path / "lane-again")
    assert without_time(facts(again)) == without_time(facts(made))


@pytest.mark.parametrize(("kind", "merge_share"), [("wide", 0.0), ("wide", 10.0)])
def test_a_compaction_upon_another_gives_what_a_rebuild_gives(ctx, tmp_path, kind, merge_share):
    table = make_table(ctx, f"{kind}-compact-{merge_share:g}", 2, **KINDS[kind](merge_share=merge_share))
    levels = []
    for seed in range(1, 6):
        write_rows(ctx.bootstrap, table, 100, seed=seed)
        made = compact(ctx, table).manifest
        assert sound(ctx, table, made) == lane_facts(ctx.bootstrap, table, made, tmp_path / f"lane-{seed}")
        levels.append(max(file.level for file in made.files_of(0)))
    assert levels == ([0] * 5 if merge_share == 0 else [0, 1, 2, 3, 1])
    rebuilt = rebuild(ctx, table).manifest
    assert without_time(facts(rebuilt)) == without_time(facts(made))
    judged = [one for one in audit(ctx, table, timeout_s=0).suspects if one.name.startswith("snapshot")]
    assert {one.verdict for one in judged} == {AGREE}


def lane_rows(ctx, table, offsets, folder):
    """Rows as the lane has them at these offsets, by key."""
    found = {}
    for partition, cut in offsets.items():
        with lane_reading(ctx.bootstrap, table, partition, cut, folder / str(partition)) as reading:
            scanned = ended(reading.scan(), reading.state.log_time_ms) if table.expiring else reading.scan()
            found |= {key: unpack_row(Entry.decode(raw)) for key, raw in scanned if raw[0] not in TOMBSTONES}
    return found


def values(row):
    """Newest values of a row's cells."""
    return {column: [one.payload for one in cell.members] for column, cell in row.cells.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_fork_has_the_rows_at_offset_0_and_goes_on(ctx, tmp_path, kind):
    source = make_table(ctx, f"{kind}-source", 2, **KINDS[kind]())
    write_rows(ctx.bootstrap, source, 150)
    compact(ctx, source)
    write_rows(ctx.bootstrap, source, 60, seed=2)
    offsets = ends(ctx, source)
    write_rows(ctx.bootstrap, source, 60, seed=3)
    wanted = lane_rows(ctx, source, offsets, tmp_path / "source")
    fork = restore(ctx, source.name, token(source, offsets), f"{kind}-fork").table
    assert (fork.wide, fork.families, fork.siblings) == (source.wide, source.families, source.siblings)
    compared = diff(ctx, f"{source.name}@{token(source, offsets)}", fork.name)
    assert compared.counts == {"same": len(wanted), "only_left": 0, "only_right": 0, "different": 0}
    write_rows(ctx.bootstrap, fork, 80, seed=4)
    first = sound(ctx, fork, compact(ctx, fork).manifest)
    again = sound(ctx, fork, rebuild(ctx, fork).manifest)
    assert without_time(again) == without_time(first)
    judged = [one for one in audit(ctx, fork, timeout_s=0).suspects if one.name.startswith("snapshot")]
    assert {one.verdict for one in judged} == {AGREE}


def test_a_trimmed_log_loses_no_older_version(ctx, tmp_path):
    table = make_table(ctx, "wide-trim", 2, **wide_fields())
    for seed in range(2):
        write_rows(ctx.bootstrap, table, 150, seed=seed)
        manifest = compact(ctx, table).manifest
    before = lane_facts(ctx.bootstrap, table, manifest, tmp_path / "lane")
    audit(ctx, table, timeout_s=0)
    assert trim(ctx, table, yes=True).done
    assert sound(ctx, table, manifest) == before
    write_rows(ctx.bootstrap, table, 60, seed=7)
    after = compact(ctx, table).manifest
    assert without_time(facts(rebuild(ctx, table).manifest)) == without_time(sound(ctx, table, after))


def edit(ctx, table, key, *edits):
    produce(ctx.bootstrap, table.topic, [(key, msgpack.packb(edits))], headers=[("ls.op", b"edit")])


def test_diff_names_the_cells_whose_values_differ(ctx, capsys):
    table = make_table(ctx, "wide-diff", 1, **wide_fields())
    edit(ctx, table, b"same", ["set", "content", "q", "1"])
    edit(ctx, table, b"k", ["set", "content", "q", "1"], ["set", "content", b"\xff", "1"], ["set", "anchor", "q", "1"])
    at = token(table, ends(ctx, table))
    edit(ctx, table, b"same", ["set", "content", "q", "1"])
    edit(ctx, table, b"k", ["set", "content", b"\xff", "2"], ["del", "anchor", "q"], ["set", "anchor", "r", "1"])
    found = diff(ctx, f"{table.name}@{at}", table.name)
    assert found.counts == {"same": 1, "only_left": 0, "only_right": 0, "different": 1}, "versions do not count"
    assert found.keys == [("different", b"k", ("anchor:q", "anchor:r", "content:\\xff"))]
    assert found.document()["keys"] == [{"kind": "different", "key": "k", "cells": found.keys[0].cells}]
    cli_diff._show(found, "then", "now")
    assert "different values: anchor:q, anchor:r, content:\\xff" in capsys.readouterr().out


def forged(ctx, manifest, change):
    """The same snapshot again, current, but for what `change` makes of the rows of partition 0."""
    table, repository = ctx.table(manifest.table), ctx.repository(ctx.table(manifest.table))
    name, part = f"{int(manifest.name[:14]) + 1:014d}-00000000", manifest.parts[0]
    rows = [(key, change(key, raw)) for key, raw in sorted(content(ctx, manifest, 0).items())]
    with TemporaryDirectory() as folder:
        made, total = SstOutput(table, 0, SstTarget(ctx.storage, repository.root, name), Path(folder)).base(rows)
    decided = Digest.from_hex(part.digest, part.entries).minus(part.rows)
    changed = part._replace(digest=total.plus(decided).hex, rows_digest=total.hex)
    files = [file for file in manifest.files if file.partition or file.kind] + made
    wrong = replace(manifest, name=name, parent=manifest.name, parts=manifest.parts | {0: changed}, files=files)
    repository.publish(wrong)
    repository.move(repository.current(), name, "test")
    assert repository.verify(name) == []
    return wrong


def test_an_audit_finds_a_forged_cell_and_names_it(ctx, capsys):
    table = make_table(ctx, "wide-forged", 1, **wide_fields())
    edit(ctx, table, b"a", ["set", "content", "q", "old"])
    edit(ctx, table, b"a", ["set", "content", "q", "new"], ["set", "anchor", "r", "1"])
    edit(ctx, table, b"b", ["incr", "count", "hits", 5])
    manifest = compact(ctx, table).manifest

    def other(key, raw):
        entry = Entry.decode(raw)
        row = unpack_row(entry)
        if key == b"b":
            return raw
        newest, column = row.cells["content", b"q"].members[0], ("content", b"q")
        cells = {**row.cells, column: CellState(1, (newest,), ()), ("anchor", b"s"): row.cells["anchor", b"r"]}
        return pack_row(RowState(cells, row.versions), 1, entry.timestamp_ms, wide=True).encode()

    wrong = forged(ctx, manifest, other)
    found = audit(ctx, table, explain=True, timeout_s=0)
    (suspect,) = [one for one in found.suspects if one.verdict == DIFFER]
    assert (suspect.name, suspect.counts) == (f"snapshot {wrong.name}", {"different": 1})
    assert suspect.guilty[0].cells == (
        ("anchor:s", None, (1, 1)),
        ("content:q", (0, 3), None),
    ), "a version that is missing behind the newest one counts"
    cli_audit._tell(found)
    said = capsys.readouterr().out
    assert "  'a': expected version 1 of " in said
    assert "    'anchor:s': expected nothing, found version 1 of 1 bytes" in said
    (one,) = [one for p in cli_audit.document(found)["partitions"] for s in p["compared"] for one in s["keys"]]
    assert one["cells"][0] == {"cell": "anchor:s", "expected": None, "found": {"version": 1, "bytes": 1}}


def now_ms():
    return time.time_ns() // 1_000_000


def barriers(ctx, table):
    """Log time goes on, and no row is written."""
    for partition in range(table.partitions):
        produce(ctx.bootstrap, table.topic, [(None, b"\x80")], partition=partition, headers=[("ls.op", b"barrier")])


@pytest.mark.parametrize(("kind", "merge_share"), [("wide", 10.0), ("siblings", 10.0)])
def test_what_ended_in_a_row_between_two_compactions_is_in_none_of_their_levels(ctx, tmp_path, kind, merge_share):
    table = make_table(ctx, f"{kind}-ends-{merge_share:g}", 2, **KINDS[kind](expiring=True, merge_share=merge_share))
    for seed in range(1, 4):
        write_rows(ctx.bootstrap, table, 100, seed=seed)
        made = compact(ctx, table).manifest
        assert sound(ctx, table, made) == lane_facts(ctx.bootstrap, table, made, tmp_path / f"lane-{seed}")
    living, ttl_s = living_beside_one_that_stays(ctx, table)
    until("its end has come", lambda: now_ms() > living.created_ms + ttl_s * 1_000, 2 * ttl_s + 60)
    barriers(ctx, table)
    later = compact(ctx, table).manifest
    assert sound(ctx, table, later) == lane_facts(ctx.bootstrap, table, later, tmp_path / "lane-later")
    assert [len(one) for one in (values_of(ctx, living), values_of(ctx, later))] == [2, 1]
    rebuilt = rebuild(ctx, table).manifest
    assert without_time(facts(rebuilt)) == without_time(facts(later))
    judged = [one for one in audit(ctx, table, timeout_s=0).suspects if one.name.startswith("snapshot")]
    assert {one.verdict for one in judged} == {AGREE}


def living_beside_one_that_stays(ctx, table):
    """A snapshot in which a row has a value that ends and one that stays, and the TTL of the former."""
    for ttl_s in (4, 16, 64):  # until the value lives at a cut, however slow the machine is, and ends behind it
        sent_ms, ttl = now_ms(), ("ls.ttl", (ttl_s * 1_000).to_bytes(8))
        if table.wide:
            edit(ctx, table, b"ends", ["set", "content", "ends", "v", ttl_s * 1_000], ["set", "content", "stays", "v"])
        else:
            produce(ctx.bootstrap, table.topic, [(b"ends", b"ends")], headers=[ttl])
            produce(ctx.bootstrap, table.topic, [(b"ends", b"stays")], headers=[("ls.seen", b"-1")])
        made = compact(ctx, table).manifest
        if now_ms() < sent_ms + ttl_s * 1_000:
            return made, ttl_s
    pytest.fail("no compaction was done while the value lived")


def values_of(ctx, manifest):
    """Values of the row `ends` in a snapshot's files."""
    found = {key: raw for partition in manifest.parts for key, raw in content(ctx, manifest, partition).items()}
    return [one for cell in unpack_row(Entry.decode(found[b"ends"])).cells.values() for one in cell.members]


@pytest.mark.parametrize("kind", KINDS)
def test_values_in_a_fork_live_on_as_much_longer(ctx, kind):
    source = make_table(ctx, f"{kind}-lives", 1, **KINDS[kind](expiring=True))
    headers = [("ls.ttl", (3_600_000).to_bytes(8)), *([("ls.op", b"edit")] if kind == "wide" else [])]
    value = msgpack.packb([["set", "content", "q", b"v"]]) if kind == "wide" else b"v"
    for _ in range(2):
        headers = [*headers, *([("ls.seen", b"-1")] if kind == "siblings" and len(headers) == 1 else [])]
        produce(ctx.bootstrap, source.topic, [(b"ends", value)], headers=headers)
    before = compact(ctx, source).manifest
    made = restore(ctx, source.name, token(source, ends(ctx, source)), f"{kind}-lives-on").manifest
    later_ms = made.created_ms - made.parts[0].log_time_ms  # that of the source at the position
    wanted = [one._replace(version=0, expires_ms=one.expires_ms + later_ms) for one in values_of(ctx, before)]
    assert values_of(ctx, made) == wanted
    assert len(wanted) == (1 if kind == "wide" else 2)
    assert later_ms > 0
