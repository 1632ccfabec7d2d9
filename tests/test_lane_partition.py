"""One partition between log and view: gaps, ends, repeats, stops."""

import random

import pytest
from support_view import copy, records, truncate, used_bytes, zero_pages, zero_root

from logstore.model.errors import Corrupted, LogUnreachable, Overloaded
from logstore.model.folding.entry import VALUE, Entry
from logstore.model.table import Table
from logstore.view.layout import Base, Stop
from streaming.lane.disk.opened_view import Bootstrap
from streaming.lane.partition import FollowedPartition
from streaming.lane.target import Target

TABLE = Table("t", "t", "e" * 32, 1)


@pytest.fixture
def follow(tmp_path):
    opened = []

    def open_one(table=TABLE):
        opened.append(FollowedPartition(Target(table, 0, 0), tmp_path))
        return opened[-1]

    yield open_one
    for followed in opened:
        if followed.owner is not None:
            followed.close()


def rows(count, first=0):
    return records([(b"k%d" % n, b"v") for n in range(first, first + count)], first)


def _close(followed):
    followed.close()
    followed.owner = None


def reopened(follow, followed, table=TABLE):
    _close(followed)
    return follow(table)


def test_a_dense_log_is_applied_and_live_at_its_end(follow):
    followed = follow()
    assert followed.phase == "catching-up"
    assert followed.take(rows(5), 1)
    assert followed.at_end(5)
    assert (followed.next_offset, followed.phase, followed.reason) == (5, "live", None)
    assert followed.view.state.leader_epoch == 1


def test_a_gap_in_the_middle_stops_right_before_it(follow):
    followed = follow()
    holed = rows(6)
    assert not followed.take(holed._replace(offsets=[0, 1, 2, 5, 6, 7]), 1)
    assert (followed.next_offset, followed.phase, followed.stop.word, followed.stop.offset) == (3, "stopped", "gap", 3)
    assert "--skip 3..4" in followed.reason


def test_a_gap_at_the_end_is_a_gap(follow):
    followed = follow()
    followed.take(rows(3), 1)
    assert not followed.at_end(4)
    assert "--skip 3..3" in followed.reason


def test_a_repaired_gap_is_stepped_over(follow):
    followed = follow(TABLE.with_skip(0, 3, 4))
    assert followed.take(rows(6)._replace(offsets=[0, 1, 2, 5, 6, 7]), 1)
    assert followed.next_offset == 8
    assert followed.at_end(8)


def test_a_gap_that_is_repaired_in_part_still_stops(follow):
    followed = follow(TABLE.with_skip(0, 3, 3))
    assert not followed.take(rows(6)._replace(offsets=[0, 1, 2, 5, 6, 7]), 1)
    assert (followed.next_offset, followed.stop.offset) == (3, 4)
    assert "--skip 4..4" in followed.reason


def test_a_gap_at_the_end_that_is_repaired_in_part_still_stops(follow):
    followed = follow(TABLE.with_skip(0, 3, 3))
    followed.take(rows(3), 1)
    assert not followed.at_end(6)
    assert "--skip 4..5" in followed.reason


def test_two_repairs_side_by_side_cover_one_gap(follow):
    followed = follow(TABLE.with_skip(0, 4, 4).with_skip(0, 3, 3))
    assert followed.take(rows(6)._replace(offsets=[0, 1, 2, 5, 6, 7]), 1)
    assert followed.next_offset == 8


def test_a_repaired_gap_at_the_end_moves_the_position(follow):
    followed = follow(TABLE.with_skip(0, 3, 4))
    followed.take(rows(3), 1)
    assert followed.at_end(5)
    assert followed.next_offset == 5


def test_a_stop_outlives_a_restart_and_ends_with_the_next_record(follow):
    followed = follow()
    followed.at_end(1)
    again = reopened(follow, followed, TABLE.with_skip(0, 0, 0))
    assert again.phase == "stopped"
    assert again.take(rows(2, first=1), 1)
    assert (again.next_offset, again.stop) == (3, None)


