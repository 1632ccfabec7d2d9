"""Rows with an end over HTTP: seen at an instant that answers and tokens name, and never alive again in a session."""

import time

import msgpack
import pytest
from support_serve import epoch_of, problem, serving
from support_wait import until

from logstore.model.position import Position
from logstore.serve.read.consistency import Consistency, check_instant
from logstore.serve.state.broker_clock import BrokerClock
from logstore.serve.wire.problems import Problem
from logstore.view.feed.position_records import StoodAt, TimesKey, TimesRecord

EPOCH = epoch_of("t")
HOUR_MS = 3_600_000
NOW_MS = 1_700_000_000_000
CLOCK = BrokerClock(lambda: NOW_MS)  # of which nothing is known


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("node")) as (node, reader):
        node.create("t", 2, conditional=True, expiring=True)
        for name in ("past", "idle"):
            node.create(name, 1, conditional=True, expiring=True)
        node.create("cells", 1, conditional=True, expiring=True, wide=True, families={"f": {"versions": 2}})
        node.create("beside", 1, conditional=True, expiring=True, siblings=True)
        reader.wait_ready()
        yield node, reader


def now_ms():
    return time.time_ns() // 1_000_000


def put(node, key, value, ttl_ms=None, *, at_ms):
    headers = {} if ttl_ms is None else {"ls.ttl": ttl_ms.to_bytes(8)}
    return node.decide("t", [(key, value, headers)], at_ms=at_ms)


def row(key):
    return f"/v1/tables/t/rows/{key.decode()}"


