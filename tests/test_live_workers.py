"""Looks at live workers: they keep a pace, and one that begins among many others' ticks comes to its end."""

import threading
import time

from confluent_kafka import Producer
from support_worker import make_table

from logstore.log.kafka import clients, offsets
from logstore.log.membership.changes import Changes
from logstore.log.membership.live_workers import AGAIN_S, TICK, LiveWorkers
from logstore.model.table import NODES_TOPIC


def test_looks_in_a_hurry_append_no_more_ticks_than_their_pace_allows(kafka):
    make_table(kafka.bootstrap, partitions=1)
    admin = clients.admin(kafka.bootstrap)
    with LiveWorkers(kafka.bootstrap) as live_workers:
        live_workers.look()
        before, began_s = _end(admin), time.monotonic()
        for _ in range(8):
            live_workers.look()
        took_s = time.monotonic() - began_s
    assert took_s >= 8 * AGAIN_S - AGAIN_S
    assert _end(admin) - before >= 8


def test_a_topic_that_others_write_all_the_time_is_read_to_where_it_ended_at_first(kafka):
    make_table(kafka.bootstrap, partitions=1)
    stop, written = threading.Event(), threading.Event()

    def flood():
        producer = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 0})
        while not stop.is_set():
            producer.produce(NODES_TOPIC, None, TICK)
            producer.flush(60)
            written.set()

    flooding = threading.Thread(target=flood)
    flooding.start()
    changes = Changes(kafka.bootstrap)
    try:
        assert written.wait(90)
        deadline = time.monotonic() + 90
        while not changes.complete:
            assert time.monotonic() < deadline, f"not complete at {changes.heard_to}"
            changes.take(0.1)
    finally:
        stop.set()
        flooding.join()
        changes.close()


def _end(admin):
    return offsets.ends(admin, [(NODES_TOPIC, 0)])[NODES_TOPIC, 0]
