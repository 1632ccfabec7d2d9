"""What workers announce: a later build may say more, and what cannot be read disturbs nobody."""

import orjson
import pytest
from support_log import produce

from logstore.log.membership.live_workers import LiveWorkers
from logstore.log.membership.nodes import MAX_SILENT, MAX_WORKERS, Announcement, Nodes
from logstore.log.tables.registry import Registry
from logstore.model.table import NODES_TOPIC

ME = Announcement("n", 1, "http://n", "g", "z", [1, 2], [2], 7, {"node": 5, "workers": [6]})
NESTED: list[object] = []
for _ in range(200):
    NESTED = [NESTED]
UNREADABLE = [
    b"", b"{", b"[]", b"null", b"\xff", b"{}", b'{"node":"n"}', *(
        orjson.dumps({**orjson.loads(ME.to_json()), **wrong})
        for wrong in ({"node": None}, {"worker": "1"}, {"slots": None}, {"live": ["2"]}, {"tables": "7"}, {"pids": []},
            {"worker": True}, {"worker": -2}, {"slots": [1.5]}, {"slots": [-1]}, {"slots": [5_000]},
            {"slots": [1] * 2_000},
            {"live": [[1]]}, {"tables": -2}, {"tables": None}, {"node": "x" * 256}, {"node": "a\nb"}, {"zone": 5},
            {"url": "u"}, {"url": "file:///etc"}, {"url": "ftp://h"}, {"url": "http://"}, {"url": "http://h:99999"},
            {"url": "http://u:p@h"}, {"url": "http://h?x"}, {"url": "http://" + "h" * 3_000},
            {"url": "http://h\r\nX: y"},
            {"pids": {"workers": 5}}, {"pids": {"workers": ["5"]}}, {"pids": {"node": []}}, {"pids": {"x": 1}},
            {"pids": {"readers": [1] * 1_000}}, {"pids": {"workers": NESTED}}, {"group": None}, {"worker": 2})
    ),
]  # fmt: skip


def test_what_is_written_is_read():
    assert Announcement.from_json(ME.to_json(), 0) == ME


def test_fields_of_a_later_build_do_not_matter():
    later = orjson.dumps({**orjson.loads(ME.to_json()), "colour": "blue", "timestamp_ms": 3})
    assert Announcement.from_json(later, 0) == ME


def test_fields_that_an_earlier_build_did_not_have_have_defaults():
    assert Announcement.from_json(b'{"node":"n","worker":1,"url":"http://u","group":"g"}', 9) == Announcement(
        "n", 1, "http://u", "g", timestamp_ms=9
    )


@pytest.mark.parametrize("value", UNREADABLE)
def test_what_cannot_be_read_is_skipped_and_said_once(value, caplog):
    nodes = Nodes()
    nodes.hear(b"n/1", ME.to_json(), 0)
    nodes.begin()
    for _ in range(3):
        nodes.hear(b"n/3", value, 0)
    assert nodes.live() == [ME]
    assert caplog.text.count("cannot be read") == 1
    nodes.hear(b"n/2", Announcement("n", 2, "http://u", "g").to_json(), 0)
    assert [a.worker for a in nodes.live()] == [1, 2]


