"""Slots: where partitions lie, and in which order slots are handed out."""

import pytest

from logstore.model.slots import slot_of, spread


def test_equal_partitions_of_all_tables_share_a_slot():
    assert [slot_of(partition, 4) for partition in range(10)] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8, 16, 17, 64])
def test_every_slot_is_handed_out_once(slots):
    assert sorted(spread(slots)) == list(range(slots))


@pytest.mark.parametrize("workers", [1, 2, 4, 8, 16])
def test_the_first_slots_go_to_different_workers(workers):
    order, share = spread(16), 16 // workers
    owner = {slot: place // share for place, slot in enumerate(order)}  # ranges, as group coordinators hand them out
    assert {owner[slot] for slot in range(workers)} == set(range(workers))


def test_the_order_is_part_of_the_store_and_never_changes():
    assert spread(16) == [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15]
    assert spread(6) == [0, 4, 2, 1, 5, 3]


@pytest.mark.parametrize("slots", [4, 8, 12, 16, 20, 32, 64])
@pytest.mark.parametrize("workers", [2, 4])
def test_the_first_four_slots_are_shared_evenly(slots, workers):
    order, share = spread(slots), slots // workers
    owners = [order.index(slot) // share for slot in range(4)]
    assert sorted(owners) == sorted([*range(workers)] * (4 // workers))


@pytest.mark.parametrize("slots", range(1, 130))
def test_the_order_is_a_permutation_that_begins_with_slot_0(slots):
    order = spread(slots)
    assert sorted(order) == list(range(slots))
    assert order[0] == 0
