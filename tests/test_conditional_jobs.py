"""Batch jobs on conditional tables: what they make of them is what the lane makes, whatever runs them."""

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import support_spark
from support_conditional_log import facts, lane_facts, lane_reading, write_hard
from support_jobs import context, ends, make_table, token
from support_log import produce, until
from support_snapshot import judge

from batch.datasource import plan
from batch.datasource.key_filter import Keys
from batch.datasource.source import TableReader
from batch.jobs.audit import AGREE, DIFFER, audit
from batch.jobs.compact import compact, rebuild
from batch.jobs.diff import diff
from batch.jobs.restore import restore
from batch.jobs.trim import trim
from logstore.model.errors import Unsupported
from logstore.model.folding.difference import ended
from logstore.model.folding.digest import Digest
from logstore.model.folding.entry import VALUE, Entry
from logstore.model.hard_rows.decisions import decisions_digest
from logstore.snapshot import decisions


@pytest.fixture
def ctx(kafka, tmp_path):
    return context(kafka.bootstrap, tmp_path)


def test_changes_of_a_conditional_table_are_refused_before_anything_is_read(ctx):
    table = make_table(ctx, "conditional-changes", 1, conditional=True)
    planner = plan.Planner(plan.find(ctx.bootstrap, table.name, ctx.storage.url))
    with pytest.raises(Unsupported, match="what a record did there is not in the record"):
        planner.changes(plan.EARLIEST, plan.LATEST, Keys())


def test_an_audit_proves_what_the_log_says_and_finds_an_outcome_that_it_does_not(ctx):
    table = make_table(ctx, "conditional-audit", 2, conditional=True, dedup_records=60)
    manifests = []
    for seed in range(3):
        write_hard(ctx.bootstrap, table, 150, seed=seed)
        manifests.append(compact(ctx, table).manifest)
    found = audit(ctx, table, timeout_s=0)
    judged = [one for one in found.suspects if one.name.startswith("snapshot")]
    assert {one.verdict for one in judged} == {AGREE}
    assert {one.name for one in judged} == {f"snapshot {one.name}" for one in manifests}
    verdicts = ctx.repository(table).verdicts()
    assert all(verdicts.lacking(one) == [] for one in manifests)
    wrong = forged(ctx, manifests[-1])
    found = audit(ctx, table, explain=True, timeout_s=0)
    judged = {(one.name, one.partition): one.verdict for one in found.suspects if one.name.startswith("snapshot")}
    assert judged.pop((f"snapshot {wrong.name}", 0)) == DIFFER
    assert set(judged.values()) == {AGREE}


def forged(ctx, manifest):
    """The same snapshot again, current, but for one outcome of partition 0 that is missing in it."""
    repository, name = ctx.repository(ctx.table(manifest.table)), f"{int(manifest.name[:14]) + 1:014d}-00000000"
    file, part = manifest.decisions_of(0), manifest.parts[0]
    with TemporaryDirectory() as folder:
        with decisions.stored(Path(ctx.storage.local(repository.file_path(file.path)))) as items:
            left = list(items)[:-1]
        facts = decisions.write(Path(folder, "d.sst"), left, compression="none")
        made = file._replace(
            path=f"{name}/p00000-decisions.sst", entries=facts.entries, size_bytes=facts.size_bytes,
            last_key=facts.last_key, checksum=facts.checksum,
        )  # fmt: skip
        ctx.storage.upload(Path(folder, "d.sst"), repository.file_path(made.path))
    digest = part.rows.plus(Digest(decisions_digest(left).value)).hex
    parts = manifest.parts | {0: part._replace(digest=digest, decisions=part.decisions - 1)}
    files = [made if one == file else one for one in manifest.files]
    forged = replace(manifest, name=name, parent=manifest.name, parts=parts, files=files)
    repository.publish(forged)
    repository.move(repository.current(), name, "test")
    assert repository.verify(name) == []
    return forged


def test_a_trimmed_log_loses_no_outcome(ctx, tmp_path):
    table = make_table(ctx, "conditional-trim", 2, conditional=True)
    for seed in range(2):
        write_hard(ctx.bootstrap, table, 200, seed=seed)
        manifest = compact(ctx, table).manifest
    before = lane_facts(ctx.bootstrap, table, manifest, tmp_path / "lane")
    audit(ctx, table, timeout_s=0)
    trimmed = trim(ctx, table, yes=True)
    assert trimmed.done
    assert trimmed.below == {partition: part.cut for partition, part in manifest.parts.items()}
    assert sound(ctx, table, manifest) == before
    write_hard(ctx.bootstrap, table, 100, seed=7)
    after = compact(ctx, table).manifest
    again = rebuild(ctx, table).manifest
    assert {p: one[:3] for p, one in sound(ctx, table, after).items()} == {
        p: one[:3] for p, one in sound(ctx, table, again).items()
    }


def sound(ctx, table, manifest):
    assert ctx.repository(table).verify(manifest.name) == []
    return facts(manifest)


