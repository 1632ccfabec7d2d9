"""The end of a store: it is closed, forgotten by its program, or ends with it; nothing is lost."""

import gc
import socket
import subprocess
import sys
import threading
import warnings
from time import monotonic

import pytest
from support_producer import Fixed, read_log
from support_wait import until

from logstore import Store
from logstore.log.write.connection import Connection
from logstore.log.write.producer import Producer
from logstore.log.write.topic_proof import TopicProof
from logstore.model.errors import (
    UsageError,
)
from logstore.model.table import Table


@pytest.fixture
def silent():
    """The address of a broker that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def connection(bootstrap, **more):
    return Connection(bootstrap, Producer.settings(queue_records=1_000, queue_bytes=1 << 20, **more))


def test_what_a_silent_broker_has_not_answered_is_reported_when_the_client_lets_go(silent):
    unanswered, reports = connection(silent), []
    for _ in range(500):
        unanswered.raw.produce("t", b"v", b"k", 0, lambda error, _: reports.append(error.name()))
    unanswered.let_go(monotonic() + 30)
    assert reports == ["_PURGE_QUEUE"] * 500
    assert not unanswered.poller.is_alive()


def test_letting_go_waits_for_no_callback_of_the_caller(silent):
    unanswered, within, release = connection(silent, delivery_timeout_s=0.2), threading.Event(), threading.Event()

    def held(*_):
        within.set()
        release.wait(60)

    unanswered.raw.produce("t", b"v", b"k", 0, held)
    assert within.wait(60), "the thread reports what was not delivered in time"
    unanswered.let_go(monotonic())
    assert unanswered.poller.is_alive()  # with the callback, which has not ended
    release.set()
    unanswered.poller.join(60)
    assert not unanswered.poller.is_alive()


def test_a_flush_that_is_late_asks_little_more_of_kafka():
    asked = []
    proof = TopicProof(lambda _topic, timeout_s: (asked.append(timeout_s), "e" * 32)[1])
    table = Table("t", "t", "e" * 32, 1)
    for end in (None, monotonic() - 5, monotonic() + 600, monotonic() + 3):
        proof.prove(table, end)
    assert asked[:3] == [10.0, 0.2, 10.0]
    assert 0.2 <= asked[3] <= 3


def test_close_flushes_and_is_final(kafka, fixed_table):
    store = Store(kafka.bootstrap, definitions=Fixed(fixed_table))
    pipe = store.pipeline(fixed_table.name)
    pendings = [pipe.put(b"%d" % i, b"v") for i in range(5000)]
    store.close()
    assert all(pending.done() and pending.exception() is None for pending in pendings)
    store.close()
    with pytest.raises(UsageError, match="closed"):
        store.put(fixed_table.name, "k", "v")
    assert len(read_log(kafka.bootstrap, fixed_table)) == 5000


def test_a_store_nobody_closed_is_flushed_with_a_warning(kafka, fixed_table):
    store = Store(kafka.bootstrap, definitions=Fixed(fixed_table))
    store.pipeline(fixed_table.name).put("k", "v")
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del store
        ours = until(
            "the warning is there", lambda: (gc.collect(), [w for w in caught if "logstore Store" in str(w.message)])[1]
        )
    assert [w.category for w in ours] == [ResourceWarning]
    assert len(read_log(kafka.bootstrap, fixed_table)) == 1


def test_a_program_that_ends_without_closing_loses_nothing(kafka, fixed_table):
    program = """
import sys
from logstore import Store
from logstore.model.table import Table

class Fixed:
    def table(self, name): return Table(name, name, sys.argv[3], 4)
    def close(self): pass

store = Store(sys.argv[1], definitions=Fixed())
pipe = store.pipeline(sys.argv[2])
for i in range(20_000):
    pipe.put(b"%d" % i, b"v")
"""
    arguments = [sys.executable, "-W", "always", "-c", program, kafka.bootstrap, fixed_table.name, fixed_table.epoch]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert "ResourceWarning: a logstore Store was not closed" in ended.stderr
    assert len(read_log(kafka.bootstrap, fixed_table)) == 20_000
