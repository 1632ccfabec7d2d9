"""Requests that were slow or failed are logged with their ids; with an access log, all of them."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from support_wait import until

from tests.support_serve import Node, Reader, epoch_of

FUTURE = f"/v1/tables/t/rows?token={epoch_of('t')}-0-999999&deadline_ms=50"


def lines(said: Path) -> list[dict[str, Any]]:
    """Whole lines of a reader's log."""
    return [orjson.loads(line) for line in said.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def line_of(said: Path, request_id: str, event: str) -> dict[str, Any]:
    """The line of an event of one request, once it is there."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        found[:] = [ln for ln in lines(said) if (ln.get("request_id"), ln["event"]) == (request_id, event)]
        return bool(found)

    until(f"{event} is logged", is_there)
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    node = Node(tmp_path_factory.mktemp("node"))
    node.create("t")
    node.put_many("t", {b"k": b"v"})
    yield node
    node.close()


def reader(node: Node, said: Path, *options: str) -> Reader:
    return Reader(node.data_dir, *options, node=node.name, said=said)


@pytest.fixture(scope="module")
def slow(node, tmp_path_factory):
    """A reader for which everything is slow, and where its log is."""
    said = tmp_path_factory.mktemp("slow") / "log"
    found = reader(node, said, "--slow-ms", "0")
    yield found.wait_ready(), said
    found.close()


def test_a_slow_row_of_the_fast_path_is_logged_with_the_id_that_the_client_has(slow):
    one, said = slow
    answer = one.raw(b"GET /v1/tables/t/rows/k HTTP/1.1\r\nhost: x\r\n\r\n")
    request_id = answer.partition(b"x-request-id: ")[2].partition(b"\r\n")[0].decode()
    line = line_of(said, request_id, "a request was slow")
    assert {name: line[name] for name in ("level", "route", "status", "table", "process")} == {
        "level": "warning", "route": "row", "status": 200, "table": "t", "process": "reader-0",
    }  # fmt: skip
    assert line["ms"] > 0


def test_a_slow_request_of_the_ordinary_way_is_logged_with_the_clients_own_id(slow):
    one, said = slow
    assert one.get("/v1/tables/t/rows?limit=1", headers={"x-request-id": "mine-1"}).status_code == 200
    line = line_of(said, "mine-1", "a request was slow")
    assert (line["method"], line["path"], line["route"], line["status"]) == ("GET", "/v1/tables/t/rows", "scan", 200)


def test_a_failed_request_is_logged_with_its_problem(slow):
    one, said = slow
    answer = one.get(FUTURE, headers={"x-request-id": "mine-2"})
    assert answer.status_code == 504
    line = line_of(said, "mine-2", "a request failed")
    assert (line["status"], line["problem"], line["detail"]) == (
        answer.status_code, answer.json()["type"], answer.json()["detail"],
    )  # fmt: skip


def test_the_access_log_has_every_request_and_the_answers_are_the_same(node, slow, tmp_path):
    row = b"GET /v1/tables/t/rows/k HTTP/1.1\r\nhost: x\r\n\r\n"
    one = reader(node, tmp_path / "log", "--access-log")
    try:
        one.wait_ready()
        ids = []
        for _ in range(60):  # more than other lines may repeat themselves
            answer = one.raw(row)
            assert answer.endswith(b"\r\n\r\nv")
            ids.append(answer.partition(b"x-request-id: ")[2].partition(b"\r\n")[0].decode())
        line = line_of(tmp_path / "log", ids[-1], "a request was answered")
        assert (line["level"], line["route"], line["status"]) == ("info", "row", 200)
        logged = [ln["request_id"] for ln in lines(tmp_path / "log") if ln["event"] == "a request was answered"]
        assert [one_id for one_id in logged if one_id in ids] == ids
    finally:
        one.close()


def test_without_being_asked_a_quick_request_is_not_logged(node, tmp_path):
    one = reader(node, tmp_path / "log", "--slow-ms", "3600000")
    try:
        one.wait_ready()
        answer = one.get("/v1/tables", headers={"x-request-id": "quick"})
        assert answer.status_code == 200
        assert one.get(FUTURE, headers={"x-request-id": "failed"}).status_code == 504
        line_of(tmp_path / "log", "failed", "a request failed")
        assert not [ln for ln in lines(tmp_path / "log") if ln.get("request_id") == "quick"]
    finally:
        one.close()
