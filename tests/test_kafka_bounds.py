"""Offsets asked for over a connection that is older than the broker's last start."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka.admin import AdminClient
from support_log import produce
from support_tiers import short_and_long

from logstore.broker.embedded import EmbeddedKafka
from logstore.log import topics
from logstore.log.kafka.clients import admin
from logstore.log.kafka.offsets import bounds, ends, first_from
from logstore.model.errors import UsageError


@short_and_long("starts", 1, 3)  # each is a new epoch of every leader
@pytest.mark.slow
def test_a_client_that_outlives_a_broker_finds_its_leaders_again(tmp_path, starts):
    with EmbeddedKafka(tmp_path, heap_mb=256) as broker:
        client, topic = admin(broker.bootstrap), "t"
        topics.create(client, topic, 2, 1, {})
        produce(broker.bootstrap, topic, [(b"k%d" % n, b"v") for n in range(10)])
        before = bounds(client, topic, [0, 1])
        for _ in range(starts):
            broker.stop()
            broker.start()
            assert bounds(client, topic, [0, 1]) == before
            assert first_from(client, topic, [0, 1], 0) == {0: 0, 1: 0}


@short_and_long("topics_made", 10, 30)
def test_a_topic_that_another_one_makes_at_this_moment_is_known_when_create_returns(kafka, topics_made):
    """The controller refuses the second before the broker has heard of the first: nodes that are started together."""
    clients = [AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0}) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for number in range(topics_made):
            name = f"made-at-once-{topics_made}-{number}"
            asked = [pool.submit(_create, client, name) for client in clients]
            made, settings = zip(*(future.result(60) for future in asked), strict=True)
            assert sorted(made) == [False, False, False, True]
            assert [found["retention.ms"] for found in settings] == ["-1"] * 4


def _create(client, topic):
    made = topics.create(client, topic, 3, 1, {"retention.ms": "-1"})
    return made, topics.settings_of(client, topic)


def test_a_topic_that_is_not_there_has_no_bounds_and_no_ends(kafka):
    client = admin(kafka.bootstrap)
    for asked in (
        lambda: bounds(client, "never-made", [0], timeout_s=8),
        lambda: ends(client, [("never-made", 0)]),
    ):
        with pytest.raises(UsageError, match="no topic never-made"):
            asked()


def test_an_interrupt_within_the_binding_is_an_interrupt(monkeypatch):
    """As Python has it of a C function that returned an answer although a signal's handler had raised."""

    def interrupted(*_, **__):
        raise SystemError("<built-in method> returned a result with an exception set") from KeyboardInterrupt()

    monkeypatch.setattr(AdminClient, "list_offsets", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ends(admin("127.0.0.1:1"), [("t", 0)])


def test_another_error_of_the_binding_stays_what_it_is(monkeypatch):
    def failed(*_, **__):
        raise SystemError("of its own")

    monkeypatch.setattr(AdminClient, "list_topics", failed)
    with pytest.raises(SystemError, match="of its own"):
        topics.names(admin("127.0.0.1:1"))