@pytest.mark.slow
def test_lane_local_engine_and_spark_come_to_the_same_state(ctx, tmp_path):
    table = make_table(ctx, "conditional-engines", 2, conditional=True)
    write_hard(ctx.bootstrap, table, 600)
    made = rebuild(ctx, table).manifest
    assert sound(ctx, table, made) == lane_facts(ctx.bootstrap, table, made, tmp_path / "lane")
    assert all(part.decisions and part.entries and part.counter for part in made.parts.values())
    ctx.engines = support_spark.context(ctx.bootstrap, tmp_path).engines
    again = rebuild(ctx, table).manifest
    assert sound(ctx, table, again) == lane_facts(ctx.bootstrap, table, again, tmp_path / "lane-again")
    assert {p: one[:3] for p, one in facts(again).items()} == {p: one[:3] for p, one in facts(made).items()}


@pytest.mark.parametrize("merge_share", [0.0, 10.0])
def test_a_compaction_upon_another_gives_what_a_rebuild_gives(ctx, tmp_path, merge_share):
    """Outcomes end between the cuts, rows are incremented upon the base, and ids are repeated across them."""
    more = {"conditional": True, "dedup_records": 70, "merge_share": merge_share}
    table = make_table(ctx, f"conditional-compact-{merge_share:g}", 2, **more)
    levels = []
    for seed in range(1, 6):
        write_hard(ctx.bootstrap, table, 150, seed=seed)
        made = compact(ctx, table).manifest
        assert sound(ctx, table, made) == lane_facts(ctx.bootstrap, table, made, tmp_path / f"lane-{seed}")
        assert all(0 < part.decisions <= 2 * 70 for part in made.parts.values())
        levels.append(max(file.level for file in made.files_of(0)))
    assert levels == ([0] * 5 if merge_share == 0 else [0, 1, 2, 3, 1])
    rebuilt = rebuild(ctx, table).manifest
    assert {p: one[:3] for p, one in facts(rebuilt).items()} == {p: one[:3] for p, one in facts(made).items()}


@pytest.mark.parametrize("merge_share", [0.0, 10.0])
def test_rows_that_ended_between_two_compactions_are_in_none_of_their_levels(ctx, tmp_path, merge_share):
    more = {"conditional": True, "expiring": True, "merge_share": merge_share}
    table = make_table(ctx, f"expiring-{merge_share:g}", 2, **more)
    for seed in range(1, 4):
        write_hard(ctx.bootstrap, table, 150, seed=seed)
        made = compact(ctx, table).manifest
        assert sound(ctx, table, made) == lane_facts(ctx.bootstrap, table, made, tmp_path / f"lane-{seed}")
    for ttl_s in (4, 16, 64):  # until a row lives at a cut, however slow the machine is, and ends behind it
        sent_ms = now_ms()
        produce(ctx.bootstrap, table.topic, [(b"ends", b"v")], headers=[("ls.ttl", (ttl_s * 1_000).to_bytes(8))])
        made = compact(ctx, table).manifest
        if now_ms() < sent_ms + ttl_s * 1_000:
            break
    else:
        pytest.fail("no compaction was done while the row lived")
    living = sum(part.entries for part in made.parts.values())
    until("its end has come", lambda: now_ms() > made.created_ms + ttl_s * 1_000, 2 * ttl_s + 60)
    for partition in range(2):  # log time goes on, and no row is written
        produce(ctx.bootstrap, table.topic, [(None, b"\x80")], partition=partition, headers=[("ls.op", b"barrier")])
    later = compact(ctx, table).manifest
    assert sound(ctx, table, later) == lane_facts(ctx.bootstrap, table, later, tmp_path / "lane-later")
    assert 0 < sum(part.entries for part in later.parts.values()) < living
    rebuilt = rebuild(ctx, table).manifest
    assert {p: one[:3] for p, one in facts(rebuilt).items()} == {p: one[:3] for p, one in facts(later).items()}
    judged = [one for one in audit(ctx, table, timeout_s=0).suspects if one.name.startswith("snapshot")]
    assert {one.verdict for one in judged} == {AGREE}


def now_ms():
    return time.time_ns() // 1_000_000


def test_a_compaction_of_what_changes_no_row_keeps_the_files_of_the_rows_and_writes_outcomes_anew(ctx, tmp_path):
    table = make_table(ctx, "conditional-rejected", 1, conditional=True)
    produce(ctx.bootstrap, table.topic, [(b"k", b"v")])
    first = compact(ctx, table).manifest
    assert (first.parts[0].decisions, first.decisions_of(0), first.parts[0].rows_digest) == (0, None, "")
    produce(ctx.bootstrap, table.topic, [(b"k", b"w")], headers=[("ls.if", b"absent")])
    second = compact(ctx, table).manifest
    assert second.files_of(0) == first.files_of(0)
    assert (second.parts[0].decisions, second.parts[0].counter) == (1, 1)
    assert sound(ctx, table, second) == lane_facts(ctx.bootstrap, table, second, tmp_path / "lane")
    assert compact(ctx, table).unchanged
    produce(ctx.bootstrap, table.topic, [(b"k", b"x")])
    third = compact(ctx, table).manifest
    assert third.decisions_of(0).path != second.decisions_of(0).path
    assert sound(ctx, table, third) == lane_facts(ctx.bootstrap, table, third, tmp_path / "lane-third")