def test_a_stop_ends_when_the_log_ends_where_the_view_stands(follow):
    followed = follow()
    followed.halt(Stop("misconfigured", "look", 0))
    assert followed.at_end(0)
    assert followed.phase == "live"
    followed = reopened(follow, followed)
    assert followed.stop is None


def test_the_second_of_two_gaps_stops_where_the_first_is_repaired(follow):
    followed = follow(TABLE.with_skip(0, 1, 1))
    assert not followed.take(rows(3)._replace(offsets=[0, 2, 4]), 1)
    assert (followed.next_offset, followed.stop.offset) == (3, 3)


def test_a_gap_behind_what_was_applied_already_is_found(follow):
    followed = follow()
    followed.take(rows(3), 1)
    assert not followed.take(rows(4)._replace(offsets=[1, 2, 3, 6]), 1)
    assert (followed.next_offset, followed.stop.offset) == (4, 4)


def test_what_comes_first_stops_first(follow):
    followed = follow()
    later = rows(3)._replace(offsets=[0, 1, 4], headers=[None, [("ls.v", b"\x02")], None])
    assert not followed.take(later, 1)
    assert (followed.stop.word, followed.stop.offset) == ("unsupported", 1)
    followed = reopened(follow, followed, TABLE.with_skip(0, 1, 1))
    assert not followed.take(later.slice(1), 1)
    assert (followed.stop.word, followed.stop.offset, followed.next_offset) == ("gap", 2, 2)


def test_records_that_a_repair_gave_up_are_not_folded(follow):
    followed = follow(TABLE.with_skip(0, 1, 2).with_skip(0, 5, 5))
    assert followed.take(rows(6), 1)
    with followed.view.reader().reading() as reading:
        assert [key for key, _ in reading.scan()] == [b"k0", b"k3", b"k4"]
    assert followed.next_offset == 6


@pytest.mark.parametrize("seed", range(30))
def test_any_way_of_handing_the_log_over_gives_the_same_view(follow, seed):
    rng = random.Random(seed)
    gone = [(offset, offset + rng.randrange(3)) for offset in rng.sample(range(60), 4)]
    table = TABLE
    for first, last in gone:
        table = table.with_skip(0, first, last)
    there = [n for n in range(60) if not any(first <= n <= last for first, last in gone) or rng.random() < 0.5]
    followed, at = follow(table), 0
    while at < len(there):
        begin = max(0, at - rng.randrange(4))  # some come again
        at = min(len(there), at + rng.randrange(1, 20))
        part = there[begin:at]
        assert followed.take(records([(b"k%d" % n, b"v") for n in part])._replace(offsets=part), 1)
    assert followed.at_end(60)
    with followed.view.reader().reading() as reading:
        folded = [n for n in range(60) if not any(first <= n <= last for first, last in gone)]
        assert sorted(reading.scan()) == sorted((b"k%d" % n, Entry(VALUE, n, 1, b"v").encode()) for n in folded)
    assert followed.next_offset == 60


def test_what_was_applied_is_not_applied_again(follow):
    followed = follow()
    followed.take(rows(5), 1)
    assert followed.take(rows(7), 1)
    assert followed.next_offset == 7
    assert followed.take(rows(3), 1)
    assert followed.next_offset == 7


def test_an_open_transaction_needs_two_looks(follow):
    followed = follow()
    followed.take(rows(2), 1)
    followed.at_end(2)
    followed.look(5)
    assert followed.reason is None
    followed.look(5)
    assert "transaction" in followed.reason
    followed.take(rows(3, first=2), 1)
    followed.look(5)
    assert followed.reason is None


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (("ls.v", b"\x02"), "upgrade logstore, or give the record up"),
        (("ls.op", b"incr"), "`table create --conditional`, and this one is plain; give the record up"),
        (("ls.ttl", bytes(8)), "`table create --expiring`, and this one is plain; give the record up"),
    ],
)
def test_a_record_that_cannot_be_folded_stops_the_partition(follow, header, says):
    followed = follow()
    later = rows(3)._replace(headers=[None, [header], None])
    assert not followed.take(later, 1)
    assert (followed.next_offset, followed.stop.word) == (1, "unsupported")
    assert says in followed.reason


