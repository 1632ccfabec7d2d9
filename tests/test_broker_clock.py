"""A reader whose clock is far ahead of the brokers' ends rows by log time alone, and says so."""

import logging
import math
import re
import time

import pytest
from support_replica import replicated
from support_serve import Node, Reader, epoch_of, problem, serving
from support_wait import until

from logstore.model.errors import NoSuchTable, Starting
from logstore.model.position import Position
from logstore.serve.read.consistency import Consistency, check_instant
from logstore.serve.state.broker_clock import MAX_AHEAD_MS, BrokerClock
from logstore.serve.wire.problems import Problem
from logstore.view.feed.log_records import ClockKey, ClockRecord, boottime_ns

NOW_MS = 1_700_000_000_000
MINUTE_MS = 60_000


class Clocks:
    """Clocks of a machine, to be set."""

    def __init__(self) -> None:
        self.wall_ms, self.boot_ns = NOW_MS, 5_000_000_000
        self.broker = BrokerClock(lambda: self.wall_ms, lambda: self.boot_ns)

    def pass_ms(self, ms: int) -> None:
        self.wall_ms += ms
        self.boot_ns += ms * 1_000_000

    def hear(self, ahead_ms: int, took_ms: int = 0) -> None:
        """An acknowledgement by a broker than whose clock this one is ahead by so much."""
        sent_ns = self.boot_ns
        self.pass_ms(took_ms)
        self.broker.heard(ClockRecord(self.wall_ms - ahead_ms, sent_ns))


def test_without_a_measurement_nothing_is_ahead():
    clocks = Clocks()
    for record in (ClockRecord(), ClockRecord(0, 7), ClockRecord(-1, 7)):
        clocks.broker.heard(record)
    assert clocks.broker.ahead_ms is None
    assert not clocks.broker.is_ahead()
    assert clocks.broker.instant_ms(NOW_MS, 0) == NOW_MS


@pytest.mark.parametrize("ahead_ms", [-3_600_000, 0, MAX_AHEAD_MS])
def test_a_clock_up_to_a_minute_ahead_ends_rows(ahead_ms):
    clocks = Clocks()
    clocks.hear(ahead_ms)
    assert clocks.broker.ahead_ms == ahead_ms
    assert clocks.broker.instant_ms(NOW_MS, 5) == NOW_MS


def test_a_clock_further_ahead_ends_none_and_the_instant_of_a_token_still_does():
    clocks = Clocks()
    clocks.hear(MAX_AHEAD_MS + 1)
    assert clocks.broker.is_ahead()
    assert clocks.broker.instant_ms(NOW_MS, 0) == 0
    assert clocks.broker.instant_ms(NOW_MS, NOW_MS - 5) == NOW_MS - 5


def test_an_acknowledgement_that_took_long_only_makes_the_clock_look_less_ahead():
    clocks = Clocks()
    clocks.hear(MAX_AHEAD_MS + 1, took_ms=5_000)
    assert clocks.broker.ahead_ms == MAX_AHEAD_MS + 1 - 5_000
    assert not clocks.broker.is_ahead()


def test_a_bound_holds_however_long_kafka_is_away_and_moves_with_the_time():
    clocks = Clocks()
    clocks.hear(10)
    clocks.pass_ms(7 * 86_400_000)
    assert clocks.broker.ahead_ms == 10
    clocks.wall_ms += MAX_AHEAD_MS  # somebody sets it
    assert clocks.broker.is_ahead()
    clocks.wall_ms -= MAX_AHEAD_MS
    assert not clocks.broker.is_ahead()


def test_of_several_workers_the_newest_counts_and_no_time_to_come():
    clocks = Clocks()
    clocks.hear(0)
    for sent_ns in (clocks.boot_ns - 1, clocks.boot_ns + 1):
        clocks.broker.heard(ClockRecord(NOW_MS - 3_600_000, sent_ns))
    assert clocks.broker.ahead_ms == 0


def test_each_change_is_said_once(caplog):
    clocks = Clocks()
    caplog.set_level(logging.WARNING, "logstore.serve.state.broker_clock")
    for ahead_ms in (0, MAX_AHEAD_MS + 1, MAX_AHEAD_MS + 2, 0, 0):
        clocks.hear(ahead_ms)
        clocks.pass_ms(1_000)
    assert [bool(re.search("by log time alone", one.getMessage())) for one in caplog.records] == [True, False]


def test_a_token_may_be_ahead_of_the_later_of_both_clocks_by_a_minute():
    behind = Clocks()
    behind.hear(-10 * MINUTE_MS)
    level = Consistency("session", clock_ms=NOW_MS)
    latest_ms = NOW_MS + 10 * MINUTE_MS + MAX_AHEAD_MS
    assert level._replace(token=Position({}, time_ms=latest_ms)).instant_ms(behind.broker) == latest_ms
    check_instant(latest_ms, "n", behind.broker)
    far = level._replace(token=Position({}, time_ms=latest_ms + 1))
    for refused in (lambda: far.instant_ms(behind.broker), lambda: check_instant(latest_ms + 1, "n", behind.broker)):
        with pytest.raises(Problem, match="clock"):
            refused()
    ahead = Clocks()
    ahead.hear(10 * MINUTE_MS)
    with pytest.raises(Problem, match="clock"):
        level._replace(token=Position({}, time_ms=NOW_MS + MAX_AHEAD_MS + 1)).check(ahead.broker)


