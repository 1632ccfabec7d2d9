import shutil
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from support_wait import until

from logstore.model.partitioner import partition_of
from logstore.model.position import Position
from logstore.view.feed.log_records import LogKey, LogRecord
from tests.support_serve import epoch_of, problem, read_answer, serving

EPOCH = epoch_of("t")
ROW = "/v1/tables/t/rows/k"
PARTITION = partition_of(b"k", 4)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("node"), "--max-waiters", "1200") as (node, reader):
        node.create("t")
        node.put("t", b"k", b"0")
        reader.wait_ready()
        yield node, reader


def applied(node) -> int:
    return node.views[EPOCH, PARTITION].next_offset


def ahead(node, records: int = 1, partition: int = PARTITION) -> str:
    return f"{EPOCH}-{partition}-{node.views[EPOCH, partition].next_offset + records}"


def waiting(reader) -> float:
    line = next(line for line in reader.get("/metrics").text.splitlines() if line.startswith("logstore_waiters{"))
    return float(line.split()[1])


def test_a_token_that_is_reached_costs_nothing(store):
    node, reader = store
    answer = reader.get(ROW, headers={"LS-Token": ahead(node, 0)})
    assert (answer.status_code, answer.headers["ls-token"]) == (200, ahead(node, 0))


def test_a_waiting_read_is_woken_by_its_write(store):
    node, reader = store
    delays = []
    for i in range(10):
        value, token = b"woken %d" % i, ahead(node)
        answers = []
        thread = threading.Thread(
            target=lambda t=token, a=answers: a.append(
                (
                    httpx.get(
                        reader.url + ROW, params={"token": t, "deadline_ms": 20_000}, trust_env=False, timeout=30
                    ),
                    time.monotonic(),
                )
            )
        )
        thread.start()
        until("1 wait", lambda: waiting(reader) == 1)
        written = time.monotonic()
        node.put("t", b"k", value)
        thread.join(90)
        answer, came = answers[0]
        assert (answer.status_code, answer.content) == (200, value)
        delays.append(came - written)
    assert min(delays) < 0.5, delays  # a look now and then would be late each time but by chance
    assert max(delays) < 20, delays


def test_a_token_not_reached_by_the_deadline_is_504(store):
    node, reader = store
    began = time.monotonic()
    document = problem(
        reader.get(ROW, headers={"LS-Token": ahead(node, 3), "LS-Deadline": "300"}), 504, "consistency-timeout"
    )
    assert 0.3 <= time.monotonic() - began < 25
    assert "after 300 ms" in document["detail"]
    assert (document["partition"], document["asked"] - document["applied"]) == (PARTITION, 3)


def test_only_partitions_that_are_read_are_waited_for(store):
    node, reader = store
    other = (PARTITION + 1) % 4
    token = ahead(node, 5, other)
    answer = reader.get(ROW, headers={"LS-Token": token})
    assert answer.status_code == 200
    assert set(answer.headers["ls-token"].split(",")) == {token, ahead(node, 0)}
    problem(
        reader.get("/v1/tables/t/rows", headers={"LS-Token": token, "LS-Deadline": "50"}), 504, "consistency-timeout"
    )
    keys = {"keys": ["k"]}
    assert reader.http.post("/v1/tables/t/rows:get", json=keys, headers={"LS-Token": token}).status_code == 200
    late = {"LS-Token": ahead(node, 5), "LS-Deadline": "50"}
    problem(reader.http.post("/v1/tables/t/rows:get", json=keys, headers=late), 504, "consistency-timeout")


