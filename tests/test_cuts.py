"""A cut is the records below it and their log time: the view is pinned before the cut's own record is applied."""

import pytest
from support_log import until
from support_view import records

from logstore.model.folding.digest import digest
from logstore.model.table import Table
from streaming.lane.cuts import Cuts
from streaming.lane.partition import FollowedPartition
from streaming.lane.target import Target

TABLE = Table("t", "t", "e" * 32, 1)
CUT = [("ls.op", b"cut")]


@pytest.fixture
def follow(tmp_path):
    opened = []

    def one(table=TABLE):
        opened.append(FollowedPartition(Target(table, 0, 0), tmp_path))
        return opened[-1]

    yield one
    for followed in opened:
        followed.close()


def log_with_cut(offsets, cut):
    """Puts, and a cut whose timestamp is far ahead of theirs."""
    made = records([(b"k%d" % offset, b"v") for offset in offsets])
    at = offsets.index(cut)
    keys, headers, times = list(made.keys), list(made.headers), list(made.timestamps_ms)
    keys[at], headers[at], times[at] = None, CUT, 9_000_000_000_000
    return made._replace(offsets=list(offsets), keys=keys, headers=headers, timestamps_ms=times)


def taken(cuts, followed, log):
    """Hand the log over, again after each pin that was waited for."""
    at = followed.next_offset

    def all_of_it():
        cuts.over()
        if cuts.holds(followed.target.key):
            return False
        left = [i for i, offset in enumerate(log.offsets) if offset >= followed.next_offset]
        return not left or (cuts.take(followed, log.slice(left[0]), 1) and followed.next_offset > log.offsets[-1])

    until(f"everything from {at} is applied", all_of_it)


def pinned(digest_client, followed, log):
    """(pin, errand, log time when it was pinned) of the cut in the log."""
    found = []
    cuts = Cuts(digest_client, lambda _, pin, errand: found.append((pin, errand)))
    reached = cuts.reached
    times = []
    cuts.reached = lambda f, cut: times.append(f.view.state.log_time_ms) or reached(f, cut)
    taken(cuts, followed, log)
    until("the digest is there", lambda: found)
    ((pin, errand),) = found
    assert errand.failure is None
    return pin, errand, times[-1]


@pytest.mark.parametrize("cut", [0, 3, 5])
def test_the_cuts_record_and_its_time_are_not_in_what_is_pinned(digest_client, follow, cut):
    followed = follow()
    log = log_with_cut(range(6), cut)
    pin, errand, log_time_ms = pinned(digest_client, followed, log)
    assert (pin.cut, pin.position, pin.root, errand.pinned_at) == (cut, cut, "", cut)
    assert log_time_ms == max([*log.timestamps_ms[:cut], 0])
    with followed.view.reader().reading() as reading:
        below = digest((key, entry) for key, entry in reading.scan() if int.from_bytes(entry[1:9]) < cut)
    assert errand.outcome == (below.hex, below.entries)
    assert followed.view.state.log_time_ms == 9_000_000_000_000  # afterwards the cut counts


def test_a_cut_behind_offsets_that_a_repair_gave_up_is_pinned_where_the_view_stands(digest_client, follow):
    followed = follow(TABLE.with_skip(0, 2, 3))
    pin, errand, _ = pinned(digest_client, followed, log_with_cut([0, 1, 4, 5], 4))
    assert (pin.cut, pin.position, errand.pinned_at, errand.outcome[1]) == (4, 2, 2, 2)
    assert followed.next_offset == 6


def test_a_cut_behind_a_gap_is_not_pinned(digest_client, follow):
    followed = follow()
    cuts = Cuts(digest_client, lambda *_: pytest.fail("nothing may be pinned"))
    assert not cuts.take(followed, log_with_cut([0, 1, 4, 5], 4), 1)
    assert (followed.next_offset, followed.stop.word) == (2, "gap")
