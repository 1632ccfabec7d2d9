"""The watchdog: a new consumer first, a new process after that."""

from streaming.control.watchdog import ReaderWatch, RunningClock, Watchdog

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


def test_who_was_silent_during_a_pause_has_as_long_as_ever_and_then_the_pause_is_the_reason():
    clock = RunningClock(6.0, 100.0)
    for at in (101.0, 102.0, 107.5):  # a second, and one that came late on a busy machine
        assert clock.look(at) == at
        assert (clock.ran_since(90.0), clock.lost_session(90.0)) == (at - 90.0, None)
    clock.look(147.5)
    assert clock.ran_since(107.0) == 0.5
    clock.look(148.5)
    assert (clock.ran_since(107.0), clock.ran_since(148.0)) == (1.5, 0.5)
    assert "paused for 40 s" in clock.lost_session(107.0)
    assert "paused for 40 s" in clock.lost_session(148.0)  # seen once more, by what it knew from before
    assert clock.lost_session(155.0) is None  # that is another reason


def test_one_pause_after_the_other_counts():
    clock = RunningClock(6.0, 0.0)
    for at in (1.0, 21.0, 22.0, 52.0, 53.0):
        clock.look(at)
    assert clock.ran_since(1.0) == 2.0
    assert "paused for 30 s" in clock.lost_session(1.0)


def test_a_pause_is_neither_a_stall_nor_a_loss_of_readers():
    clock, dog, watch = RunningClock(6.0, 0.0), Watchdog(stall_s=10.0), ReaderWatch(unread_s=20.0)
    dog.look({KEY: 5}, clock.look(1.0))
    assert not watch.gone(2, clock.look(2.0))
    after_s = clock.look(600.0)
    assert dog.look({KEY: 5}, after_s) == (set(), set())
    assert not watch.gone(0, after_s)
    for at in range(601, 615):
        after_s = clock.look(float(at))
    assert dog.look({KEY: 5}, after_s) == ({KEY}, set())  # this it has seen itself
    for at in range(615, 625):
        after_s = clock.look(float(at))
    assert watch.gone(0, after_s)