@pytest.mark.parametrize("page", ["scan", "multi-get"])
def test_a_view_that_begins_again_while_another_partition_is_waited_for_is_waited_for_too(tmp_path, page):
    with serving(tmp_path) as (node, reader):
        table = node.create("t", 2)
        keys = [[key for key in (b"k%d" % n for n in range(50)) if partition_of(key, 2) == p] for p in (0, 1)]
        node.put_many("t", dict.fromkeys([*keys[0], *keys[1]], b"v"))
        reader.wait_ready()
        reached = [node.views[EPOCH, p].next_offset for p in (0, 1)]
        params = {"token": f"{EPOCH}-0-{reached[0]},{EPOCH}-1-{reached[1] + 1}", "deadline_ms": "20000"}

        def ask():
            path = "/v1/tables/t/rows"
            if page == "scan":
                return httpx.get(reader.url + path, params=params, timeout=60, trust_env=False)
            asked = {"keys": [key.decode() for key in [*keys[1], *keys[0]]]}
            return httpx.post(f"{reader.url}{path}:get", params=params, json=asked, timeout=60, trust_env=False)

        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask)
            until("it waits", lambda: waiting(reader) == 1)
            damaged = node.views[EPOCH, 0]
            damaged.close(flush=False)
            shutil.rmtree(damaged.path)
            node.open_view(table, 0)  # it begins again at offset 0
            until("it has begun again", lambda: reader.get("/v1/partitions").json()["partitions"][0]["applied"] == 0)
            node.put("t", keys[1][0], b"v2")
            until("it waits again", lambda: waiting(reader) == 1)  # for the one that has begun again, now
            assert not answer.done()
            node.put_many("t", dict.fromkeys(keys[0], b"again"))
            found = answer.result(30)
        assert found.status_code == 200, found.text
        rows = found.json()["rows" if page == "scan" else "results"]
        assert sum(row["value"] == "again" for row in rows) == len(keys[0])
        assert found.json()["positions"] == {"0": reached[0], "1": reached[1] + 1}


def test_a_token_with_eventual_is_ignored(store):
    node, reader = store
    headers = {"LS-Consistency": "eventual", "LS-Token": ahead(node, 1_000)}
    assert reader.get(ROW, headers=headers).status_code == 200
    assert reader.get(ROW, headers={**headers, "LS-Token": "nonsense"}).status_code == 200


def test_a_token_over_many_partitions_is_taken_as_it_was_given(store):
    node, reader = store
    pieces = {(epoch_of("elsewhere"), partition): 10**9 for partition in range(1_024)}
    pieces |= {(epoch_of("far"), partition): 10**9 for partition in range(900)}
    token = Position(pieces).token
    answer = reader.get(ROW, headers={"LS-Token": token, "LS-Deadline": "300"})
    assert answer.status_code == 504  # epochs that it has not heard of are waited for
    for table in ("elsewhere", "far"):
        node.create(table, 1)
    answer = until(
        "both tables are known",
        lambda: (got := reader.get(ROW, headers={"LS-Token": token})).status_code == 200 and got,
    )
    assert Position.parse(answer.headers["ls-token"]).covers(Position(pieces))
    assert reader.get(ROW, headers={"LS-Token": answer.headers["ls-token"]}).status_code == 200


def test_tokens_of_other_epochs(store):
    node, reader = store
    node.create("other", 1)
    node.create("again", 1, former=(epoch_of("again", 0),), incarnation=1)
    until(
        "the table is another one",
        lambda: (
            reader.get("/v1/tables/again/rows/k").status_code == 404
            and reader.get("/v1/tables/again").status_code == 200
        ),
    )
    assert reader.get(ROW, headers={"LS-Token": f"{epoch_of('other')}-0-99"}).status_code == 200
    assert reader.get(ROW, headers={"LS-Token": f"{epoch_of('again', 0)}-0-99"}).status_code == 200
    document = problem(
        reader.get("/v1/tables/again/rows/k", headers={"LS-Token": f"{epoch_of('again', 0)}-0-1"}), 409, "epoch-changed"
    )
    assert document["epoch"] == epoch_of("again", 1)


def test_a_token_of_an_unknown_epoch_waits_for_the_tables(store):
    node, reader = store
    token = f"{epoch_of('soon')}-0-0"
    problem(reader.get(ROW, headers={"LS-Token": token, "LS-Deadline": "100"}), 504, "consistency-timeout")
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(
            httpx.get(reader.url + ROW, params={"token": token, "deadline_ms": 20_000}, trust_env=False, timeout=60)
        )
    )
    thread.start()
    until("1 wait", lambda: waiting(reader) == 1)
    node.create("soon", 1)
    thread.join(90)
    assert answers[0].status_code == 200


def test_a_write_into_a_table_that_is_not_known_here_yet_is_read(store):
    """As of a client that made the table, wrote, and asks another reader than the one that was told first."""
    node, reader = store
    with ThreadPoolExecutor(1) as pool:
        headers = {"LS-Token": f"{epoch_of('made')}-0-1", "LS-Deadline": "20000"}
        asked = pool.submit(reader.get, "/v1/tables/made/rows/k", headers=headers)
        until("it waits", lambda: waiting(reader) == 1)
        node.create("made", 1)
        node.put("made", b"k", b"first")
        assert asked.result(60).content == b"first"


