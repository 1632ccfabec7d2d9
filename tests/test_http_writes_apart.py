"""Writes over HTTP at readers whose workers are the tests: logs that do not answer, outcomes that come late."""

import asyncio
import contextlib
import signal
import threading
import uuid
from collections import deque

import pytest
from support_producer import make_table, read_log
from support_wait import until

from logstore.client.write.wakeups import Wakeups
from logstore.model.errors import SetupError
from logstore.model.table import Table
from logstore.serve.settings import ReaderSettings, need_log
from logstore.serve.wire.problems import Problem
from logstore.serve.writes.log_writer import Delivery, LogWriter
from logstore.serve.writes.writes_in_flight import BodyHold, WritesInFlight
from logstore.view.feed.log_records import LogKey, LogRecord
from tests.support_serve import SLOTS, Node, Reader, problem, serving

NOWHERE = "127.0.0.1:1"


def add(node: Node, table: Table) -> Table:
    """Serve a table whose topic is there."""
    node.tables[table.name] = table
    for partition in range(table.partitions):
        if partition in node.slots:
            node.open_view(table, partition)
    node.publish_tables()
    node.publish_nodes()
    return table


@pytest.fixture(scope="module")
def lone(kafka, tmp_path_factory):
    """A node whose views advance when a test says so, and a reader of it that takes writes."""
    options = ("--writes", "--bootstrap", kafka.bootstrap)
    with serving(tmp_path_factory.mktemp("node"), *options) as (node, reader):
        yield node, reader


@pytest.fixture
def table(kafka, lone):
    node, reader = lone
    made = add(node, make_table(kafka.bootstrap, 1, conditional=True))
    until("it is served", lambda: reader.get(f"/v1/tables/{made.name}").status_code == 200)
    reader.wait_ready()
    return made


def test_writes_are_off_unless_they_are_asked_for(tmp_path):
    with serving(tmp_path) as (node, reader):
        node.create("t", 1)
        reader.wait_ready()
        for method in ("PUT", "DELETE"):
            answer = reader.http.request(method, "/v1/tables/t/rows/k")
            assert "--writes" in problem(answer, 405, "method-not-allowed")["detail"]
            assert answer.headers["allow"] == "GET, HEAD"
        answer = reader.http.post("/v1/tables/t/rows:write", content=b"{}")
        assert "--writes" in problem(answer, 405, "method-not-allowed")["detail"]
        assert answer.headers["allow"] == ""


def test_writes_need_the_address_of_kafka(tmp_path):
    with pytest.raises(SetupError, match="--bootstrap"):
        need_log(ReaderSettings(tmp_path, writes=True))


def test_a_log_that_does_not_answer_refuses_within_the_deadline_and_reads_go_on(tmp_path):
    with serving(tmp_path, "--writes", "--bootstrap", NOWHERE) as (node, reader):
        node.create("t", 1)
        node.put("t", b"k", b"v")
        node.create("c", 1, conditional=True)
        reader.wait_ready()
        short = {"LS-Deadline": "100"}
        problem(reader.http.put("/v1/tables/t/rows/k", content=b"w", headers=short), 503, "log-unreachable")
        absent = {"If-None-Match": "*", **short}
        problem(reader.http.put("/v1/tables/c/rows/k", content=b"w", headers=absent), 503, "log-unreachable")
        many = reader.http.post(
            "/v1/tables/t/rows:write", content=b'{"key":"k","value":"w"}',
            headers={"content-type": "application/x-ndjson", **short},
        )  # fmt: skip
        problem(many, 503, "log-unreachable")
        assert reader.get("/v1/tables/t/rows/k").content == b"v"
        node.publish(LogKey(), LogRecord(False))
        until(
            "it has heard that the log does not answer",
            lambda: "nothing was written" in reader.http.put("/v1/tables/t/rows/k", content=b"w").json()["detail"],
        )


def test_a_write_that_is_not_decided_by_the_deadline_can_be_resolved(lone, table):
    node, reader = lone
    path = f"/v1/tables/{table.name}/rows/k%2F"
    answer = reader.http.put(path, content=b"v", headers={"If-None-Match": "*", "LS-Deadline": "3000"})
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert (told["outcome"], told["partition"], told["offset"]) == ("unknown", 0, 0)
    assert answer.headers["ls-token"].endswith("-0-1")
    assert problem(reader.get(told["resolve"]), 404, "not-found")
    node.decide(table.name, [(b"k/", b"v", {"ls.if": b"absent", "ls.id": bytes.fromhex(told["id"])})])
    found = reader.get(told["resolve"], headers={"LS-Token": answer.headers["ls-token"], "LS-Deadline": "30000"})
    assert (found.status_code, found.json()["outcome"]) == (200, "applied")


