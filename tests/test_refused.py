"""A wrong snapshot in the line: who refuses it is heard by everybody, also after every process has ended."""

import shutil
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support_audit import whole
from support_jobs import content, token
from support_log import produce, until
from support_planted import run_with
from support_store import cli

from batch.cli import audit as cli_audit
from batch.datasource.source import TableReader
from batch.jobs.audit import audit
from batch.jobs.compact import compact, rebuild
from batch.jobs.restore import restore
from batch.jobs.trim import trim
from logstore.log import topics
from logstore.log.kafka import clients
from logstore.model.errors import NotTrimmable, SnapshotRefused
from logstore.model.folding.entry import VALUE, Entry
from logstore.model.folding.fold import Folded
from logstore.snapshot.verdicts import AGREE, CONSISTENT, REFUSE
from logstore.view import paths
from logstore.view.view import View, ViewIdentity


@pytest.fixture
def store(tmp_path):
    with whole(tmp_path / "data") as made:
        yield made


def puts(store, table, numbers, value=b"v"):
    produce(store.node.bootstrap, table.topic, [(b"k%04d" % n, value) for n in numbers], partition=0)


def deletes(store, table, numbers):
    produce(store.node.bootstrap, table.topic, [(b"k%04d" % n, None) for n in numbers], partition=0)


def standing(store, table):
    (row,) = [
        row
        for row in httpx.get(f"{store.node.url}/v1/snapshots", timeout=60).json()["snapshots"]
        if row["table"] == table.name
    ] or [{"state": None, "base": None, "proof": None, "reason": ""}]
    return row


def counted(store, table):
    """Verdicts on snapshots of the table that the node's metrics have."""
    page = httpx.get(f"{store.node.url}/metrics", timeout=60).text
    samples = [one for family in text_string_to_metric_families(page) for one in family.samples]
    found = [one for one in samples if one.name == "logstore_snapshot_verdicts_total"]
    return {one.labels["verdict"]: one.value for one in found if one.labels["table"] == table.name}


def read_as_of(store, table, offset):
    """A row as it was at a position; an answer that names no cause to ask again."""
    url = f"{store.node.url}/v1/tables/{table.name}/rows/k0001"

    def ask():
        answer = httpx.get(url, headers={"LS-As-Of": token(table, {0: offset})}, timeout=60)
        return answer if answer.status_code != 503 else None

    return until("the past is answered", ask)


def live(store, table):
    pages = httpx.get(f"{store.node.url}/v1/partitions", timeout=60).json()["partitions"]
    return {row["state"] for row in pages if row["table"] == table.name} == {"live"}


def becomes(store, table, **wanted):
    """Wait until the node shows these fields of the partition."""
    seen = {}

    def fits():
        seen.update(standing(store, table))
        return all(seen.get(name) == value for name, value in wanted.items())

    until(f"it is {wanted}", fits, timeout_s=120)
    return dict(seen)


def wrong_snapshot(store, monkeypatch, table, ctx):
    """1,000 rows, a good snapshot that is adopted, 500 deletes, and one in which the deleted rows are still there."""
    puts(store, table, range(1000))
    good = compact(ctx, table).manifest
    becomes(store, table, base=good.name, proof="proved")
    deletes(store, table, range(500))
    bad = run_with(monkeypatch, ctx, "drop-tombstones", lambda: compact(ctx, table)).manifest
    assert len(content(ctx, bad, 0)) == 1000
    return good, bad


def read(ctx, table, **options):
    reader = TableReader({"bootstrap": ctx.bootstrap, "table": table.name, "storage": ctx.storage.url, **options})
    return {
        row["key"]: row["value"]
        for piece in reader.partitions()
        for batch in reader.read(piece)
        for row in batch.to_pylist()
    }


def test_a_snapshot_that_a_node_refused_is_used_by_nobody(store, monkeypatch):
    table = store.create("story", "--partitions", "1")
    ctx = store.context()
    good, bad = wrong_snapshot(store, monkeypatch, table, ctx)
    shown = becomes(store, table, state="refused", candidate=bad.name)
    assert f"`logstore view discard {table.name} --partition 0`" in shown["reason"]
    assert len(store.rows(table)) == 500
    verdicts = ctx.repository(table).verdicts
    until("the word is written", lambda: verdicts().whole(bad.name, [0]).word == "refused")
    (said,) = [parts[0] for parts in verdicts().of(bad.name).values()]
    assert (said.word, said.root, said.how) == (REFUSE, "", "pin")
    until("it is counted", lambda: counted(store, table) == {AGREE: 1.0, CONSISTENT: 0.0, REFUSE: 1.0})

    for yes in (False, True):
        with pytest.raises(NotTrimmable, match=f"snapshot {bad.name} .* is refused"):
            trim(ctx, table, yes=yes)
    with pytest.raises(SnapshotRefused, match=bad.name):
        read(ctx, table)
    with pytest.raises(SnapshotRefused, match=bad.name):
        read(ctx, table, snapshot=bad.name)
    assert len(read(ctx, table, as_of="latest")) == 500
    assert len(read(ctx, table, snapshot=good.name)) == 1000

    # an empty node, with nobody left who remembers
    store.stop()
    for folder in ("views", "snapshots", "run", "workers"):
        shutil.rmtree(store.data / folder, ignore_errors=True)
    store.start()
    becomes(store, table, base=good.name, proof="proved")
    assert len(store.rows(table)) == 500
    shown = becomes(store, table, state="refused", candidate=bad.name, base=good.name)
    ctx = store.context()

    # what is compacted upon is the one before; the line forgets the refused one
    more = compact(ctx, table)
    assert (more.manifest.parent, more.manifest.parts[0].entries) == (good.name, 500)
    assert any(bad.name in warning for warning in more.warnings)
    assert ctx.repository(table).line() == [good.name, more.manifest.name]
    becomes(store, table, base=more.manifest.name, proof="proved")


