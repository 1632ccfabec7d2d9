"""Placement: what a worker follows while slots move."""

from logstore.log.nodes import Announcement
from streaming.control.placement import HANDOVER_S, Placement


def other(node, slots=(), live=(), worker=0):
    return Announcement(node, worker, f"http://{node}", "g", slots=list(slots), live=list(live))


def test_what_is_assigned_is_followed():
    place = Placement("me", 0)
    place.assign({1, 2}, 0)
    assert place.followed == {1, 2}


def test_a_slot_is_kept_until_its_next_owner_is_live():
    place = Placement("me", 0)
    place.assign({1, 2}, 0)
    place.assign({1}, 10)
    assert place.followed == {1, 2}
    assert not place.settle([other("you", slots=[2])], 11)
    assert place.followed == {1, 2}
    assert place.settle([other("you", slots=[2], live=[2])], 12)
    assert place.followed == {1}


def test_a_worker_of_the_same_node_is_given_the_slot_at_once():
    place = Placement("me", 0)
    place.assign({1}, 0)
    place.assign((), 0)
    assert place.settle([other("me", slots=[1], worker=1)], 0)
    assert place.followed == frozenset()


def test_what_this_worker_says_of_itself_does_not_count():
    place = Placement("me", 0)
    place.assign({1}, 0)
    place.assign((), 0)
    assert not place.settle([other("me", slots=[1], live=[1])], 0)
    assert place.followed == {1}


def test_a_next_owner_that_never_gets_ready_does_not_hold_a_slot_for_ever():
    place = Placement("me", 0)
    place.assign({1}, 0)
    place.assign((), 0)
    assert not place.settle([other("you", slots=[1])], HANDOVER_S - 1)
    assert place.settle([other("you", slots=[1])], HANDOVER_S + 1)
    assert place.followed == frozenset()


def test_a_slot_that_nobody_claims_is_kept():
    place = Placement("me", 0)
    place.assign({1}, 0)
    place.assign((), 0)
    assert not place.settle([other("you", slots=[7])], HANDOVER_S * 10)
    assert place.followed == {1}


def test_a_slot_that_comes_back_is_simply_followed():
    place = Placement("me", 0)
    place.assign({1}, 0)
    place.assign((), 0)
    place.assign({1}, 1)
    place.settle([other("you", live=[1], slots=[1])], HANDOVER_S * 10)
    assert place.followed == {1}


def test_after_a_restart_the_former_slots_are_followed_before_faust_has_spoken():
    place = Placement("me", 0, before=[3], now_s=100)
    assert (place.assigned, place.followed) == (frozenset(), {3})
    place.settle([other("you", slots=[3], live=[3])], 101)
    assert place.followed == frozenset()
