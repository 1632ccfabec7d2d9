"""The demand book: what is asked of Kafka, and which requests an answer serves."""

import threading
import time

from logstore.view.feed.acknowledgement import LogDemand
from streaming.control.demands.demand_book import DemandBook, Gathering

KEY, OTHER = ("e", 0), ("e", 1)


class Book:
    """A book with demands and a clock that the test sets."""

    def __init__(self) -> None:
        self.demands: list[LogDemand] = []
        self.now_ns = 0
        self.book = DemandBook(lambda: self.demands, lambda: self.now_ns)

    def want(self, key: tuple[str, int], since_ns: int) -> None:
        self.demands = [one for one in self.demands if one[:2] != key] + [LogDemand(*key, since_ns)]

    def take(self, at_ns: int) -> dict[tuple[str, int], int]:
        self.now_ns = at_ns
        return self.book.take(lambda _key: True)


def test_a_demand_joins_the_next_asking_and_none_that_is_under_way():
    book = Book()
    book.want(KEY, 10)
    assert book.take(11) == {KEY: 11}
    book.want(KEY, 12)  # came after the asking at 11 had begun
    assert book.take(13) == {}  # one at most is under way
    book.book.answered(KEY)
    assert book.take(14) == {KEY: 14}
    book.book.answered(KEY)
    assert book.take(15) == {}  # it is answered


def test_what_comes_while_one_is_under_way_is_asked_for_once():
    book = Book()
    book.want(KEY, 1)
    assert book.take(2) == {KEY: 2}
    for since_ns in range(3, 100):
        book.want(KEY, since_ns)
        assert book.take(since_ns) == {}
    book.book.answered(KEY)
    assert book.take(100) == {KEY: 100}
    book.book.answered(KEY)
    assert book.take(101) == {}


def test_an_asking_at_the_very_time_of_a_demand_serves_it():
    book = Book()
    book.want(KEY, 10)
    assert book.take(10) == {KEY: 10}
    book.book.answered(KEY)
    assert book.take(11) == {}


def test_several_readers_and_partitions_are_asked_for_together():
    book = Book()
    book.demands = [LogDemand(*KEY, 5), LogDemand(*OTHER, 6), LogDemand(*KEY, 7)]
    assert book.take(8) == {KEY: 8, OTHER: 8}
    book.book.answered(KEY)
    book.demands = [LogDemand(*KEY, 9), LogDemand(*OTHER, 9)]
    assert book.take(10) == {KEY: 10}  # the other one is under way still


def test_a_reader_that_repeats_its_demand_to_a_new_worker_is_heard():
    old, new = Book(), Book()
    old.want(KEY, 10)
    assert old.take(11) == {KEY: 11}  # and the worker dies
    new.demands = old.demands
    assert new.take(20) == {KEY: 20}


def test_what_is_not_followed_here_is_asked_for_once_it_is():
    book = Book()
    book.want(KEY, 10)
    book.now_ns = 11
    assert book.book.take(lambda _key: False) == {}
    assert book.take(12) == {KEY: 12}


def test_a_demand_by_another_clock_or_without_a_time_asks_for_nothing():
    book = Book()
    book.want(KEY, 1_000)
    book.want(OTHER, LogDemand().since_ns)
    assert book.take(999) == {}
    assert book.take(1_000) == {KEY: 1_000}


def test_who_comes_after_a_rest_is_asked_for_at_once_and_the_next_one_later():
    gathering, begun_s = Gathering(0.05), time.monotonic()
    gathering.wait()
    gathering.wait()
    assert time.monotonic() - begun_s >= 0.05
    patient = Gathering(3_600)
    patient.wait()
    waiting = threading.Thread(target=patient.wait)
    waiting.start()
    patient.end()
    waiting.join(60)
    assert not waiting.is_alive(), "who ends waits for nothing"
