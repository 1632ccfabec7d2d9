"""The levels `bounded`, `latest` and `linearizable` of real readers beside a worker that the test plays."""

import itertools
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from support_serve import Node, epoch_of, key_in, problem, serving
from support_wait import until

from logstore.view.feed.log_records import (
    BarrierKey,
    EndKey,
    EndsKey,
    EndsRecord,
    LogKey,
    LogPointRecord,
    LogRecord,
    PartitionEnd,
    clock_ns,
)
from logstore.view.feed.position_records import AppliedKey, AppliedRecord

KEYS = {"latest": EndKey, "bounded": EndKey, "linearizable": BarrierKey}
LONG = "30000"


class Levels:
    """A node whose worker answers demands when the test says so."""

    def __init__(self, node: Node, reader: Any, pool: ThreadPoolExecutor, name: str) -> None:
        self.node, self.reader, self._pool, self.name, self.epoch = node, reader, pool, name, epoch_of(name)
        self.asked_ns = 0

    def ask(self, path: str, level: str, method: str = "GET", json: Any = None, **headers: str) -> Future[Any]:
        """Ask in the background, with a long deadline unless another is given."""
        given = {"LS-Deadline": LONG, "LS-Consistency": level, **{k.replace("_", "-"): v for k, v in headers.items()}}
        if level == "bounded":
            given.setdefault("LS-Max-Lag", "0")
        self.asked_ns = clock_ns()
        url = f"{self.reader.url}{path}"
        return self._pool.submit(httpx.request, method, url, headers=given, json=json, timeout=60, trust_env=False)

    def row(self, partition: int) -> str:
        return f"/v1/tables/{self.name}/rows/{key_in(partition)}"

    def put(self, partition: int, value: bytes) -> None:
        self.node.put(self.name, key_in(partition).encode(), value)

    def next_offset(self, partition: int) -> int:
        return self.node.views[self.epoch, partition].next_offset

    def demanded(self, level: str, *partitions: int) -> dict[int, int]:
        """Wait until these partitions are wanted by the newest request; partition -> since when."""
        name = "barriers" if level == "linearizable" else "ends"

        def wanted() -> dict[int, int]:
            acks = [ack for ack in self.node.acks() if ack is not None]
            found = {
                one.partition: one.since_ns for ack in acks for one in getattr(ack, name) if one.epoch == self.epoch
            }
            there = all(found.get(p, -1) >= self.asked_ns for p in partitions)
            return {p: found[p] for p in partitions} if there else {}

        return until(f"{level} of {partitions} is demanded", wanted)

    def heard(self, partition: int, end: int) -> None:
        """Wait until the reader has taken in what was told."""

        def told() -> bool:
            shown = self.reader.get("/v1/partitions").json()["partitions"]
            return any(
                one["table"] == self.name and one["partition"] == partition and one["end"] == end for one in shown
            )

        until(f"the reader knows that partition {partition} ends at {end}", told)

    def tell(self, level: str, partition: int, next_offset: int, asked_ns: int | None = None, why: str = "") -> None:
        key = KEYS[level](self.epoch, partition)
        self.node.publish(key, LogPointRecord(clock_ns() if asked_ns is None else asked_ns, next_offset, why))


