"""What workers tell of logs that they asked about: an end or a barrier, or why there is none."""

import pytest
from support_worker import make_table

from logstore.log.kafka import clients, offsets
from logstore.model.errors import LogUnreachable
from streaming.control.demands import asked_ends, barriers


def test_a_log_that_ends_below_what_is_applied_is_no_answer():
    ended, barrier = asked_ends._point(7, 99, 100, ""), barriers._point(7, 100, 99)
    for point in (ended, barrier):
        assert (point.asked_ns, point.next_offset) == (7, -1)
        assert "cut back, or is another" in point.why
    assert asked_ends._point(7, 100, 100, "").next_offset == 100
    assert barriers._point(7, 100, 100).next_offset == 101


@pytest.mark.parametrize(
    "point",
    [asked_ends._point(7, None, 100, "no leader"), barriers._point(7, 100, LogUnreachable("no leader"))],
)
def test_a_log_that_does_not_tell_says_why(point):
    assert (point.asked_ns, point.next_offset) == (7, -1)
    assert "no leader" in point.why


def test_the_quick_way_tells_the_ends_that_kafka_tells_otherwise(kafka):
    table, quick = make_table(kafka.bootstrap, 3), offsets.EndsConsumer(kafka.bootstrap)
    places = [(table.topic, partition) for partition in range(3)]
    producer = clients.producer(kafka.bootstrap, **{"transactional.id": table.topic})
    producer.init_transactions(60)
    try:
        assert quick.ends(places, 60) == dict.fromkeys(places, 0)
        producer.begin_transaction()  # what is open counts: it may lie below what others have been acknowledged
        for number in range(5):
            producer.produce(table.topic, b"v", b"k", partition=number % 2)
        producer.flush(60)
        told = quick.ends(places, 60)
        assert told == offsets.ends(clients.admin(kafka.bootstrap), places) == dict(zip(places, (3, 2, 0), strict=True))
        assert quick.ends([*places, (table.topic, 3)], 1) in (told, {}), "one that is not there is not told"
        producer.abort_transaction(60)
    finally:
        quick.close()
