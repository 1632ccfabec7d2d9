"""Levels on a real broker: what was acknowledged before a request is in its answer, or there is none."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from support_free_port import free_port
from support_store import running
from support_wait import until
from support_worker import make_table

from logstore import Store
from logstore.log.kafka.records import read_records

HTTP = httpx.Client(trust_env=False, timeout=60)
FRESH = ("latest", "linearizable")
LONG = "30000"


@pytest.fixture(scope="module")
def store(kafka, tmp_path_factory):
    """A node of its own, a table, and a client that writes."""
    table = make_table(kafka.bootstrap, 2)
    data = tmp_path_factory.mktemp("levels") / "node"
    options = ("--bootstrap", kafka.bootstrap, "--http", "127.0.0.1:0", "--group", table.name)
    with running("node", data, *options) as node, Store(kafka.bootstrap, node.url) as client:
        client.put(table.name, "first", "1")
        until("it answers", lambda: read(node.url, table.name, "first", "latest").status_code == 200)
        yield node, client, table


def read(url, name, key, level, deadline_ms=LONG):
    headers = {"LS-Consistency": level, "LS-Deadline": str(deadline_ms)}
    return HTTP.get(f"{url}/v1/tables/{name}/rows/{key}", headers=headers)


def test_an_acknowledged_write_is_in_the_next_answer(store):
    node, client, table = store

    def write_and_read(key: str) -> int:
        for number in range(40):
            written = client.put(table.name, key, str(number))
            for level in FRESH:
                answer = read(node.url, table.name, key, level)
                assert answer.status_code == 200, answer.text
                assert int(answer.headers["ls-version"]) >= written.offset, (key, number, level)
                assert answer.text == str(number)
        return number

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write_and_read, ["a", "b", "c", "d"])) == [39] * 4


def test_a_scan_and_a_multi_get_hold_what_was_acknowledged_in_any_partition(store):
    node, client, table = store
    for number in range(5):
        keys = [f"m{number}-{i}" for i in range(8)]
        for key in keys:
            client.put(table.name, key, "v")
        for level in FRESH:
            headers = {"LS-Consistency": level, "LS-Deadline": LONG}
            where = f"{node.url}/v1/tables/{table.name}/rows"
            page = HTTP.get(where, params={"prefix": f"m{number}-"}, headers=headers)
            assert [row["key"] for row in page.json()["rows"]] == keys
            many = HTTP.post(f"{where}:get", json={"keys": keys}, headers=headers)
            assert [one["found"] for one in many.json()["results"]] == [True] * 8


def test_requests_share_barriers_and_nobody_appends_without_one(store, kafka):
    node, client, table = store
    begin = client.put(table.name, "shared", "1")

    def ask(_number: int) -> int:
        return read(node.url, table.name, "shared", "linearizable").status_code

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(64))) == {200}
    end = client.put(table.name, "shared", "2")
    assert 1 <= end.offset - begin.offset - 1 <= 64
    for _ in range(5):
        assert read(node.url, table.name, "shared", "latest").status_code == 200
    last = client.put(table.name, "shared", "3")
    assert last.offset == end.offset + 1  # the level latest writes nothing
    records = read_records(kafka.bootstrap, table.topic, begin.partition, begin.offset + 1, end.offset)
    assert {dict(record.headers() or [])["ls.op"] for record in records} == {b"barrier"}


def check_paused(url, store, level):
    """With a worker that stands still there is no answer: the newest write cannot be in it."""
    node, client, table = store
    before = client.put(table.name, "paused", "old")
    until(
        "it is read",
        lambda: read(url, table.name, "paused", "eventual").headers.get("ls-version") == str(before.offset),
    )
    with standing(node):
        client.put(table.name, "paused", "new")
        assert read(url, table.name, "paused", "eventual").text == "old"
        assert read(url, table.name, "paused", level, 300).status_code == 504
    answer = read(url, table.name, "paused", level)
    assert (answer.status_code, answer.text) == (200, "new")


def thread_states(pid):
    states = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            states.append(stat.read_text().rpartition(")")[2].split()[0])  # proc(5)
    return states


@contextmanager
def standing(node):
    """The node's worker stands still inside the block."""
    pids = node.pids("workers")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    until("every thread stands still", lambda: {state for pid in pids for state in thread_states(pid)} == {"T"})
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):  # it was killed
                os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("level", FRESH)
def test_with_a_worker_that_stands_still_there_is_no_answer(store, level):
    check_paused(store[0].url, store, level)


PLANTED = """
import runpy
from logstore.serve.read.consistency_wait import ConsistencyWait

async def not_awaited(self, table, place, level, deadline):
    return 0

ConsistencyWait._point = not_awaited
runpy.run_module("logstore.serve", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("level", FRESH)
def test_a_reader_that_does_not_await_the_barrier_is_caught(store, level):
    node = store[0]
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [
        sys.executable,
        "-P",
        "-c",
        PLANTED,
        "--data-dir",
        str(node.data_dir),
        "--port",
        str(port),
        "--node",
        "planted",
    ]
    planted = subprocess.Popen(argv)
    try:
        until("it answers", lambda: answers(url, store[2].name))
        with pytest.raises(AssertionError, match="504"):
            check_paused(url, store, level)
    finally:
        planted.terminate()
        planted.wait(30)


def answers(url, name):
    try:
        return read(url, name, "first", "eventual").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("level", FRESH)
def test_a_worker_that_is_killed_meanwhile_makes_no_answer_old(store, level):
    node, client, table = store
    with ThreadPoolExecutor(1) as pool:
        with standing(node):
            written = client.put(table.name, "killed", level)
            answer = pool.submit(read, node.url, table.name, "killed", level)
            node.kill_one("workers")
        found = answer.result(90)
    assert found.status_code != 200 or int(found.headers["ls-version"]) == written.offset
    until("it answers again", lambda: read(node.url, table.name, "killed", level).text == level)
