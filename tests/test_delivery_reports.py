"""Delivery reports of a chunk of writes, which come on another thread while they are looked at."""

import sys
import threading

import pytest
from confluent_kafka import KafkaError

from logstore.client.write.batch import _Sent


@pytest.fixture
def switching():
    """Threads take turns all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_reports_may_come_while_they_are_gone_through(switching):
    sent = _Sent(range(2), {}, 2, set())
    ended = threading.Event()

    def report():
        while not ended.is_set():
            for count in range(50):  # keys that a dictionary has room for, and then has not
                sent.reports[count] = None
            sent.reports.clear()

    reporting = threading.Thread(target=report)
    reporting.start()
    try:
        for _ in range(20_000):
            sent.last = {0: {}}
            sent.settled()
            sent.nothing_arrived()
    finally:
        ended.set()
        reporting.join()


def test_a_failure_settles_a_chunk_whatever_else_is_to_come():
    sent = _Sent(range(2), {0: {}}, 1, set())
    assert not sent.settled()
    sent.reports[None] = object()
    assert not sent.settled()
    sent.reports[KafkaError(KafkaError._MSG_TIMED_OUT)] = object()
    assert sent.settled()