def test_a_log_that_was_cut_back_says_what_helps(follow):
    followed = follow()
    followed.out_of_range(50, 60, "Broker: Offset out of range")
    assert followed.stop.word == "truncated"
    assert "table repair t --partition 0" in followed.reason


def test_a_view_of_nothing_that_is_told_of_another_log_is_followed_again(follow):
    """A fetch of the topic that had the name before is answered when the new one is followed already."""
    followed = follow()
    with pytest.raises(LogUnreachable, match="it holds offsets 0 to 225"):
        followed.out_of_range(0, 225, "Broker: Offset out of range")
    assert followed.stop is None
    followed.out_of_range(50, 225, "Broker: Offset out of range")
    assert followed.stop.word == "truncated"
    followed = reopened(follow, followed)
    assert followed.start() == (0, -1)  # it is looked at again
    assert followed.stop.word == "truncated"
    assert followed.take(rows(5), 3)
    assert (followed.stop, followed.next_offset) == (None, 5)


def test_nothing_is_applied_before_the_log_has_shown_the_last_record_that_was(follow):
    followed = follow()
    followed.take(rows(5), 3)
    followed = reopened(follow, followed)
    assert followed.start() == (4, 3)
    assert followed.proved is None
    assert followed.prove(rows(3, first=4))
    assert followed.take(rows(3, first=4), 3)
    assert (followed.next_offset, followed.proved.last.offset) == (7, 6)


@pytest.mark.parametrize("holds", ["another", "none there", "less"])
def test_a_log_without_the_last_record_that_was_applied_stops_and_stays_stopped(follow, holds):
    followed = follow()
    followed.take(rows(5), 3)
    for _ in range(2):
        followed = reopened(follow, followed)
        assert followed.start() == (4, 3)
        if holds == "less":
            followed.prove_end(2)
        else:
            assert not followed.prove(records([(b"other", b"v")], first=4 if holds == "another" else 9))
        assert (followed.stop.word, followed.next_offset) == ("truncated", 5)
        assert "--accept-loss" in followed.reason
    assert followed.start() == (4, 3)  # it is looked at again, and may be as it was
    assert followed.prove(rows(1, first=4))
    assert (followed.phase, followed.stop) == ("catching-up", None)


def test_a_leader_that_has_just_come_is_asked_again(follow):
    followed = follow()
    followed.take(rows(5), 3)
    assert followed.start() == (4, 3)
    with pytest.raises(LogUnreachable):
        followed.prove_end(5)
    assert followed.stop is None


def test_a_log_whose_beginning_was_trimmed_up_to_the_view_is_followed(follow):
    followed = follow()
    followed.take(rows(5), 3)
    assert followed.start() == (4, 3)
    followed.out_of_range(5, 9, "")
    assert (followed.proof.again, followed.start()) == (True, (5, 3))
    assert followed.prove(rows(2, first=5))
    assert followed.take(rows(2, first=5), 3)


def test_a_beginning_that_is_gone_and_given_up_is_stepped_over(follow):
    followed = follow()
    followed.take(rows(5), 3)
    for start, again in ((4, True), (5, False)):
        assert followed.start() == (start, 3)
        followed.out_of_range(9, 20, "")
        assert followed.proof.again == again
    assert (followed.stop.word, followed.stop.offset) == ("truncated", 5)
    followed = reopened(follow, followed, TABLE.with_skip(0, 5, 8))
    assert followed.start() == (4, 3)
    assert (followed.next_offset, followed.stop) == (9, None)
    followed.out_of_range(9, 20, "")
    assert followed.start() == (9, 3)


