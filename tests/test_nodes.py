"""What workers announce: a later build may say more, and what cannot be read disturbs nobody."""

import orjson
import pytest
from support_log import produce

from logstore.log.live_workers import LiveWorkers
from logstore.log.nodes import Announcement, Nodes
from logstore.log.registry import Registry
from logstore.model.table import NODES_TOPIC

ME = Announcement("n", 1, "http://n", "g", "z", [1, 2], [2], 7, {"node": 5})
UNREADABLE = [
    b"", b"{", b"[]", b"null", b"\xff", b"{}", b'{"node":"n"}', *(
        orjson.dumps({**orjson.loads(ME.to_json()), **wrong})
        for wrong in ({"node": None}, {"worker": "1"}, {"slots": None}, {"live": ["2"]}, {"tables": "7"}, {"pids": []})
    ),
]  # fmt: skip


def test_what_is_written_is_read():
    assert Announcement.from_json(ME.to_json(), 0) == ME


def test_fields_of_a_later_build_do_not_matter():
    later = orjson.dumps({**orjson.loads(ME.to_json()), "colour": "blue", "timestamp_ms": 3})
    assert Announcement.from_json(later, 0) == ME


def test_fields_that_an_earlier_build_did_not_have_have_defaults():
    assert Announcement.from_json(b'{"node":"n","worker":1,"url":"u","group":"g"}', 9) == Announcement(
        "n", 1, "u", "g", timestamp_ms=9
    )


@pytest.mark.parametrize("value", UNREADABLE)
def test_what_cannot_be_read_is_skipped_and_said_once(value, caplog):
    nodes = Nodes()
    nodes.hear(b"n/1", ME.to_json(), 0)
    for _ in range(3):
        nodes.hear(b"n/2", value, 0)
    assert nodes.live() == [ME]
    assert caplog.text.count("cannot be read") == 1
    nodes.hear(b"n/2", Announcement("n", 2, "u", "g").to_json(), 0)
    assert [a.worker for a in nodes.live()] == [1, 2]


def test_a_flood_of_unreadable_keys_is_bounded(caplog):
    nodes = Nodes()
    for number in range(1_000):
        nodes.hear(b"%d" % number, b"{", 0)
    assert caplog.text.count("cannot be read") == 100


def test_a_census_goes_on_over_what_others_wrote_to_the_topic(kafka):
    Registry(kafka.bootstrap).ensure_store()
    later = orjson.dumps({**orjson.loads(Announcement("later", 0, "u", "g").to_json()), "colour": "blue"})
    records = [(b"garbage/%d" % number, value) for number, value in enumerate(UNREADABLE)]
    produce(kafka.bootstrap, NODES_TOPIC, [*records, (b"later/0", later)])
    with LiveWorkers(kafka.bootstrap) as live_workers:
        assert "later" in [a.node for a in live_workers.look()]
        produce(kafka.bootstrap, NODES_TOPIC, [(b"later/0", None)])  # other tests count who is there