NAMES = (f"lv{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("levels")) as (node, reader), ThreadPoolExecutor(8) as pool:
        node.create("first")
        yield node, reader.wait_ready(), pool


@pytest.fixture
def levels(served):
    """A table of the test's own."""
    node, reader, pool = served
    levels = Levels(node, reader, pool, next(NAMES))
    node.create(levels.name)
    until("it is served", lambda: reader.get(f"/v1/tables/{levels.name}/rows").status_code == 200)
    return levels


@pytest.mark.parametrize("level", KEYS)
def test_an_answer_waits_for_a_point_asked_after_the_request_and_until_it_is_applied(levels, level):
    levels.put(1, b"old")
    levels.tell(level, 1, 1)  # asked before the request: says nothing about what was written since
    answer = levels.ask(levels.row(1), level)
    since_ns = levels.demanded(level, 1)[1]
    levels.tell(level, 1, 1, asked_ns=since_ns - 1)  # neither does one that was under way when it came
    assert levels.demanded(level, 1)[1] == since_ns
    levels.tell(level, 1, 2)
    levels.heard(1, 2)
    assert not answer.done()  # offset 1 is not applied
    levels.put(1, b"new")
    answered = answer.result(60)
    assert (answered.status_code, answered.content, answered.headers["ls-applied"]) == (200, b"new", "2")
    assert answered.headers["ls-token"] == f"{levels.epoch}-1-2"


@pytest.mark.parametrize("level", KEYS)
def test_a_level_that_is_not_met_is_no_answer(levels, level):
    levels.put(1, b"old")
    document = problem(levels.ask(levels.row(1), level, LS_Deadline="100").result(60), 504, "consistency-timeout")
    assert document["partition"] == 1
    answer = levels.ask(levels.row(1), level, LS_Deadline="3000")
    levels.demanded(level, 1)
    levels.tell(level, 1, 2)  # and offset 1 never comes
    document = problem(answer.result(60), 504, "consistency-timeout")
    assert (document["asked"], document["applied"]) == (2, 1)
    assert levels.ask(levels.row(1), "eventual").result(60).content == b"old"


def test_bounded_is_answered_by_what_was_asked_within_its_bound(levels):
    levels.put(2, b"v")
    asked_ns = clock_ns()
    levels.node.publish(
        EndsKey(), EndsRecord(0, (PartitionEnd(levels.epoch, 2, 1),), (), asked_ns)
    )  # what a worker asks once a second
    answered = levels.ask(levels.row(2), "bounded", LS_Max_Lag="3600000").result(60)
    assert (answered.status_code, answered.content) == (200, b"v")
    problem(
        levels.ask(levels.row(2), "bounded", LS_Max_Lag="1", LS_Deadline="100").result(60), 504, "consistency-timeout"
    )
    alone = httpx.get(f"{levels.reader.url}{levels.row(2)}?max_lag_ms=3600000", trust_env=False, timeout=60)
    assert (alone.status_code, alone.content) == (200, b"v")
    levels.node.publish(LogKey(), LogRecord(reachable=False))
    until("the log is known to be away", lambda: levels.ask(levels.row(2), "latest").result(60).status_code == 503)
    assert levels.ask(levels.row(2), "bounded", LS_Max_Lag="3600000").result(60).status_code == 200  # goes on
    problem(levels.ask(levels.row(2), "bounded", LS_Max_Lag="1").result(60), 503, "log-unreachable")
    levels.node.publish(LogKey(), LogRecord(reachable=True))


@pytest.mark.parametrize("level", ["latest", "linearizable"])
def test_while_the_log_does_not_answer_a_request_fails_at_once_also_one_that_waits(levels, level):
    levels.put(0, b"v")
    waiting = levels.ask(levels.row(0), level)
    levels.demanded(level, 0)
    levels.node.publish(LogKey(), LogRecord(reachable=False))
    assert int(problem(waiting.result(60), 503, "log-unreachable")["retry_after"]) >= 0
    problem(levels.ask(levels.row(0), level).result(60), 503, "log-unreachable")
    levels.node.publish(LogKey(), LogRecord(reachable=True))

    def waits() -> bool:
        return levels.ask(levels.row(0), level, LS_Deadline="1").result(60).status_code == 504

    until("it waits again", waits)
    answer = levels.ask(levels.row(0), level)
    levels.demanded(level, 0)
    levels.tell(level, 0, 1)
    assert answer.result(60).content == b"v"


@pytest.mark.parametrize("level", ["latest", "linearizable"])
def test_a_log_that_does_not_tell_is_said_with_the_reason(levels, level):
    levels.put(3, b"v")
    answer = levels.ask(levels.row(3), level)
    levels.demanded(level, 3)
    levels.tell(level, 3, -1, why="partition 3 has no leader")
    assert "has no leader" in problem(answer.result(60), 503, "log-unreachable")["detail"]


@pytest.mark.parametrize("level", KEYS)
def test_a_demand_is_repeated_to_a_worker_that_was_started_again(levels, level):
    node = levels.node
    levels.put(1, b"v")
    answer = levels.ask(levels.row(1), level)
    since_ns = levels.demanded(level, 1)[1]
    node.close_feed()
    node.open_feed()
    assert levels.demanded(level, 1)[1] == since_ns
    levels.tell(level, 1, 1)
    assert answer.result(60).content == b"v"


@pytest.mark.parametrize("level", KEYS)
def test_lists_wait_for_every_partition_they_read(levels, level):
    node, many = levels.node, [key_in(partition) for partition in range(4)]
    for key in many:
        node.put(levels.name, key.encode(), b"old")
    for method, path, body in (
        ("GET", f"/v1/tables/{levels.name}/rows", None),
        ("POST", f"/v1/tables/{levels.name}/rows:get", {"keys": many}),
    ):
        heights = {p: levels.next_offset(p) for p in range(4)}
        answer = levels.ask(path, level, method, body)
        levels.demanded(level, 0, 1, 2, 3)  # all at once
        for partition in (0, 1, 3):
            levels.tell(level, partition, heights[partition])
        levels.tell(level, 2, heights[2] + 1)
        levels.heard(2, heights[2] + 1)
        assert not answer.done()
        levels.put(2, b"new " + method.encode())
        answered = answer.result(60)
        assert answered.status_code == 200, answered.text
        rows = answered.json()["rows" if method == "GET" else "results"]
        assert {row["key"]: row["value"] for row in rows}[many[2]] == f"new {method}"
        assert answered.json()["positions"]["2"] == heights[2] + 1


@pytest.mark.parametrize("level", KEYS)
def test_head_and_conditional_requests_wait_as_well(levels, level):
    levels.put(1, b"old")
    tag = httpx.get(f"{levels.reader.url}{levels.row(1)}", trust_env=False, timeout=60).headers["etag"]
    for method, status in (("HEAD", 200), ("GET", 200)):
        height = levels.next_offset(1)
        answer = levels.ask(levels.row(1), level, method, If_None_Match=tag)
        levels.demanded(level, 1)
        levels.tell(level, 1, height + 1)
        levels.heard(1, height + 1)
        assert not answer.done()  # else it were 304, from what was here
        levels.put(1, b"new")
        answered = answer.result(60)
        assert (answered.status_code, answered.headers["ls-version"]) == (status, str(height))


def test_a_token_is_waited_for_beside_the_level(levels):
    levels.put(1, b"v")
    answer = levels.ask(levels.row(1), "latest", LS_Token=f"{levels.epoch}-1-2")
    levels.demanded("latest", 1)
    levels.tell("latest", 1, 1)
    assert not answer.done()
    levels.put(1, b"w")
    assert answer.result(60).content == b"w"


def test_a_table_without_control_records_refuses_linearizable_and_no_other_level(served, levels):
    levels.node.create("plain", 1, allow_control_records=False, adopted=True)
    until("it is there", lambda: levels.reader.get("/v1/tables/plain").status_code == 200)
    for method, path, body in (
        ("GET", "/v1/tables/plain/rows/k", None),
        ("GET", "/v1/tables/plain/rows", None),
        ("POST", "/v1/tables/plain/rows:get", {"keys": ["k"]}),
    ):
        document = problem(levels.ask(path, "linearizable", method, body).result(60), 400, "bad-level")
        assert "--allow-control-records" in document["detail"]
    plain = Levels(*served, "plain")
    answer = plain.ask("/v1/tables/plain/rows/k", "latest")
    plain.demanded("latest", 0)
    plain.tell("latest", 0, 0)
    problem(answer.result(60), 404, "not-found")


def test_a_stopped_partition_is_said_and_not_waited_for(levels):
    levels.node.stop(levels.name, 1)
    for level in KEYS:
        problem(levels.ask(levels.row(1), level).result(60), 503, "partition-stopped")


def test_what_the_view_applied_by_the_feed_only_is_not_believed(levels):
    """The feed is the bell: what counts is what the view itself says, in the transaction that is answered from."""
    levels.put(1, b"old")
    answer = levels.ask(levels.row(1), "latest", LS_Deadline="3000")
    levels.demanded("latest", 1)
    levels.node.publish(AppliedKey(levels.epoch, 1), AppliedRecord(2, 2))
    levels.tell("latest", 1, 2)
    problem(answer.result(60), 504, "consistency-timeout")


def test_many_requests_share_an_answer(levels):
    levels.put(1, b"v")
    answers = [levels.ask(levels.row(1), "linearizable") for _ in range(8)]

    until("all of them wait", lambda: 'logstore_waiters{reader="0"} 8' in levels.reader.get("/metrics").text)
    levels.tell("linearizable", 1, 1)
    assert [answer.result(60).status_code for answer in answers] == [200] * 8


def test_a_list_that_spans_nodes_takes_its_level_along(tmp_path):
    """The node that is asked forwards the level; the owner waits for its own point, in its own worker."""
    halves = [[slot for slot in range(16) if slot % 2 == half] for half in (0, 1)]
    with (
        serving(tmp_path / "a", name="node-a", slots=halves[0]) as (near, reader),
        serving(tmp_path / "b", name="node-b", slots=halves[1]) as (far, other),
        ThreadPoolExecutor(4) as pool,
    ):
        for node, url in ((near, reader.url), (far, other.url)):
            node.url = url
        for node in (near, far):
            node.create("t")
        near.others, far.others = [far.record()], [near.record()]
        for node in (near, far):
            node.publish_nodes()
        for one in (reader, other):
            one.wait_ready()
        here, there = Levels(near, reader, pool, "t"), Levels(far, other, pool, "t")
        for partition in range(4):
            (near if partition % 2 == 0 else far).put("t", key_in(partition).encode(), b"old")
        many = {"keys": [key_in(p) for p in range(4)]}
        for level in KEYS:
            for method, path, body in (("GET", "/v1/tables/t/rows", None), ("POST", "/v1/tables/t/rows:get", many)):
                height = far.views[epoch_of("t"), 1].next_offset
                answer = here.ask(path, level, method, body)
                there.asked_ns = here.asked_ns
                for side, partitions in ((here, (0, 2)), (there, (1, 3))):
                    told = {p: side.node.views[epoch_of("t"), p].next_offset for p in partitions}
                    if side is here and method == "GET":
                        continue  # a scan asks the others first
                    side.demanded(level, *partitions)
                    for partition, following in told.items():
                        side.tell(level, partition, following + (partition == 1))
                assert not answer.done()
                far.put("t", key_in(1).encode(), b"new")
                if method == "GET":
                    here.demanded(level, 0, 2)
                    for partition in (0, 2):
                        here.tell(level, partition, near.views[epoch_of("t"), partition].next_offset)
                answered = answer.result(60)
                assert answered.status_code == 200, answered.text
                assert answered.json()["positions"]["1"] == height + 1