def test_a_view_of_what_was_lost_is_thrown_away_once_that_is_accepted(follow):
    followed = follow()
    followed.take(rows(5), 3)
    accepted = TABLE.with_loss(0, [(2, 4)])
    followed = reopened(follow, followed, accepted)
    assert followed.start() == (4, 3)
    with pytest.raises(Corrupted, match="the loss was accepted"):
        followed.prove(records([(b"other", b"v")], first=4))
    assert not accepted.is_void(0, 2, 3)
    assert not accepted.is_void(0, 5, 4)
    assert not accepted.is_void(1, 5, 3)


def test_what_outlived_the_view_is_asked_for_first(tmp_path):
    first = FollowedPartition(Target(TABLE, 0, 0), tmp_path / "a")
    first.take(rows(5), 3)
    outlived = first.applied
    first.close()
    followed = FollowedPartition(Target(TABLE, 0, 0), tmp_path / "b", outlived=outlived)
    assert followed.start() == (4, 3)
    assert not followed.prove(records([(b"other", b"v")], first=4))
    assert followed.phase == "stopped"
    assert followed.start() == (4, 3)
    assert not followed.prove(rows(3, first=4))
    assert (followed.proof.again, followed.stop) == (True, None)
    assert followed.start() == (0, -1)
    followed.close()


def test_a_view_that_begins_on_a_snapshot_asks_for_the_record_below_its_cut(tmp_path):
    first = FollowedPartition(Target(TABLE, 0, 0), tmp_path / "a")
    first.take(rows(5), 3)
    base = Base("s", 5, 1, "0" * 32, 5, "", 3, first.applied.last.text)
    first.close()
    followed = FollowedPartition(Target(TABLE, 0, 0), tmp_path / "b", bootstrapper=lambda _: Bootstrap(base))
    assert followed.start() == (4, 3)
    assert not followed.prove(records([(b"other", b"v")], first=4))
    assert followed.stop.word == "truncated"
    followed.close()


def test_the_same_halt_twice_is_one(follow):
    followed = follow()
    stop = Stop("epoch-changed", "look", 0)
    followed.halt(stop)
    followed.halt(stop)
    assert followed.stop == stop


def test_two_cannot_follow_one_partition(follow, tmp_path):
    follow()
    with pytest.raises(Overloaded):
        FollowedPartition(Target(TABLE, 0, 0), tmp_path)


@pytest.mark.parametrize(
    "harm", [zero_root, lambda path: truncate(path, used_bytes(path) // 2)], ids=["zeroed", "cut short"]
)
def test_a_damaged_view_is_removed_and_begins_again(follow, harm):
    followed = follow()
    followed.take(rows(500), 1)
    path = followed.view.path
    (path / "nothing of ours").touch()
    _close(followed)
    harm(path)
    again = follow()
    assert (again.next_offset, again.view.path) == (0, path)
    assert not (path / "nothing of ours").exists()
    again.take(rows(500), 1)
    with again.view.reader().reading() as reading:
        assert len(list(reading.scan())) == 500


def test_a_damaged_generation_leaves_the_one_before_it(follow):
    followed = follow()
    followed.take(rows(500), 1)
    path = followed.view.path
    _close(followed)
    copy(path, path.with_name("2"))
    zero_root(path.with_name("2"))
    again = follow()
    assert (again.next_offset, again.view.path) == (500, path)
    assert not path.with_name("2").exists()


def test_a_view_whose_file_is_gone_begins_again(follow):
    followed = follow()
    followed.take(rows(5), 1)
    path = followed.view.path
    _close(followed)
    (path / "data.mdb").unlink()
    assert follow().next_offset == 0


def test_a_discarded_view_is_gone_and_nobody_owns_it(follow):
    followed = follow()
    followed.take(rows(500), 1)
    zero_pages(followed.view.path)
    with pytest.raises(Corrupted):
        followed.take(rows(5, 500), 1)
    followed.discard()
    followed.owner = None
    assert not followed.view.path.exists()
    assert follow().next_offset == 0