def test_an_acknowledgement_needs_no_view(lone, table, kafka):
    _, reader = lone
    answer = reader.http.put(f"/v1/tables/{table.name}/rows/k", content=b"v", headers={"LS-Deadline": "30000"})
    assert (answer.status_code, answer.json()["outcome"]) == (200, "acknowledged"), answer.text
    assert read_log(kafka.bootstrap, table) == {(0, 0): (b"k", b"v")}


def test_what_is_not_applied_by_the_deadline_is_in_the_log_and_said_to_be(lone, table, kafka):
    node, reader = lone
    path, headers = f"/v1/tables/{table.name}/rows/k", {"LS-Write-Level": "applied", "LS-Deadline": "3000"}
    late = reader.http.put(path, content=b"v", headers=headers)
    assert late.status_code == 202, late.text
    told = late.json()
    assert (told["outcome"], told["offset"], told["id"], told["resolve"]) == ("unknown", 0, None, None)
    assert "in the log" in told["detail"]
    assert "do not write it again" in told["detail"]
    assert late.headers["ls-token"].endswith("-0-1")
    body = b'{"key":"a","value":"1"}\n{"key":"b","value":"2"}'
    kind = {"content-type": "application/x-ndjson"}
    many = reader.http.post(f"/v1/tables/{table.name}/rows:write", content=body, headers={**headers, **kind})
    assert [(one["status"], one["offset"]) for one in many.json()["results"]] == [(202, 1), (202, 2)]
    node.append(table.name, 0, [(b"k", b"v"), (b"a", b"1"), (b"b", b"2"), (b"k", b"w")])
    applied = reader.http.put(path, content=b"w", headers={**headers, "LS-Deadline": "30000"})
    assert (applied.status_code, applied.json()["outcome"], applied.json()["offset"]) == (200, "applied", 3)
    node.stop(table.name, 0)
    stopped = reader.http.put(path, content=b"x", headers=headers)
    assert (stopped.status_code, stopped.json()["offset"]) == (202, 4), stopped.text
    assert "table repair" in stopped.json()["detail"]
    assert len(read_log(kafka.bootstrap, table)) == 5


def test_a_partition_that_has_stopped_decides_nothing_and_is_written_nothing(lone, table, kafka):
    node, reader = lone
    node.stop(table.name, 0)
    path = f"/v1/tables/{table.name}/rows/k"
    answer = reader.http.put(path, content=b"v", headers={"If-Match": "*", "LS-Deadline": "30000"})
    assert "table repair" in problem(answer, 503, "partition-stopped")["detail"]
    assert read_log(kafka.bootstrap, table) == {}


def test_an_etag_of_an_earlier_epoch_is_told_apart(lone, kafka):
    node, reader = lone
    former = "f" * 31 + "0"
    table = add(node, make_table(kafka.bootstrap, 1, conditional=True, former_epochs=(former,)))
    until("it is served", lambda: reader.get(f"/v1/tables/{table.name}").status_code == 200)
    path = f"/v1/tables/{table.name}/rows/k"
    answer = reader.http.put(path, content=b"v", headers={"If-Match": f'"{former}-0-5"', "LS-Deadline": "30000"})
    problem(answer, 409, "epoch-changed")


def test_a_topic_that_is_another_one_is_written_nothing(lone, kafka):
    node, reader = lone
    topic = make_table(kafka.bootstrap, 1)
    wrong = add(node, Table(topic.name, topic.name, uuid.uuid4().hex, 1))
    until("it is served", lambda: reader.get(f"/v1/tables/{wrong.name}").status_code == 200)
    answer = reader.http.put(f"/v1/tables/{wrong.name}/rows/k", content=b"v", headers={"LS-Deadline": "30000"})
    assert problem(answer, 503, "partition-stopped")["reason"] == "epoch-changed"
    assert read_log(kafka.bootstrap, topic) == {}