def rows_of(ctx, table, **more):
    """Rows as the data source gives them, read here."""
    reader = TableReader({"bootstrap": ctx.bootstrap, "table": table.name, "storage": ctx.storage.url, **more})
    found = {}
    for task in reader.partitions():
        for batch in reader.read(task):
            for row in batch.to_pylist():
                found[row["key"]] = (row["value"], row["version"])
    return found


def lane_rows(ctx, table, offsets, folder):
    found = {}
    for partition, cut in offsets.items():
        with lane_reading(ctx.bootstrap, table, partition, cut, folder / str(partition)) as reading:
            scanned = ended(reading.scan(), reading.state.log_time_ms) if table.expiring else reading.scan()
            entries = {key: Entry.decode(raw) for key, raw in scanned}
            found |= {key: (one.payload, one.version) for key, one in entries.items() if one.kind == VALUE}
    return found


@pytest.mark.parametrize("expiring", [False, True], ids=["kept", "expiring"])
def test_the_data_source_and_diff_read_the_state_that_the_lane_makes_of_any_position(ctx, tmp_path, expiring):
    name = f"conditional-as-of-{expiring}".lower()
    table = make_table(ctx, name, 2, conditional=True, expiring=expiring, dedup_records=60)
    write_hard(ctx.bootstrap, table, 200)
    early = ends(ctx, table)
    manifest = compact(ctx, table).manifest
    assert rows_of(ctx, table) == lane_rows(ctx, table, early, tmp_path / "early")
    write_hard(ctx.bootstrap, table, 200, seed=2)
    latest = ends(ctx, table)
    between = {partition: (manifest.parts[partition].cut + end) // 2 for partition, end in latest.items()}
    below = {partition: end // 2 for partition, end in early.items()}
    wanted = {}
    judge(ctx.repository(table), manifest, "agree")
    for name, offsets in (("below", below), ("between", between), ("latest", latest)):
        wanted[name] = lane_rows(ctx, table, offsets, tmp_path / name)
        assert rows_of(ctx, table, as_of=token(table, offsets)) == wanted[name], name
    some = min(wanted["between"])
    assert rows_of(ctx, table, as_of=token(table, between), key=some.decode()) == {some: wanted["between"][some]}
    found = diff(ctx, f"{table.name}@{token(table, between)}", table.name)
    old, new = ({key: one[0] for key, one in wanted[name].items()} for name in ("between", "latest"))
    assert found.counts == {
        "only_left": len(old.keys() - new.keys()), "only_right": len(new.keys() - old.keys()),
        "same": sum(old[key] == new[key] for key in old.keys() & new.keys()),
        "different": sum(old[key] != new[key] for key in old.keys() & new.keys()),
    }  # fmt: skip


@pytest.mark.parametrize("expiring", [False, True], ids=["kept", "expiring"])
def test_a_fork_begins_with_the_rows_and_goes_on_as_any_conditional_table(ctx, tmp_path, expiring):
    name = f"conditional-source-{expiring}".lower()
    source = make_table(ctx, name, 2, conditional=True, expiring=expiring, dedup_records=80)
    write_hard(ctx.bootstrap, source, 200)
    compact(ctx, source)
    write_hard(ctx.bootstrap, source, 100, seed=2)
    offsets = ends(ctx, source)
    write_hard(ctx.bootstrap, source, 100, seed=3)
    wanted = lane_rows(ctx, source, offsets, tmp_path / "source")
    made = restore(ctx, source.name, token(source, offsets), f"{name}-fork")
    fork = made.table
    assert (fork.conditional, fork.expiring, fork.dedup_records) == (True, expiring, 80)
    assert all((part.counter, part.decisions) == (0, 0) for part in made.manifest.parts.values())
    assert rows_of(ctx, fork) == {key: (value, 0) for key, (value, _) in wanted.items()}
    write_hard(ctx.bootstrap, fork, 150, seed=4)
    first = sound(ctx, fork, compact(ctx, fork).manifest)
    assert all(one[2] for one in first.values())
    again = sound(ctx, fork, rebuild(ctx, fork).manifest)
    if not expiring:  # else rows end meanwhile
        assert {p: one[:3] for p, one in again.items()} == {p: one[:3] for p, one in first.items()}
    judged = [one for one in audit(ctx, fork, timeout_s=0).suspects if one.name.startswith("snapshot")]
    assert {one.verdict for one in judged} == {AGREE}
