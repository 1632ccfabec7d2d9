"""Points of the logs in a reader: which one answers a request, and which are kept."""

import random

import pytest

from logstore.serve.state import log_points
from logstore.serve.state.log_points import BARRIER, END, LogPoints
from logstore.serve.state.waiters import Waiters
from logstore.view.feed.acknowledgement import LogDemand
from logstore.view.feed.log_records import LogPointRecord, clock_ns

WHERE = ("e", 0)
PLACE = (END, *WHERE)


@pytest.fixture
def points():
    return LogPoints(Waiters(10))


def test_the_first_point_asked_for_since_then_answers(points):
    for asked_ns, end in ((10, 100), (20, 110), (30, 120)):
        points.heard(END, WHERE, LogPointRecord(asked_ns, end))
    assert [points.first(PLACE, since) for since in (-5, 10, 11, 20, 30, 31)] == [100, 100, 110, 110, 120, None]
    assert points.first((BARRIER, *WHERE), 0) is None  # an end is no barrier
    assert points.first((END, "e", 1), 0) is None


def test_a_point_that_is_told_again_or_out_of_order_changes_nothing(points):
    points.heard(END, WHERE, LogPointRecord(20, 100))
    points.heard(END, WHERE, LogPointRecord(20, 90))
    points.heard(END, WHERE, LogPointRecord(10, 95))
    assert [points.first(PLACE, since) for since in (0, 20)] == [100, 100]


def test_a_point_without_a_time_or_of_a_time_to_come_is_none(points):
    points.heard(END, WHERE, LogPointRecord(0, 100))  # of a worker that does not know of times
    points.heard(END, WHERE, LogPointRecord(clock_ns() + 10**12, 100))  # of one with another clock
    assert points.first(PLACE, -1) is None


def test_what_is_wanted_is_listed_until_it_is_known_or_nobody_waits(points):
    rings = []
    points.on_change = lambda: rings.append(points.listed(END))
    with points.wanted(PLACE, 10), points.wanted(PLACE, 15), points.wanted(PLACE, 12):
        assert points.listed(END) == (LogDemand("e", 0, 15),)
        assert points.listed(BARRIER) == ()
        points.heard(END, WHERE, LogPointRecord(14, 100))
        assert points.listed(END) == (LogDemand("e", 0, 15),)  # came after that was asked
        points.heard(END, WHERE, LogPointRecord(16, 101))
        assert points.listed(END) == ()
    with points.wanted(PLACE, 20):
        assert points.listed(END) == (LogDemand("e", 0, 20),)
    assert points.listed(END) == ()
    assert rings == [(LogDemand("e", 0, at),) for at in (10, 15, 20)]


def test_more_than_can_be_named_at_once_come_next(points, monkeypatch):
    monkeypatch.setattr(log_points, "MOST", 2)
    with points.wanted(PLACE, 1), points.wanted((END, "e", 1), 1), points.wanted((END, "e", 2), 1):
        assert [one.partition for one in points.listed(END)] == [0, 1]
        points.heard(END, ("e", 0), LogPointRecord(2, 7))
        assert [one.partition for one in points.listed(END)] == [1, 2]


def test_a_refusal_answers_who_came_before_it_and_is_forgotten_with_the_next_answer(points):
    points.heard(END, WHERE, LogPointRecord(10, 5))
    points.heard(END, WHERE, LogPointRecord(20, -1, "no leader"))
    assert points.failure(PLACE, 20) == "no leader"
    assert points.failure(PLACE, 21) is None
    assert points.first(PLACE, 10) == 5  # an older request goes on
    with points.wanted(PLACE, 20):
        assert points.listed(END) == ()
    points.heard(END, WHERE, LogPointRecord(30, 9))
    assert points.failure(PLACE, 20) is None
    assert points.first(PLACE, 20) == 9


@pytest.mark.parametrize("seed", range(20))
def test_a_thinned_history_never_answers_with_less_than_the_whole_one(points, seed):
    rng, whole, asked_ns, end, applied = random.Random(seed), [], 0, 0, 0
    for _ in range(400):
        asked_ns, end = asked_ns + rng.randrange(1, 1_000), end + rng.randrange(3)
        applied = max(applied, end - rng.randrange(1, 100))
        whole.append((asked_ns, end))
        points.heard(END, WHERE, LogPointRecord(asked_ns, end), applied)
        since_ns = rng.randrange(asked_ns + 1)
        exact = next(end for asked, end in whole if asked >= since_ns)
        found = points.first(PLACE, since_ns)
        assert exact <= found <= max(end, applied), (seed, since_ns)


def test_the_history_is_bounded_and_topics_of_the_past_are_forgotten(points):
    for n in range(1, 1_000):
        points.heard(END, WHERE, LogPointRecord(n, n))
    assert len(points._known[PLACE]) <= 16
    assert points.first(PLACE, 0) == 1  # the oldest stays until it is applied
    points.heard(END, WHERE, LogPointRecord(1_000, 1_000), applied=1_000)
    assert points._known[PLACE] == [(1_000, 1_000)]
    points.forget(frozenset({"e"}))
    assert points.first(PLACE, 0) is None
