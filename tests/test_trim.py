import shutil
from pathlib import Path

import pytest
from support_audit import whole
from support_log import produce
from support_spark import context, digests, make_table, write

from batch.cli import trim as cli_trim
from batch.jobs.archive import archive
from batch.jobs.audit import audit
from batch.jobs.compact import compact, rebuild
from batch.jobs.trim import trim
from logstore.log import kafka as door
from logstore.model.errors import NotTrimmable


@pytest.fixture
def ctx(kafka, tmp_path):
    return context(kafka.bootstrap, tmp_path)


def starts(ctx, table):
    found = door.bounds(door.admin(ctx.bootstrap), table.topic, list(range(table.partitions)))
    return {partition: bounds.start for partition, bounds in found.items()}


def twice(ctx, table):
    """Two snapshots, the newer one last, and proved: no node does it here."""
    made = []
    for seed in (1, 2):
        write(ctx.bootstrap, table, 200, seed=seed)
        made.append(compact(ctx, table).manifest)
    prove(ctx, table)
    return made


def prove(ctx, table):
    """Have an audit settle what the snapshots are worth; no node is waited for."""
    found = audit(ctx, table, timeout_s=0)
    assert {one.verdict for one in found.suspects if one.name.startswith("snapshot")} == {"agree"}


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


def refused(ctx, table, match):
    with pytest.raises(NotTrimmable, match=match):
        trim(ctx, table, yes=True)
    assert set(starts(ctx, table).values()) == {0}


def test_the_log_goes_up_to_the_newest_cut_and_only_when_it_is_said(ctx):
    table = make_table(ctx, "trim-plain", 2)
    older, newer = twice(ctx, table)
    planned = trim(ctx, table)
    assert (planned.done, starts(ctx, table)) == (False, {0: 0, 1: 0})
    done = trim(ctx, table, yes=True)
    cuts = {partition: part.cut for partition, part in newer.parts.items()}
    assert starts(ctx, table) == cuts == done.below == planned.below
    assert (done.records, done.snapshot, done.predecessor) == (sum(cuts.values()), newer.name, older.name)
    assert trim(ctx, table, yes=True).records == 0  # nothing is left to go
    write(ctx.bootstrap, table, 100, seed=3)
    on = compact(ctx, table).manifest
    assert digests(rebuild(ctx, table).manifest) == digests(on)  # from the archive


def test_nothing_goes_without_two_sound_snapshots_and_a_sound_archive(ctx):
    table = make_table(ctx, "trim-refused", 1)
    refused(ctx, table, "no snapshot")
    write(ctx.bootstrap, table, 100)
    compact(ctx, table)
    refused(ctx, table, "one snapshot only")
    write(ctx.bootstrap, table, 100, seed=2)
    newer = compact(ctx, table).manifest
    refused(ctx, table, f"{newer.name} .* is unproved in 1 partitions.*nobody has compared.*`logstore batch audit")
    prove(ctx, table)
    path = Path(str(ctx.storage.local(f"{table.topic}/{table.epoch}/snapshots/{newer.files[0].path}")))
    sound = path.read_bytes()
    damage(path)
    refused(ctx, table, f"{newer.name} is damaged: .*{path.name}")
    path.write_bytes(sound)
    segment = Path(str(ctx.storage.local(ctx.archive(table).segments()[0].path)))
    sound = segment.read_bytes()
    damage(segment)
    refused(ctx, table, f"the archive .*{segment.name} is damaged")
    segment.write_bytes(sound)
    assert trim(ctx, table, yes=True).records > 0


def test_what_is_not_archived_stays(ctx):
    table = make_table(ctx, "trim-behind", 1)
    twice(ctx, table)
    manifests = sorted(Path(str(ctx.storage.local(f"{table.topic}/{table.epoch}/archive/manifests"))).iterdir())
    for manifest in manifests[-2:]:  # as if neither the newest snapshot's run nor the audit's had been committed
        manifest.unlink()
    refused(ctx, table, "does not hold what would go: the archive .* ends at offset")
    archive(ctx, table)
    assert trim(ctx, table, yes=True).records > 0


def test_a_topic_that_was_adopted_is_left_alone_unless_it_is_said(ctx):
    table = make_table(ctx, "trim-adopted", 1, adopted=True, allow_control_records=False)
    older, _ = twice(ctx, table)
    refused(ctx, table, "--adopted-too")
    assert trim(ctx, table, yes=True, adopted_too=True).records == 200
    assert starts(ctx, table) == {0: older.parts[0].cut}  # nodes fold from there to prove the newer one


def test_after_a_trim_a_node_without_views_starts_from_the_snapshot_and_the_audit_agrees(tmp_path, monkeypatch):
    with whole(tmp_path / "data") as store:
        table = store.create("trimmed")
        ctx = store.context()
        _, newer = twice(ctx, table)
        store.adopted(table, newer.name)
        told = store.batch(monkeypatch, cli_trim.trim, "trimmed", "--yes", status=0)
        assert (told["trimmed"], told["records"] > 0) == (True, True)
        produce(ctx.bootstrap, table.topic, [(b"behind", b"v")])
        assert audit(ctx, table).verdict() == "agree"
        before = store.rows(table)
        store.stop()
        for folder in ("views", "snapshots"):
            shutil.rmtree(store.data / folder / table.name)
        store.start()
        store.adopted(table, newer.name)
        assert store.rows(table) == before
        assert "behind" in before
        assert audit(store.context(), table).verdict() == "agree"