def test_a_table_that_is_missing_is_said_at_once_when_every_epoch_is_known(store):
    _, reader = store
    headers = {"LS-Token": f"{EPOCH}-0-1", "LS-Deadline": "20000"}
    problem(reader.get("/v1/tables/nowhere/rows/k", headers=headers), 404, "no-such-table")
    headers = {"LS-Token": f"{epoch_of('never')}-0-1", "LS-Deadline": "50"}
    problem(reader.get("/v1/tables/nowhere/rows/k", headers=headers), 504, "consistency-timeout")


def test_forged_tokens_never_hang(store):
    _, reader = store
    for token in (f"{EPOCH}-{PARTITION}-9223372036854775807", f"{'e' * 32}-0-1"):
        problem(reader.get(ROW, headers={"LS-Token": token, "LS-Deadline": "50"}), 504, "consistency-timeout")
    for token in (
        f"{EPOCH}-{PARTITION}-9223372036854775808",
        f"{EPOCH.upper()}x-0-1",
        f"{EPOCH}-0",
        ",",
        f"{EPOCH}-00-1",
        f"{EPOCH}-0--1",
    ):
        problem(reader.get(ROW, headers={"LS-Token": token, "LS-Deadline": "50"}), 400, "bad-token")


def crowd(reader, stack: ExitStack, count: int, token: str, deadline_ms: int) -> list[socket.socket]:
    """`count` connections, each with one request that waits."""
    request = f"GET {ROW}?token={token}&deadline_ms={deadline_ms} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
    sockets = [stack.enter_context(reader.connect()) for _ in range(count)]
    for sock in sockets:
        sock.sendall(request)
    return sockets


def test_a_thousand_waiters_use_no_cpu_and_all_wake(store):
    node, reader = store
    with ExitStack() as stack:
        sockets = crowd(reader, stack, 1_000, ahead(node), 30_000)
        until("1_000 wait", lambda: waiting(reader) == 1_000)
        before = reader.cpu_seconds()
        time.sleep(2)  # what is measured is the cost of this very wait
        spent = reader.cpu_seconds() - before
        node.put("t", b"k", b"all awake")
        assert {read_answer(sock).rpartition(b"\r\n\r\n")[2] for sock in sockets} == {b"all awake"}
    assert spent <= 0.1, f"{spent} s of CPU in 2 s"
    assert waiting(reader) == 0


def test_too_many_waiters_are_429(store):
    node, reader = store
    with ExitStack() as stack:
        sockets = crowd(reader, stack, 1_250, ahead(node), 30_000)
        refused = 'logstore_http_requests_total{method="GET",reader="0",route="row",status="429"} 50.0'
        until("the refusals are counted", lambda: refused in reader.get("/metrics").text)
        node.put("t", b"k", b"room")
        statuses = Counter(read_answer(sock)[9:12] for sock in sockets)
    assert statuses == {b"429": 50, b"200": 1_200}


def test_an_unreachable_log_fails_at_once_what_would_have_to_wait(tmp_path):
    with serving(tmp_path) as (node, reader):
        node.create("t")
        node.put("t", b"k", b"v")
        reader.wait_ready()
        node.publish(LogKey(), LogRecord(reachable=False))
        until("the log is away", lambda: reader.get("/v1/cluster").json()["log"]["reachable"] is False)
        began = time.monotonic()
        problem(reader.get(ROW, headers={"LS-Token": ahead(node), "LS-Deadline": "20000"}), 503, "log-unreachable")
        assert time.monotonic() - began < 30  # its deadline
        assert reader.get(ROW, headers={"LS-Token": ahead(node, 0)}).status_code == 200
        assert reader.get(ROW).status_code == 200


def test_a_reader_that_stops_sends_its_waiters_elsewhere(tmp_path):
    with serving(tmp_path) as (node, reader):
        node.create("t")
        reader.wait_ready()
        answers = []
        params = {"token": ahead(node), "deadline_ms": 30_000}
        thread = threading.Thread(
            target=lambda: answers.append(httpx.get(reader.url + ROW, params=params, trust_env=False, timeout=40))
        )
        thread.start()
        until("1 wait", lambda: waiting(reader) == 1)
        began = time.monotonic()
        reader.process.terminate()
        thread.join(90)
        problem(answers[0], 503, "overloaded")
        assert reader.process.wait(90) == 0
        assert time.monotonic() - began < 30  # its deadline