def test_a_row_says_until_when_it_lives_and_when_it_was_seen(store):
    node, reader = store
    at_ms = now_ms()
    partition, offset = put(node, b"lives", b"v", HOUR_MS, at_ms=at_ms)
    answer = reader.get(row(b"lives"))
    assert (answer.status_code, answer.content) == (200, b"v")
    assert answer.headers["etag"] == f'"{EPOCH}-{partition}-{offset}-{at_ms + HOUR_MS}"'
    assert at_ms <= int(answer.headers["ls-time"]) <= now_ms()
    assert Position.parse(answer.headers["ls-token"]).time_ms == int(answer.headers["ls-time"])
    assert reader.get(row(b"lives"), headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


def test_a_page_sees_all_partitions_at_the_instant_that_it_names(store):
    node, reader = store
    ends_ms, later_ms = now_ms() + HOUR_MS, now_ms() + 2 * HOUR_MS  # by a broker whose clock is ahead
    node.create("skewed", 2, conditional=True, expiring=True)
    homes = {node.home("skewed", b"k%d" % n): b"k%d" % n for n in range(20)}
    node.decide("skewed", [(homes[0], b"v", {"ls.ttl": HOUR_MS.to_bytes(8)})], at_ms=ends_ms - HOUR_MS)
    node.decide("skewed", [(homes[1], b"v", {})], at_ms=later_ms)
    until("both are served", lambda: len(reader.get("/v1/tables/skewed/rows").json().get("rows", ())) == 1)
    page = reader.get("/v1/tables/skewed/rows")
    assert int(page.headers["ls-time"]) == later_ms
    assert [row["key"].encode() for row in page.json()["rows"]] == [homes[1]]
    many = reader.http.post("/v1/tables/skewed/rows:get", json={"keys": [homes[0].decode(), homes[1].decode()]})
    assert int(many.headers["ls-time"]) == later_ms
    assert [one["found"] for one in many.json()["results"]] == [False, True]


def test_a_row_whose_end_has_come_is_not_found_though_nothing_was_written_since(store):
    node, reader = store
    at_ms = now_ms() - HOUR_MS
    node.decide("idle", [(b"ended", b"v", {"ls.ttl": (5).to_bytes(8)})], at_ms=at_ms)
    answer = reader.get("/v1/tables/idle/rows/ended")
    problem(answer, 404, "not-found")
    assert at_ms < int(answer.headers["ls-time"]) <= now_ms()
    found = reader.http.post("/v1/tables/idle/rows:get", json={"keys": ["ended"]}).json()
    assert [one["found"] for one in found["results"]] == [False]
    page = reader.get("/v1/tables/idle/rows").json()
    assert page["rows"] == []
    for one in (found, page):
        assert at_ms < Position.parse(one["token"]).time_ms <= now_ms()


def test_a_row_without_an_end_says_no_time(store):
    node, reader = store
    put(node, b"stays", b"v", at_ms=now_ms() - HOUR_MS)
    answer = reader.get(row(b"stays"))
    assert answer.content == b"v"
    assert "ls-time" not in answer.headers
    assert ",t" not in answer.headers["ls-token"]


def test_log_time_ends_rows_however_late_the_readers_clock_is(store):
    node, reader = store
    ahead_ms = now_ms() + 10 * HOUR_MS
    partition, _ = put(node, b"by-log", b"v", 5, at_ms=ahead_ms)
    sibling = next(key for key in (b"tick-%d" % n for n in range(99)) if node.home("t", key) == partition)
    put(node, sibling, b"v", at_ms=ahead_ms + 5)
    answer = reader.get(row(b"by-log"))
    problem(answer, 404, "not-found")
    assert int(answer.headers["ls-time"]) == ahead_ms + 5


def test_a_session_never_sees_a_row_alive_again(store):
    node, reader = store
    at_ms = now_ms()
    key = next(key for key in (b"floor-%d" % n for n in range(99)) if node.home("t", key) != node.home("t", b"by-log"))
    partition, offset = put(node, key, b"v", 30_000, at_ms=at_ms)
    token = f"{EPOCH}-{partition}-{offset + 1}"
    assert reader.get(row(key), headers={"LS-Token": token}).status_code == 200
    later = reader.get(row(key), headers={"LS-Token": f"{token},t{at_ms + 30_000}"})
    problem(later, 404, "not-found")
    assert later.headers["ls-token"].endswith(f",t{at_ms + 30_000}")
    page = reader.get(f"/v1/tables/t/rows?prefix={key.decode()}", headers={"LS-Token": f"{token},t{at_ms + 30_000}"})
    assert page.json()["rows"] == []
    assert Position.parse(page.json()["token"]).time_ms >= at_ms + 30_000
    assert page.headers["ls-time"] == str(Position.parse(page.json()["token"]).time_ms)


def test_a_token_of_a_clock_far_ahead_is_told(store):
    node, reader = store
    partition, offset = put(node, b"far", b"v", at_ms=now_ms())
    token = f"{EPOCH}-{partition}-{offset + 1},t{now_ms() + 3_600_000}"
    answer = reader.get(row(b"far"), headers={"LS-Token": token})
    problem(answer, 504, "consistency-timeout")
    assert "clock" in answer.json()["detail"]
    until("it is applied", lambda: reader.get(row(b"far")).status_code == 200)
    ignored = reader.get(row(b"far"), headers={"LS-Token": token, "LS-Consistency": "eventual"})
    assert (ignored.status_code, ignored.content) == (200, b"v")


@pytest.mark.parametrize("ahead_ms", [-1, 0, 1, 60_000])
def test_an_instant_a_minute_ahead_is_a_clocks_difference(ahead_ms):
    level = Consistency("session", Position({}, time_ms=NOW_MS + ahead_ms), clock_ms=NOW_MS)
    assert level.instant_ms(CLOCK) == NOW_MS + max(ahead_ms, 0)
    check_instant(NOW_MS + ahead_ms, "http://n", CLOCK)


def test_an_instant_further_ahead_is_a_wrong_clock_whoever_names_it():
    far_ahead = Consistency("latest", Position({}, time_ms=NOW_MS + 60_001), clock_ms=NOW_MS)
    assert far_ahead._replace(name="eventual").instant_ms(CLOCK) == NOW_MS
    for far in (
        lambda: far_ahead.instant_ms(CLOCK),
        lambda: check_instant(NOW_MS + 60_001, "n", CLOCK),
    ):
        with pytest.raises(Problem, match="clock") as raised:
            far()
        assert raised.value.word == "consistency-timeout"


def test_as_of_a_time_sees_what_lived_then(store):
    node, reader = store
    at_ms = now_ms() - HOUR_MS
    node.decide("past", [(b"then", b"v", {"ls.ttl": (HOUR_MS // 2).to_bytes(8)})], at_ms=at_ms)
    node.decide("past", [(b"later", b"v", {})], at_ms=now_ms())
    node.publish(TimesKey(epoch_of("past"), 0), TimesRecord((StoodAt(at_ms, 1),)))
    gone = reader.get("/v1/tables/past/rows/then", headers={"LS-As-Of": _text(now_ms() - HOUR_MS * 3 // 4)})
    problem(gone, 400, "bad-level")  # it lived then, and its bytes have been taken back since
    problem(
        reader.get("/v1/tables/past/rows/then", headers={"LS-As-Of": _text(now_ms() - HOUR_MS // 4)}), 404, "not-found"
    )
    lives = reader.get("/v1/tables/past/rows/later", headers={"LS-As-Of": f"{epoch_of('past')}-0-2"})
    assert lives.content == b"v"


def test_as_of_a_time_sees_the_siblings_that_lived_then(store):
    node, reader = store
    at_ms = now_ms() - HOUR_MS
    ends, stays = {"ls.ttl": (HOUR_MS // 2).to_bytes(8)}, {"ls.seen": b"-1"}
    node.decide("beside", [(b"k", b"ends", ends), (b"k", b"stays", stays)], at_ms=at_ms)
    node.decide("beside", [(b"other", b"v", {})], at_ms=now_ms())
    node.publish(TimesKey(epoch_of("beside"), 0), TimesRecord((StoodAt(at_ms, 2),)))

    def as_of(text):
        return reader.get("/v1/tables/beside/rows/k", headers={"LS-As-Of": text})

    assert as_of(_text(now_ms() - HOUR_MS * 3 // 4)).status_code == 300
    assert as_of(_text(now_ms() - HOUR_MS // 4)).content == b"stays"
    problem(
        as_of(f"{epoch_of('beside')}-0-2"), 400, "bad-level"
    )  # when a part of it ended at that position is not known
    assert reader.get("/v1/tables/beside/rows/k").content == b"stays"


def test_cells_of_a_wide_row_end_one_by_one(store):
    node, reader = store
    at_ms, edit = now_ms() - HOUR_MS, {"ls.op": b"edit"}
    edits = [
        ["set", "f", "ended", "1", HOUR_MS // 2],
        ["set", "f", "ends", "2", 3 * HOUR_MS],
        ["set", "f", "stays", "3"],
    ]
    node.decide("cells", [(b"k", msgpack.packb(edits), edit)], at_ms=at_ms)
    answer = reader.get("/v1/tables/cells/rows/k")
    assert [one["qualifier"] for one in answer.json()["cells"]] == ["ends", "stays"]
    assert at_ms < int(answer.headers["ls-time"]) <= now_ms()
    assert f"-{at_ms + 3 * HOUR_MS}" in answer.headers["etag"]
    later = f"{epoch_of('cells')}-0-1,t{now_ms() + 30_000}"
    assert reader.get("/v1/tables/cells/rows/k", headers={"LS-Token": later}).status_code == 200
    (one,) = reader.get("/v1/tables/cells/rows").json()["rows"]
    assert [cell["qualifier"] for cell in one["cells"]] == ["ends", "stays"]
    problem(reader.get("/v1/tables/cells/rows/k?columns=f:ended"), 404, "not-found")
    node.decide("cells", [(b"gone", msgpack.packb([edits[0]]), edit)], at_ms=at_ms)
    problem(reader.get("/v1/tables/cells/rows/gone"), 404, "not-found")


def _text(moment_ms):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment_ms / 1000))
