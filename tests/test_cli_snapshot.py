"""`logstore snapshot` on a real store's definitions and real snapshots."""

import secrets

import orjson
import pytest
from support_dev import call
from support_log import produce
from support_snapshot import judge, make_snapshot
from support_worker import make_table

from logstore.log import topics
from logstore.log.kafka import clients
from logstore.snapshot.repository import Repository
from logstore.snapshot.storage import Storage


@pytest.fixture
def snapshots(kafka, tmp_path):
    table, url = make_table(kafka.bootstrap, partitions=2), f"file://{tmp_path}/storage"

    def run(*argv, status=0):
        done = call(
            "snapshot", argv[0], table.name, *argv[1:], LOGSTORE_BOOTSTRAP=kafka.bootstrap, LOGSTORE_STORAGE=url
        )
        assert done.returncode == status, done.stderr.decode()
        return done

    def made():
        produce(kafka.bootstrap, table.topic, [(b"k%d" % n, b"v") for n in range(50)])
        return make_snapshot(kafka.bootstrap, table, url).name

    return run, made, Repository(Storage(url), table.topic, table.epoch)


def test_before_the_first_snapshot_it_says_how_to_make_one(snapshots):
    run, _, _ = snapshots
    assert b"logstore batch compact" in run("list").stderr
    for command in ("describe", "verify", "pin"):
        assert b"no current snapshot" in run(command, status=1).stderr


@pytest.mark.slow
def test_list_pin_rollback_and_gc(snapshots):
    run, made, repository = snapshots
    names = [made(), made(), made()]
    listed = orjson.loads(run("list", "--json").stdout)["snapshots"]
    assert [(one["name"], one["current"]) for one in listed] == [(names[0], False), (names[1], False), (names[2], True)]
    assert b"sound" in run("verify").stdout
    run("pin", names[0])
    assert b"would remove" in run("gc", "--keep", "1", "--dry-run").stdout
    run("gc", "--keep", "1", "--yes")
    assert repository.names() == [names[0], names[2]]
    run("rollback", "--to", names[0], "--yes")
    assert repository.current().name == names[0]
    assert b"no snapshot" in run("describe", "nope", status=1).stderr


def test_damage_makes_verify_fail(snapshots):
    run, made, repository = snapshots
    file = repository.manifest(made()).files[0]
    path = repository.storage.local(repository.file_path(file.path))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 4
    path.write_bytes(raw)
    found = orjson.loads(run("verify", "--json", status=1).stdout)["problems"]
    assert found
    assert "p0000" in found[0]


def test_a_damaged_manifest_is_listed_and_can_be_dropped(snapshots):
    run, made, repository = snapshots
    names = [made(), made()]
    path = repository.storage.local(repository.file_path(f"{names[0]}/_MANIFEST.json"))
    path.write_bytes(path.read_bytes() + b"x")
    listed = run("list", "--json")
    damaged = orjson.loads(listed.stdout)["snapshots"][0]
    assert (damaged["name"], damaged["kind"]) == (names[0], "damaged")
    assert f"logstore snapshot drop {repository.root.split('/')[0]} {names[0]}".encode() in run("list").stderr
    assert names[0].encode() in run("gc", "--yes", status=1).stderr
    assert b"is the current one" in run("drop", names[1], "--yes", status=2).stderr
    run("drop", names[0], "--yes")
    assert repository.names() == [names[1]]
    assert b"0 snapshots" in run("gc", "--yes").stdout


def test_a_rollback_makes_what_followed_not_count_and_is_refused_where_the_log_is_gone(snapshots, kafka):
    run, made, repository = snapshots
    names = [made(), made(), made()]
    run("rollback", "--yes")
    assert [one["counts"] for one in orjson.loads(run("list", "--json").stdout)["snapshots"]] == [True, True, False]
    cuts = {partition: part.cut for partition, part in repository.manifest(names[1]).parts.items()}
    topics.truncate(clients.admin(kafka.bootstrap), repository.root.split("/")[0], cuts)
    assert b"could not go on from it; `logstore batch rebuild" in run("rollback", "--yes", status=2).stderr
    assert repository.current().name == names[1]


def test_a_refused_snapshot_is_listed_with_both_sides_and_never_rolled_back_to(snapshots):
    run, made, repository = snapshots
    good, bad, last = (made() for _ in range(3))
    judge(repository, repository.manifest(good), "agree")
    judge(repository, repository.manifest(bad), "agree")
    judge(repository, repository.manifest(bad), "refuse", judge="ba9876543210")
    listed = run("list")
    assert b"node 0123456789ab agrees" in listed.stderr
    assert b"node ba9876543210 refuses it" in listed.stderr
    proofs = {one["name"]: one["proof"] for one in orjson.loads(run("list", "--json").stdout)["snapshots"]}
    assert proofs == {good: "proved", bad: "refused", last: "unproved"}
    assert b"is refused, so it is not made current" in run("rollback", "--to", bad, "--yes", status=1).stderr
    assert repository.current().name == last
    run("rollback", "--to", good, "--yes")


@pytest.mark.slow
def test_what_a_dropped_table_leaves_in_the_storage_is_said_and_removed_by_command(kafka, tmp_path):
    url = f"file://{tmp_path}/storage"
    where = {"LOGSTORE_BOOTSTRAP": kafka.bootstrap, "LOGSTORE_STORAGE": url}
    storage = Storage(url)

    def with_snapshot():
        table = make_table(kafka.bootstrap, partitions=1)
        produce(kafka.bootstrap, table.topic, [(b"k", b"v")])
        make_snapshot(kafka.bootstrap, table, url)
        return table

    kept, deleted, live = (with_snapshot() for _ in range(3))
    foreign = secrets.token_hex(16)
    storage.create(f"others/{foreign}/snapshots/x/_MANIFEST.json", b"of another store")
    done = call("table", "drop", kept.name, "--yes", **where)
    assert (done.returncode, b"`logstore snapshot gc --orphans` removes" in done.stderr) == (0, True)
    assert storage.list(f"{kept.topic}/{kept.epoch}") == ["snapshots"]
    assert call("table", "drop", deleted.name, "--yes", "--storage", "delete", **where).returncode == 0
    assert storage.list(deleted.topic) == []
    dry = call("snapshot", "gc", "--orphans", "--dry-run", "--json", **where)
    assert orjson.loads(dry.stdout)["orphans"] == [f"{kept.topic}/{kept.epoch}"]
    assert storage.list(kept.topic) != []
    assert call("snapshot", "gc", "--orphans", "--yes", **where).returncode == 0
    assert storage.list(kept.topic) == []
    assert storage.list(f"{live.topic}/{live.epoch}") == ["snapshots"]
    assert storage.list("others") == [foreign]
    assert call("snapshot", "gc", **where).returncode == 2