class Clock:
    """Seconds, as a test turns them."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def say(nodes: Nodes, node: str, at_ms: int, worker: int = 0) -> None:
    announced = Announcement(node, worker, "http://u", "g")
    nodes.hear(announced.key, announced.to_json(), at_ms)


def names(nodes: Nodes, least: int = 1) -> list[str]:
    return [a.node for a in nodes.live(least)]


@pytest.mark.parametrize("step_ms", [0, 120_000, -120_000, 3_600_000])
def test_a_brokers_clock_that_steps_makes_nobody_gone_and_keeps_nobody(step_ms):
    clock = Clock()
    nodes = Nodes(clock)
    say(nodes, "a", 5_000_000)
    say(nodes, "dead", 5_000_000)
    nodes.begin()
    for second in range(20):
        clock.now_s += 1
        say(nodes, "a", 5_000_000 + second * 1_000 + (step_ms if second > 2 else 0))
        assert "a" in names(nodes)
        assert ("dead" in names(nodes)) == (second < 7)


def test_of_what_was_there_before_only_what_is_fresh_counts_until_it_is_said_again():
    clock = Clock()
    nodes = Nodes(clock)
    for node, at_ms in (("old", 1_000_000), ("ahead", 9_000_000), ("fresh", 4_995_000)):
        say(nodes, node, at_ms)
    nodes.hear(b"!tick", None, 5_000_000)
    nodes.begin()
    assert names(nodes) == ["fresh"]
    clock.now_s += 3.5  # it was 5 s old then
    assert names(nodes) == []
    say(nodes, "ahead", 5_000_000)
    assert names(nodes) == ["ahead"]


def test_a_flood_of_workers_is_bounded_drives_out_nobody_and_is_forgotten():
    clock = Clock()
    nodes = Nodes(clock)
    say(nodes, "real", 0)
    nodes.begin()
    for number in range(40_000):
        say(nodes, f"forged-{number}", 0)
    assert len(names(nodes)) == MAX_WORKERS
    assert "real" in names(nodes)
    clock.now_s += 7
    say(nodes, "real", 0)
    clock.now_s += 2
    say(nodes, "new", 0)
    assert names(nodes) == ["new", "real"]


def test_a_flood_that_was_there_before_is_bounded_too():
    nodes = Nodes(Clock())
    for number in range(5_000):
        say(nodes, f"forged-{number}", 0)
    say(nodes, "real", 0)
    nodes.begin()
    assert len(names(nodes)) == MAX_WORKERS
    assert "real" in names(nodes)


def test_who_falls_silent_is_known_until_it_says_something_or_good_bye():
    clock = Clock()
    nodes = Nodes(clock)

    def at_its_own_url(node: str, at_ms: int) -> None:
        announced = Announcement(node, 0, f"http://{node}", "g")
        nodes.hear(announced.key, announced.to_json(), at_ms)

    def silent() -> list[str]:
        return sorted(a.node for a in nodes.silent())

    day_ms = 86_400_000
    for node, at_ms in (("long-gone", 1), ("before", 2 * day_ms - 60_000), ("hangs", 2 * day_ms), ("ends", 2 * day_ms)):
        at_its_own_url(node, at_ms)
    nodes.begin()
    assert silent() == ["before"]
    clock.now_s += 9
    assert (names(nodes), silent()) == ([], ["before", "ends", "hangs"])
    nodes.hear(b"ends/0", None, 2 * day_ms + 9_000)
    at_its_own_url("hangs", 2 * day_ms + 9_000)
    assert (names(nodes), silent()) == (["hangs"], ["before"])
    for number in range(1_000):
        at_its_own_url(f"forged-{number}", 2 * day_ms + 9_000)
    clock.now_s += 9
    assert len(silent()) == MAX_SILENT


def test_the_readers_of_one_node_are_not_silent_while_another_worker_of_it_speaks():
    clock = Clock()
    nodes = Nodes(clock)
    say(nodes, "a", 0, worker=1)
    nodes.begin()
    clock.now_s += 9
    say(nodes, "a", 9_000, worker=0)
    assert (names(nodes), nodes.silent()) == (["a"], [])


def test_one_record_is_not_yet_a_node_that_anybody_waits_for():
    nodes = Nodes(Clock())
    nodes.begin()
    say(nodes, "a", 0)
    assert (names(nodes), names(nodes, least=2)) == (["a"], [])
    say(nodes, "a", 0)
    assert names(nodes, least=2) == ["a"]


def test_a_flood_of_unreadable_keys_is_bounded(caplog):
    nodes = Nodes()
    for number in range(1_000):
        nodes.hear(b"%d" % number, b"{", 0)
    assert caplog.text.count("cannot be read") == 100


def test_a_census_goes_on_over_what_others_wrote_to_the_topic(kafka):
    Registry(kafka.bootstrap).ensure_store()
    later = orjson.dumps({**orjson.loads(Announcement("later", 0, "http://u", "g").to_json()), "colour": "blue"})
    records = [(b"garbage/%d" % number, value) for number, value in enumerate(UNREADABLE)]
    produce(kafka.bootstrap, NODES_TOPIC, [*records, (b"later/0", later)])
    with LiveWorkers(kafka.bootstrap) as live_workers:
        assert "later" in [a.node for a in live_workers.look()]
        produce(kafka.bootstrap, NODES_TOPIC, [(b"later/0", None)])  # other tests count who is there