def test_the_outcome_is_asked_of_the_node_that_has_the_partition(kafka, tmp_path):
    made = make_table(kafka.bootstrap, 1, conditional=True)
    here = Node(tmp_path / "here", name="here", slots=range(1, SLOTS))
    there = Node(tmp_path / "there", name="there", slots=[0])
    readers = (
        Reader(tmp_path / "here", "--writes", "--bootstrap", kafka.bootstrap, node="here"),
        Reader(tmp_path / "there", node="there"),
    )
    with contextlib.ExitStack() as stack:
        for part in (here, there, *readers):
            stack.callback(part.close)
        here.url, there.url = (reader.url for reader in readers)
        here.others, there.others = [there.record()], [here.record()]
        add(there, made)
        add(here, made)
        for reader in readers:
            reader.wait_ready()
        path, answers = f"/v1/tables/{made.name}/rows/k", []
        headers = {"If-None-Match": "*", "LS-Id": "1" * 32, "LS-Deadline": "30000"}
        asking = threading.Thread(
            target=lambda: answers.append(readers[0].http.put(path, content=b"v", headers=headers))
        )
        asking.start()
        until("it is in the log", lambda: read_log(kafka.bootstrap, made))
        there.decide(made.name, [(b"k", b"v", {"ls.if": b"absent", "ls.id": bytes.fromhex("1" * 32)})])
        asking.join(60)
        assert (answers[0].status_code, answers[0].json()["outcome"]) == (201, "applied"), answers[0].text
        asking = threading.Thread(
            target=lambda: answers.append(
                readers[0].http.put(path, content=b"x", headers={"LS-Write-Level": "applied", "LS-Deadline": "30000"})
            )
        )
        asking.start()
        until("it is in the log", lambda: len(read_log(kafka.bootstrap, made)) == 2)
        there.append(made.name, 0, [(b"k", b"x")])
        asking.join(60)
        assert (answers[1].status_code, answers[1].json()["outcome"]) == (200, "applied"), answers[1].text
        there.close_feed()
        readers[1].kill()  # nobody tells the next one's outcome
        late = readers[0].http.put(path, content=b"w", headers={"If-Match": "*", "LS-Deadline": "1000"})
        assert (late.status_code, late.json()["offset"]) == (202, 2), late.text
        late = readers[0].http.put(path, content=b"w", headers={"LS-Write-Level": "applied", "LS-Deadline": "1000"})
        assert (late.status_code, late.json()["offset"]) == (202, 3), late.text


def test_a_reader_that_stops_tells_whose_write_is_in_the_log(kafka, tmp_path):
    with serving(tmp_path, "--writes", "--bootstrap", kafka.bootstrap) as (node, reader):
        made = add(node, make_table(kafka.bootstrap, 1, conditional=True))
        reader.wait_ready()
        path, answers = f"/v1/tables/{made.name}/rows/k", []
        headers = {"If-None-Match": "*", "LS-Deadline": "30000"}
        asking = threading.Thread(target=lambda: answers.append(reader.http.put(path, content=b"v", headers=headers)))
        asking.start()
        until("it is in the log", lambda: read_log(kafka.bootstrap, made))
        until("its outcome is waited for", lambda: "logstore_waiters{" in _metric(reader, "logstore_waiters", "1.0"))
        reader.process.send_signal(signal.SIGTERM)
        asking.join(60)
        assert (answers[0].status_code, answers[0].json()["offset"]) == (202, 0), answers[0].text


def _metric(reader: Reader, name: str, value: str) -> str:
    lines = reader.get("/metrics").text.splitlines()
    return "".join(line for line in lines if line.startswith(name) and line.endswith(" " + value))


def test_what_is_held_is_bounded_and_let_go():
    flight = WritesInFlight(max_records=2, max_bytes=10)
    with BodyHold(flight) as hold:
        hold.grow(50)  # what comes alone finds room
        with pytest.raises(Problem, match="try again"), BodyHold(flight) as other:
            other.grow(1)
    assert flight.size_bytes == 0
    flight.enter(2, 4)
    with pytest.raises(Problem, match="2 writes"):
        flight.enter(1, 1)
    flight.leave(2, 4)
    assert (flight.records, flight.size_bytes) == (0, 0)


class Interrupted(deque):
    """A queue at whose end its reader finishes its round, while somebody on another thread is about to append."""

    def __init__(self, items, round_of):
        super().__init__(items)
        self._round_of = round_of

    def append(self, item):
        self._round_of()
        super().append(item)


async def _tell_while_the_round_ends(teller, queue: str, first, second, tell) -> None:
    tell(first)
    setattr(teller, queue, Interrupted(getattr(teller, queue), teller._drain))
    tell(second)


def test_no_report_is_left_behind_when_the_loop_ends_its_round_meanwhile(kafka):
    async def of_a_client():
        loop = asyncio.get_running_loop()
        wakeups, first, second = Wakeups(loop), loop.create_future(), loop.create_future()
        await _tell_while_the_round_ends(wakeups, "_done", first, second, wakeups.tell)
        await asyncio.wait_for(second, 30)

    async def of_a_reader():
        flight = WritesInFlight()
        writer = LogWriter(kafka.bootstrap, flight)
        writer.loop = asyncio.get_running_loop()
        flight.enter(2, 0)
        first, second = Delivery(writer, "0" * 32, 0), Delivery(writer, "0" * 32, 0)
        await _tell_while_the_round_ends(writer, "_reported", first, second, writer.tell)
        await asyncio.wait_for(second.arrived, 30)
        assert flight.records == 0

    asyncio.run(of_a_client())
    asyncio.run(of_a_reader())
