"""Opening a view: what goes wrong is that partition's reason, and is tried again."""

import shutil

import pytest
from support_view import descriptors, records

from logstore.model.errors import Corrupted, UsageError
from logstore.model.table import Table
from logstore.view import paths
from logstore.view.feed.server import FeedServer
from logstore.view.feed.view_records import ViewKey
from streaming.lane.disk.opened_view import Bootstrap
from streaming.lane.opening import RETRY_S, OpenLater, ViewOpening
from streaming.lane.partition import FollowedPartition
from streaming.lane.status import LaneStatus
from streaming.lane.stop_reasons import epoch_changed
from streaming.lane.target import Target

TABLE = Table("t", "t", "e" * 32, 2)
TARGET = Target(TABLE, 0, 0)


@pytest.fixture
def feed(tmp_path):
    server = FeedServer(tmp_path / "feed.sock")
    yield server
    server.close()


@pytest.fixture
def opening(tmp_path, feed):
    return ViewOpening(tmp_path, "none", lambda _: Bootstrap(), LaneStatus(feed))


def shown(feed):
    return feed.snapshot()[ViewKey("t", TABLE.epoch, 0)]


def test_a_folder_that_cannot_be_made_is_a_reason_and_passes(tmp_path, feed, opening):
    directory = paths.partition_dir(tmp_path, "t", TABLE.epoch, 0)
    directory.parent.mkdir(parents=True)
    directory.write_text("in the way")
    assert opening.open(TARGET) == OpenLater(RETRY_S, "catching-up")
    assert "File exists" in shown(feed).reason
    other = opening.open(Target(TABLE, 1, 1))
    assert isinstance(other, FollowedPartition)
    other.close()
    directory.unlink()
    followed = opening.open(TARGET)
    assert isinstance(followed, FollowedPartition)
    followed.close()


def test_what_kafka_says_of_a_table_holds_up_that_table_until_it_is_known_what_is_wrong(tmp_path, feed):
    def without_topic(_):
        raise UsageError("there is no topic t")

    opening = ViewOpening(tmp_path, "none", without_topic, LaneStatus(feed))
    assert opening.open(TARGET) == OpenLater(RETRY_S, "catching-up")
    assert (shown(feed).state, shown(feed).reason) == ("catching-up", "there is no topic t")
    known = TARGET._replace(problem=epoch_changed(TABLE, None))
    assert opening.open(known) == OpenLater(RETRY_S, "stopped")
    assert shown(feed).state == "stopped"
    assert "restore" in shown(feed).reason


@pytest.mark.parametrize("spare", range(4))
def test_without_descriptors_nothing_is_called_damaged_and_what_lies_here_stays(feed, opening, spare):
    followed = opening.open(TARGET)
    followed.take(records([(b"k", b"v")]), 1)
    LaneStatus(feed).show(followed)
    path = followed.view.path
    followed.close()
    with descriptors(spare):
        later = opening.open(TARGET)
    assert later == OpenLater(RETRY_S, "catching-up")
    assert "Too many open files" in shown(feed).reason
    assert "remove" not in shown(feed).reason
    assert shown(feed).path == str(path)
    again = opening.open(TARGET)
    assert again.next_offset == 1
    again.close()


def test_a_snapshot_that_is_damaged_is_looked_at_again(tmp_path, feed):
    seeds = iter([Corrupted("the snapshot is damaged")])

    def bootstrapper(_):
        for error in seeds:
            raise error
        return Bootstrap()

    opening = ViewOpening(tmp_path, "none", bootstrapper, LaneStatus(feed))
    assert opening.open(TARGET) == OpenLater(RETRY_S, "stopped")
    assert "the snapshot is damaged" in shown(feed).reason
    followed = opening.open(TARGET)
    assert followed.next_offset == 0
    followed.close()
    shutil.rmtree(followed.directory)
