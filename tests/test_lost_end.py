"""A log that lost its end and was written to again: found out by whoever stands on it, and never forgotten."""

import os

import pytest
from support_log import produce
from support_store import cli, running
from support_wait import until
from support_worker import make_table, rows, running_worker

from logstore import Store
from logstore.log.kafka.clients import admin
from logstore.log.read.leader_epochs import epoch_starts, records_from
from logstore.log.tables.registry import Registry
from logstore.view import paths
from logstore.view.positions import AppliedPositions, position_name

KEPT, LOST = 80, 100


def write(kafka, table, first, behind, what):
    produce(kafka.bootstrap, table.topic, [(b"%s%03d" % (what, n), what) for n in range(first, behind)])


def lose_end(kafka, table, size):
    """As after a power cut of the broker: acknowledged, and never on the disk."""
    kafka.kill()
    os.truncate(log_file(kafka, table), size)
    kafka.restart()


def lose_view(worker, table):
    """As after a power cut of the node: what was not synced is thrown away when it starts."""
    directory = paths.partition_dir(worker.data_dir, table.name, table.epoch, 0)
    (directory / str(paths.newest_generation(directory)) / "unsynced").write_text("another boot")


def log_file(kafka, table):
    return kafka.data_dir / "log" / f"{table.topic}-0" / f"{0:020d}.log"


def followed(worker, table):
    """Wait until the worker has applied, and noted, all that was written."""
    worker.watch.position(table, 0, LOST)
    name = position_name(table.name, table.epoch, 0)
    until("it is noted", lambda: (at := AppliedPositions(worker.data_dir).of(name)) and at.next_offset == LOST)


@pytest.mark.parametrize("view", ["kept", "thrown away"])
@pytest.mark.slow
def test_a_log_that_lost_its_end_while_nobody_followed_stops_until_the_loss_is_accepted(kafka, tmp_path, view):
    table = make_table(kafka.bootstrap, 1)
    with running_worker(kafka.bootstrap, tmp_path / "node") as worker:
        write(kafka, table, 0, KEPT, b"k")
        size = log_file(kafka, table).stat().st_size
        write(kafka, table, KEPT, LOST, b"lost")
        followed(worker, table)
        worker.kill()
        lose_end(kafka, table, size)
        if view == "thrown away":
            lose_view(worker, table)
        write(kafka, table, 0, 60, b"new")
        for _ in range(2):
            shown = worker.start().watch.state(table, 0, "stopped")
            assert f"lost its end: this node has applied everything below offset {LOST}" in shown.reason
            assert "--accept-loss" in shown.reason
            worker.kill()
        starts = epoch_starts(kafka.bootstrap, admin(kafka.bootstrap), table.topic, 0)
        assert starts[-1][0] == KEPT
        Registry(kafka.bootstrap).write(table.with_loss(0, starts))
        worker.start().watch.state(table, 0, "live")
        assert rows(worker.data_dir, table) == {b"k%03d" % n: b"k" for n in range(KEPT)} | {
            b"new%03d" % n: b"new" for n in range(60)
        }
        worker.kill()
        worker.start().watch.state(table, 0, "live")  # and what outlived the view before is not asked for again


@pytest.mark.slow
def test_a_log_that_kept_its_end_is_followed_from_where_the_view_stands(kafka, tmp_path):
    table = make_table(kafka.bootstrap, 1)
    with running_worker(kafka.bootstrap, tmp_path / "node") as worker:
        write(kafka, table, 0, LOST, b"k")
        followed(worker, table)
        worker.kill()
        lose_view(worker, table)
        kafka.kill()
        kafka.restart()
        write(kafka, table, LOST, LOST + 10, b"k")
        worker.start().watch.position(table, 0, LOST + 10)
        assert len(rows(worker.data_dir, table)) == LOST + 10


def test_where_leader_epochs_begin_is_found(kafka):
    table = make_table(kafka.bootstrap, 1)
    write(kafka, table, 0, 7, b"k")
    kafka.kill()
    kafka.restart()
    write(kafka, table, 7, 500, b"k")
    starts = epoch_starts(kafka.bootstrap, admin(kafka.bootstrap), table.topic, 0)
    assert [offset for offset, _ in starts] == [0, 7]
    assert starts[0][1] < starts[1][1]
    found = records_from(kafka.bootstrap, table.topic, {0: 6})[0]
    assert (found.identity.offset, found.leader_epoch) == (6, starts[0][1])
    assert records_from(kafka.bootstrap, table.topic, {0: 500}) == {}


def test_repair_shows_what_was_lost_and_goes_on_when_it_is_told_to(kafka, tmp_path):
    table = make_table(kafka.bootstrap, 1)
    options = ("--bootstrap", kafka.bootstrap, "--http", "127.0.0.1:0", "--group", table.name)
    with running("node", tmp_path / "node", *options) as node:
        where = {
            "LOGSTORE_BOOTSTRAP": kafka.bootstrap, "LOGSTORE_URL": node.url, "LOGSTORE_DATA_DIR": str(node.data_dir),
        }  # fmt: skip
        write(kafka, table, 0, KEPT, b"k")
        size = log_file(kafka, table).stat().st_size
        write(kafka, table, KEPT, LOST, b"lost")
        name = position_name(table.name, table.epoch, 0)
        until("it is noted", lambda: (at := AppliedPositions(node.data_dir).of(name)) and at.next_offset == LOST)
        lose_end(kafka, table, size)
        write(kafka, table, 0, 60, b"new")
        repair = ("table", "repair", table.name, "--partition", "0")
        until("it stops", lambda: "lost its end" in cli(*repair, "--json", check=False, **where).stdout)
        shown = cli(*repair, "--accept-loss", check=False, **where)
        assert shown.returncode == 130  # nobody answers the question
        assert f"offsets {KEPT} to {LOST - 1} were acknowledged" in shown.stdout
        assert "the view on this machine holds 20 rows of them" in shown.stdout
        assert f"the view of {node.url} (stopped) holds what was written below {LOST}" in shown.stdout
        assert "lost080" in shown.stdout
        done = cli(*repair, "--accept-loss", "--yes", **where)
        assert "goes on with the log as it is" in done.stderr
        with Store(kafka.bootstrap, node.url) as client:
            position = client.put(table.name, "after", "x")
            assert client.get(table.name, "new059", after=position, deadline_ms=30_000).value == b"new"
            assert client.get(table.name, "lost090") is None
