"""The watchdog: a new consumer first, a new process after that."""

from streaming.control.watchdog import ReaderWatch, Watchdog

KEY, OTHER = ("e", 0), ("e", 1)


def test_progress_is_never_a_stall():
    dog = Watchdog(stall_s=10)
    assert all(dog.look({KEY: at}, at * 9.0) == (set(), set()) for at in range(20))


def test_standing_still_asks_for_a_consumer_then_for_a_process():
    dog = Watchdog(stall_s=10)
    assert dog.look({KEY: 5}, 0) == (set(), set())
    assert dog.look({KEY: 5, OTHER: 1}, 9) == (set(), set())
    assert dog.look({KEY: 5, OTHER: 2}, 10) == ({KEY}, set())
    assert dog.look({KEY: 5}, 19) == (set(), set())
    assert dog.look({KEY: 5}, 20) == (set(), {KEY})


def test_a_new_consumer_that_helped_is_forgotten_even_if_it_never_caught_up():
    dog = Watchdog(stall_s=10)
    dog.look({KEY: 5}, 0)
    assert dog.look({KEY: 5}, 10) == ({KEY}, set())
    assert dog.look({KEY: 900}, 15) == (set(), set())
    assert dog.look({KEY: 900}, 25) == ({KEY}, set())
    assert dog.look({KEY: 900}, 35) == (set(), {KEY})


def test_partitions_stand_still_each_for_itself():
    dog = Watchdog(stall_s=10)
    dog.look({KEY: 5}, 0)
    dog.look({KEY: 5, OTHER: 1}, 5)
    assert dog.look({KEY: 5, OTHER: 1}, 10) == ({KEY}, set())
    assert dog.look({KEY: 5, OTHER: 1}, 15) == ({OTHER}, set())
    assert dog.look({KEY: 5, OTHER: 1}, 25) == (set(), {KEY, OTHER})


def test_who_caught_up_in_between_begins_anew():
    dog = Watchdog(stall_s=10)
    dog.look({KEY: 5}, 0)
    assert dog.look({KEY: 5}, 10) == ({KEY}, set())
    dog.look({}, 11)
    dog.look({KEY: 7}, 12)
    assert dog.look({KEY: 7}, 22) == ({KEY}, set())


def test_readers_that_were_there_and_stay_away_are_missed():
    watch = ReaderWatch(unread_s=20.0)
    assert not any(watch.gone(0, float(at)) for at in range(0, 100, 10))  # they have not come up yet
    assert not watch.gone(2, 100.0)
    assert not watch.gone(0, 119.0)
    assert not watch.gone(1, 125.0)  # one is enough: it was started again
    assert watch.gone(0, 145.0)
