"""What a worker serves, on disk: whole after a power cut, and where it is not, as if it were not there."""

import os
import stat

import pytest
from support_worker import make_table, running_worker

from logstore.model.table import Table
from logstore.process.durable import write_whole
from logstore.view import paths
from logstore.view.feed.node_records import NodeRecord, NodesRecord
from logstore.view.feed.server import FeedServer
from logstore.view.feed.table_records import TablesKey, TablesRecord
from logstore.view.feed.view_records import CATCHING_UP, LIVE, ViewKey, ViewRecord
from logstore.view.served import Served
from streaming.control.served_state import ServedState
from streaming.worker import restore

TABLE = Table("t", "t", "e" * 32, 1).to_json()
VIEW = ViewKey("t", "e", 0)
TABLES, NODES = TablesRecord(3, "i", 16, None, (TABLE,)), NodesRecord((NodeRecord("n", 0),))
SERVED = Served(TABLES, NODES, (1, 5), {VIEW: ViewRecord("/", 1, LIVE)})
DAMAGED = [
    b"",
    b"{",
    b"\0" * 512,
    b"[]",
    b"null",
    b'{"slots":[1]}',
    SERVED.encode()[:-20],
    b'{"tables":{"tables":{}}}',
    b'{"tables":{"tables":["{}"]}}',
]


@pytest.fixture
def feed(tmp_path):
    opened = FeedServer(tmp_path / "feed")
    yield opened
    opened.close()


def test_what_was_kept_is_there_after_a_restart(tmp_path, feed):
    ServedState(tmp_path / "workers" / "0.json").save(SERVED)
    again = ServedState(tmp_path / "workers" / "0.json")
    assert again.load() == SERVED
    assert again.slots() == [1, 5]
    restore(feed, again)
    assert feed.get(VIEW) == ViewRecord("/", 1, CATCHING_UP)
    assert feed.get(TablesKey()) == SERVED.tables


def test_nothing_was_kept_before_the_first_start(tmp_path, feed, caplog):
    saved = ServedState(tmp_path / "0.json")
    restore(feed, saved)
    assert (saved.load(), saved.slots(), feed.snapshot(), caplog.text) == (None, [], {}, "")


@pytest.mark.parametrize("content", DAMAGED)
def test_what_is_damaged_counts_as_absent_and_is_written_again(tmp_path, feed, content, caplog):
    (tmp_path / "0.json").write_bytes(content)
    saved = ServedState(tmp_path / "0.json")
    restore(feed, saved)
    assert (saved.slots(), feed.snapshot()) == ([], {})
    assert "0.json is damaged" in caplog.text
    saved.save(SERVED)
    assert saved.load() == SERVED


def test_a_worker_starts_over_an_empty_file(kafka, tmp_path):
    table, path = make_table(kafka.bootstrap, 1), paths.served_path(tmp_path / "node", 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    with running_worker(kafka.bootstrap, tmp_path / "node") as worker:
        worker.watch.state(table, 0, "live")


def test_a_file_is_replaced_when_its_content_is_on_the_disk_and_then_its_name(tmp_path, monkeypatch):
    path, synced, fsync = tmp_path / "f", [], os.fsync

    def note(fd):
        status = os.fstat(fd)
        synced.append(
            ("folder" if stat.S_ISDIR(status.st_mode) else f"file of {status.st_size} bytes", path.read_bytes())
        )
        fsync(fd)

    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", note)
    write_whole(path, b"newer")
    assert synced == [("file of 5 bytes", b"old"), ("folder", b"newer")]
    assert list(tmp_path.iterdir()) == [path]
