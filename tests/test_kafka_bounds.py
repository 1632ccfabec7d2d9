"""Offsets asked for over a connection that is older than the broker's last start."""

from support_log import produce

from logstore.broker.embedded import EmbeddedKafka
from logstore.log import kafka, topics


def test_a_client_that_outlives_a_broker_finds_its_leaders_again(tmp_path):
    with EmbeddedKafka(tmp_path, heap_mb=256) as broker:
        client, topic = kafka.admin(broker.bootstrap), "t"
        topics.create(client, topic, 2, 1, {})
        produce(broker.bootstrap, topic, [(b"k%d" % n, b"v") for n in range(10)])
        before = kafka.bounds(client, topic, [0, 1])
        for _ in range(3):  # each start is a new epoch of every leader
            broker.stop()
            broker.start()
            assert kafka.bounds(client, topic, [0, 1]) == before
            assert kafka.first_from(client, topic, [0, 1], 0) == {0: 0, 1: 0}