def now_ms():
    return time.time_ns() // 1_000_000


def say(node: Node, ahead_ms: int) -> None:
    """As a worker whose broker's clock is behind the one here by so much."""
    node.publish(ClockKey(), ClockRecord(now_ms() - ahead_ms, boottime_ns()))


def ahead_s(reader: Reader) -> float | None:
    return reader.get("/readyz").json()["log"].get("clock_ahead_s")


def metric(reader: Reader) -> float:
    (found,) = re.findall(r"^logstore_clock_ahead_seconds (\S+)$", reader.get("/metrics").text, re.MULTILINE)
    return float(found)


def test_rows_that_have_ended_by_a_wrong_clock_are_served_and_it_is_said(tmp_path):
    said = tmp_path / "said"
    node = Node(tmp_path / "node")
    reader = Reader(tmp_path / "node", node=node.name, said=said)
    try:
        node.create("t", 1, conditional=True, expiring=True)
        at_ms = now_ms() - 10 * MINUTE_MS
        node.decide("t", [(b"k", b"v", {"ls.ttl": (5 * MINUTE_MS).to_bytes(8)})], at_ms=at_ms)
        reader.wait_ready()

        def statuses():
            many = reader.http.post("/v1/tables/t/rows:get", json={"keys": ["k"]}).json()["results"]
            rows = reader.get("/v1/tables/t/rows").json()["rows"]
            return reader.get("/v1/tables/t/rows/k").status_code, many[0]["found"], len(rows)

        assert statuses() == (404, False, 0)
        assert (ahead_s(reader), math.isnan(metric(reader))) == (None, True)

        say(node, 10 * MINUTE_MS)
        until("the clock is found ahead", lambda: ahead_s(reader))
        assert statuses() == (200, True, 1)
        answer = reader.get("/v1/tables/t/rows/k")
        assert (answer.content, int(answer.headers["ls-time"])) == (b"v", at_ms)
        again = reader.get("/v1/tables/t/rows/k", headers={"LS-Token": answer.headers["ls-token"]})
        assert again.status_code == 200
        by_token = f"{epoch_of('t')}-0-1,t{at_ms + 5 * MINUTE_MS}"
        problem(reader.get("/v1/tables/t/rows/k", headers={"LS-Token": by_token}), 404, "not-found")
        assert 599 < metric(reader) < 601

        say(node, 0)
        until("the clock is right", lambda: ahead_s(reader) is None)
        assert statuses() == (404, False, 0)
    finally:
        reader.close()
        node.close()
    assert len(re.findall("rows end by log time alone", said.read_text())) == 1
    assert len(re.findall("no longer far ahead", said.read_text())) == 1


def test_embedded_readers_do_the_same(tmp_path):
    with replicated(tmp_path / "node") as (node, replica):
        node.create("t", 1, conditional=True, expiring=True)
        ttl = {"ls.ttl": (5 * MINUTE_MS).to_bytes(8)}
        node.decide("t", [(b"k", b"v", ttl)], at_ms=now_ms() - 10 * MINUTE_MS)
        node.decide("t", [(b"stays", b"v", {})], at_ms=now_ms() - 10 * MINUTE_MS)
        until("both are applied", lambda: known(replica))
        assert replica.get("t", b"k") is None
        say(node, 10 * MINUTE_MS)
        until("the clock is found ahead", lambda: replica.get("t", b"k"))
        with replica.view("t") as view:
            assert bytes(view.get(b"k").value) == b"v"
        assert [row.key for row in replica.scan("t")] == [b"k", b"stays"]
        assert replica.get_many("t", [b"k"])[0].value == b"v"


def known(replica) -> bool:
    """True once the row that was written last is there."""
    try:
        return replica.get("t", b"stays") is not None
    except (NoSuchTable, Starting):
        return False


def test_a_session_goes_on_where_the_brokers_clock_is_ahead(tmp_path):
    with serving(tmp_path) as (node, reader):
        node.create("t", 1, conditional=True, expiring=True)
        at_ms = now_ms() + 10 * MINUTE_MS
        node.decide("t", [(b"k", b"v", {"ls.ttl": (60 * MINUTE_MS).to_bytes(8)})], at_ms=at_ms)
        reader.wait_ready()
        token = until("it is read", lambda: reader.get("/v1/tables/t/rows/k").headers.get("ls-token"))
        assert Position.parse(token).time_ms == at_ms

        def read():
            return reader.get("/v1/tables/t/rows/k", headers={"LS-Token": token})

        problem(read(), 504, "consistency-timeout")
        say(node, -10 * MINUTE_MS)
        until("the reader knows the brokers' clock", lambda: read().status_code == 200)
        assert ahead_s(reader) is None
        assert int(read().headers["ls-time"]) == at_ms
