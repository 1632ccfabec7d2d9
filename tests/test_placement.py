"""Placement: what a worker follows while slots move."""

from logstore.log.membership.nodes import Announcement
from streaming.control.placement import Placement


def other(node, slots=(), live=(), worker=0):
    return Announcement(node, worker, f"http://{node}", "g", slots=list(slots), live=list(live))


def test_what_is_assigned_is_followed():
    place = Placement("me", 0)
    place.assign({1, 2})
    assert place.followed == {1, 2}


def test_a_slot_is_kept_until_its_next_owner_is_live():
    place = Placement("me", 0)
    place.assign({1, 2})
    place.assign({1})
    assert place.followed == {1, 2}
    assert not place.settle([other("you", slots=[2])])
    assert place.followed == {1, 2}
    assert place.settle([other("you", slots=[2], live=[2])])
    assert place.followed == {1}


def test_a_worker_of_the_same_node_is_given_the_slot_at_once():
    place = Placement("me", 0)
    place.assign({1})
    place.assign(())
    assert place.settle([other("me", slots=[1], worker=1)])
    assert place.followed == frozenset()


def test_what_this_worker_says_of_itself_does_not_count():
    place = Placement("me", 0)
    place.assign({1})
    place.assign(())
    assert not place.settle([other("me", slots=[1], live=[1])])
    assert place.followed == {1}


def test_a_slot_is_kept_however_long_its_next_owner_takes_to_catch_up():
    place = Placement("me", 0)
    place.assign({1})
    place.assign(())
    for _ in range(1_000):
        assert not place.settle([other("you", slots=[1])])
    assert place.followed == {1}
    assert place.settle([other("you", slots=[1], live=[1])])
    assert place.followed == frozenset()


def test_a_slot_that_nobody_claims_is_kept():
    place = Placement("me", 0)
    place.assign({1})
    place.assign(())
    assert not place.settle([other("you", slots=[7])])
    assert place.followed == {1}


def test_a_slot_that_comes_back_is_simply_followed():
    place = Placement("me", 0)
    place.assign({1})
    place.assign(())
    place.assign({1})
    place.settle([other("you", live=[1], slots=[1])])
    assert place.followed == {1}


def test_after_a_restart_the_former_slots_are_followed_before_faust_has_spoken():
    place = Placement("me", 0, before=[3])
    assert (place.assigned, place.followed) == (frozenset(), {3})
    place.settle([other("you", slots=[3], live=[3])])
    assert place.followed == frozenset()
