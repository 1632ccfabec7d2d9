import os
import shutil
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from support_audit import whole
from support_jobs import context, digests, make_table, write
from support_log import produce, until
from support_serve import serving
from support_store import cli

from batch.cli import trim as cli_trim
from batch.jobs.archive import archive
from batch.jobs.audit import audit
from batch.jobs.compact import compact, rebuild
from batch.jobs.trim import trim
from logstore.log import topics
from logstore.log.kafka import clients, offsets
from logstore.log.membership.live_workers import LiveWorkers
from logstore.log.membership.nodes import ANNOUNCE_S, Announcement
from logstore.model.errors import NotTrimmable
from logstore.model.partitioner import partition_of
from logstore.model.table import NODES_TOPIC
from logstore.snapshot.verdicts import AGREE, AUDIT, AUDITOR, FROM_LOG, Verdict
from logstore.view.feed.adoption_records import AdoptionKey, AdoptionRecord


@pytest.fixture
def ctx(kafka, tmp_path):
    return context(kafka.bootstrap, tmp_path)


def starts(ctx, table):
    found = offsets.bounds(clients.admin(ctx.bootstrap), table.topic, list(range(table.partitions)))
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


@pytest.mark.slow
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


def test_cuts_that_are_not_archived_stay_in_the_log(ctx):
    """Nothing else came to that partition, so nobody archived them."""
    table = make_table(ctx, "trim-idle", 2)
    twice(ctx, table)
    archived = ctx.archive(table).next_offsets()
    key = next(b"n%d" % n for n in range(99) if partition_of(b"n%d" % n, 2) == 1)
    produce(ctx.bootstrap, table.topic, [(key, b"v")])
    newest = compact(ctx, table).manifest
    say_proved(ctx, table, newest)
    done = trim(ctx, table, yes=True)
    assert starts(ctx, table) == done.below == {0: archived[0], 1: newest.parts[1].cut}
    assert digests(rebuild(ctx, table).manifest) == digests(newest)


def say_proved(ctx, table, manifest):
    """Have the audit's word on a snapshot, without the archiving that an audit does."""
    words = {
        partition: Verdict(AGREE, part.digest, part.entries, part.cut, AUDIT, FROM_LOG)
        for partition, part in manifest.parts.items()
    }
    ctx.repository(table).verdicts().say(manifest.name, AUDITOR, words)


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


@contextmanager
def announced(ctx, url):
    """A worker announces itself, as often as a real one, with readers at `url`."""
    value = Announcement("node-a", 0, url, "main").to_json()
    ended = threading.Event()

    def announce():
        while not ended.wait(ANNOUNCE_S):
            produce(ctx.bootstrap, NODES_TOPIC, [(b"node-a/0", value)], partition=0)

    thread = threading.Thread(target=announce)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        produce(ctx.bootstrap, NODES_TOPIC, [(b"node-a/0", None)], partition=0)


def test_what_a_node_still_folds_from_stays(ctx, tmp_path):
    table = make_table(ctx, "trim-held", 1)
    older, newer = twice(ctx, table)
    with serving(tmp_path / "node") as (node, reader), announced(ctx, reader.url):
        node.tables[table.name] = table
        node.open_view(table, 0)
        node.publish_tables()
        node.publish_nodes()
        reader.wait_ready()

        def stands_on(snapshot, reason=""):
            record = AdoptionRecord(snapshot.name, snapshot.parts[0].cut, state="adopted", reason=reason)
            node.publish(AdoptionKey(table.name, table.epoch, 0), record)
            until("it is heard", lambda: reader.get("/v1/snapshots").json()["snapshots"][0]["base"] == snapshot.name)

        done = trim(ctx, table, yes=True)
        assert (done.records, starts(ctx, table)) == (0, {0: 0})
        (note,) = done.notes
        assert f"{reader.url} stands on no snapshot in partition 0, so the log above stays" in note
        stands_on(older, "the digest at the cut is being computed")
        done = trim(ctx, table, yes=True)
        assert starts(ctx, table) == {0: older.parts[0].cut} == done.below
        (note,) = done.notes
        assert f"stands on {older.name}, cut {older.parts[0].cut:,} in partition 0, so the log above stays: the" in note
        stands_on(newer)
        reader.kill()
        (note,) = trim(ctx, table).notes
        assert f"{reader.url} does not answer" in note
        reader.start()
        reader.wait_ready()
        done = trim(ctx, table, yes=True)
        assert (starts(ctx, table), done.notes) == ({0: newer.parts[0].cut}, [])


def test_a_rebuild_has_the_proved_snapshot_before_it_for_a_predecessor(ctx):
    table = make_table(ctx, "trim-rebuilt", 1)
    _, newer = twice(ctx, table)
    write(ctx.bootstrap, table, 50, seed=3)
    rebuilt = rebuild(ctx, table).manifest
    assert ctx.repository(table).line() == [rebuilt.name]
    refused(ctx, table, f"{rebuilt.name} .* is unproved")
    prove(ctx, table)
    done = trim(ctx, table, yes=True)
    assert (done.snapshot, done.predecessor) == (rebuilt.name, newer.name)
    assert starts(ctx, table) == {0: rebuilt.parts[0].cut}
    assert digests(rebuild(ctx, table).manifest) == digests(rebuilt)  # from the archive


def test_a_rebuild_without_a_proved_snapshot_before_it_is_not_trimmed_behind(ctx):
    table = make_table(ctx, "trim-alone", 1)
    write(ctx.bootstrap, table, 50)
    compact(ctx, table)
    rebuild(ctx, table)
    refused(ctx, table, "one snapshot only")


def test_a_worker_that_was_paused_through_a_trim_finds_its_own_way(tmp_path):
    """Its topic takes no control records: nothing but the log tells it what was at a cut."""
    with whole(tmp_path / "data") as store:
        admin = clients.admin(store.node.bootstrap)
        topics.create(admin, "raw", 1, 1, topics.wal_settings(1_000_000, 1))
        cli("table", "create", "paused", "--topic", "raw", "--data-dir", str(store.data))
        ctx = store.context()
        table = ctx.table("paused")
        produce(ctx.bootstrap, "raw", [(b"%d" % n, b"1") for n in range(100)])
        until("it is caught up", lambda: len(store.rows(table)) == 100)
        stopped = [*store.node.pids("workers"), store.node.process.pid]  # the supervisor would start another one
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            made = []
            for first in (50, 150):
                produce(ctx.bootstrap, "raw", [(b"%d" % n, b"2") for n in range(first, first + 100)])
                made.append(compact(ctx, table).manifest)
            prove(ctx, table)
            until("it is not counted any more", lambda: not LiveWorkers(ctx.bootstrap).look())
            done = trim(ctx, table, yes=True, adopted_too=True)
            assert starts(ctx, table) == {0: made[0].parts[0].cut} == done.below
            produce(ctx.bootstrap, "raw", [(b"behind", b"3")])
        finally:
            for pid in reversed(stopped):
                os.kill(pid, signal.SIGCONT)
        store.adopted(table, made[1].name)
        until("it has all rows", lambda: len(store.rows(table)) == 251)
        until("its worker agrees, begun anew or not", lambda: audit(store.context(), table).verdict() == "agree")


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