def test_a_rebuild_begins_a_new_line_and_what_answers_for_the_past_does_not_stand_on_the_wrong_one(store, monkeypatch):
    table = store.create("past", "--partitions", "1")
    ctx = store.context()
    _, bad = wrong_snapshot(store, monkeypatch, table, ctx)
    puts(store, table, range(2000, 2100), b"new")
    becomes(store, table, state="refused", candidate=bad.name)
    told = store.batch(monkeypatch, cli_audit.audit, table.name, status=1)
    assert {c["name"]: c["verdict"] for c in told["partitions"][0]["compared"]}[f"snapshot {bad.name}"] == "differ"
    rebuilt = rebuild(ctx, table).manifest
    assert ctx.repository(table).line() == [rebuilt.name]
    becomes(store, table, base=rebuilt.name, proof="proved")
    assert audit(ctx, table).verdict() == "agree"
    between = token(table, {0: rebuilt.parts[0].cut - 2})  # the last new row, and the cut of the audit, are above it
    assert len(read(ctx, table, as_of=between)) == 599
    restored = restore(ctx, table.name, between, "back")
    assert len(read(ctx, restored.table)) == 599
    assert len(read(ctx, table)) == 600


def test_a_view_that_an_audit_found_wrong_is_discarded_by_command(store, monkeypatch):
    table = store.create("wrong", "--partitions", "1")
    ctx = store.context()
    puts(store, table, range(300))
    compact(ctx, table)
    becomes(store, table, state="adopted")
    store.stop()
    plant_in_the_view(store, table)
    store.start()
    ctx = store.context()
    assert len(store.rows(table)) == 301
    right = compact(ctx, table).manifest
    becomes(store, table, state="refused", candidate=right.name)
    assert audit(ctx, table).verdict() == "differ"
    shown = until(
        "the audit is heard", lambda: (r := standing(store, table)) and "an audit agrees" in r["reason"] and r
    )
    assert f"`logstore view discard {table.name} --partition 0`" in shown["reason"]
    discarded = cli("view", "discard", table.name, "--partition", "0", "--yes", "--data-dir", str(store.data)).stdout
    assert "thrown away, it begins again" in discarded
    becomes(store, table, base=right.name, proof="proved")
    until("it is caught up again", lambda: live(store, table))
    assert len(store.rows(table)) == 300
    until("its word is another one", lambda: ctx.repository(table).verdicts().proof(right.name, 0).word == "proved")


def plant_in_the_view(store, table):
    """A row that the log never had, in the node's view."""
    directory = paths.partition_dir(store.data, table.name, table.epoch, 0)
    path = Path(directory / str(paths.newest_generation(directory)))
    view = View(path, ViewIdentity(table.name, table.epoch, 0, table.partitions, table.max_value_bytes))
    entry = Entry(VALUE, view.next_offset - 1, view.state.log_time_ms, b"?").encode()
    view.apply(Folded(view.next_offset, view.state.log_time_ms, {b"k9999": entry}, [], None))
    view.close()


def test_an_unproved_beginning_says_so_until_an_audit_proves_it(store):
    table = store.create("unproved", "--partitions", "1")
    ctx = store.context()
    puts(store, table, range(100))
    first = compact(ctx, table).manifest
    becomes(store, table, base=first.name, proof="proved")
    assert {v.word for said in ctx.repository(table).verdicts().of(first.name).values() for v in said.values()} == {
        AGREE
    }
    topics.truncate(clients.admin(ctx.bootstrap), table.topic, {0: first.parts[0].cut})
    store.stop()
    shutil.rmtree(Path(str(ctx.storage.local(f"{ctx.repository(table).root}/_VERDICTS"))))  # nobody has said anything
    for folder in ("views", "snapshots"):
        shutil.rmtree(store.data / folder)
    store.start()
    ctx = store.context()
    shown = becomes(store, table, base=first.name, proof="unproved")
    assert f"`logstore batch audit {table.name}`" in shown["reason"]
    (row,) = httpx.get(f"{store.node.url}/v1/partitions", timeout=60).json()["partitions"]
    assert row["base"]["proof"] == "unproved"
    refused = read_as_of(store, table, 100)
    assert (refused.status_code, refused.json()["type"]) == (400, "urn:logstore:bad-level")
    assert f"snapshot {first.name}, which is unproved" in refused.json()["detail"]
    assert "(unproved)" in cli("status", "--data-dir", str(store.data)).stdout

    # an agreement is worth what its root is worth
    puts(store, table, range(100, 150))
    second = compact(ctx, table).manifest
    becomes(store, table, base=second.name, proof="unproved")
    verdicts = ctx.repository(table).verdicts
    until("the word is written", lambda: verdicts().of(second.name))
    (said,) = [parts[0] for parts in verdicts().of(second.name).values()]
    assert (said.word, said.root) == (CONSISTENT, first.name)
    with pytest.raises(NotTrimmable, match=f"snapshot {second.name} .* is unproved"):
        trim(ctx, table, yes=True)

    assert audit(ctx, table).verdict() == "agree"
    becomes(store, table, proof="proved")
    assert read_as_of(store, table, 100).content == b"v"
    assert trim(ctx, table, yes=True).records > 0
