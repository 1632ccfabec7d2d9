import subprocess
import sys
import threading

import httpx
from support_wait import until

from logstore.serve.wire.problems import WORDS
from logstore.view.feed.acknowledgement import Acknowledgement, MarkKey, MarkRecord
from logstore.view.feed.log_records import LogKey, LogRecord
from logstore.view.feed.node_records import NodesKey, NodesRecord
from logstore.view.feed.view_records import LIVE, ViewKey, ViewRecord
from tests.support_serve import ROWS, Node, Reader, epoch_of, problem, serving

EPOCH = epoch_of("t")


def test_reads_go_on_while_the_worker_is_away_and_follow_it_when_it_is_back(tmp_path):
    with serving(tmp_path) as (node, reader):
        node.create("t")
        node.put_many("t", ROWS)
        reader.wait_ready()
        statuses: list[int] = []
        enough = threading.Event()

        def keep_reading() -> None:
            with httpx.Client(base_url=reader.url, trust_env=False, timeout=60) as client:
                while not enough.is_set():
                    statuses.append(client.get("/v1/tables/t/rows/k001").status_code)
                    statuses.append(client.get("/v1/tables/t/rows?limit=5").status_code)

        thread = threading.Thread(target=keep_reading)
        thread.start()
        until("some reads are answered", lambda: len(statuses) > 10)
        node.close_feed()
        until("it is not ready", lambda: reader.get("/readyz").status_code == 503)
        partition, offset = node.put("t", b"k001", b"written meanwhile")  # views are written whoever listens
        assert (
            reader.get("/v1/tables/t/rows/k001", headers={"LS-Token": f"{EPOCH}-{partition}-{offset + 1}"}).content
            == b"written meanwhile"
        )
        node.open_feed()
        reader.wait_ready()
        node.put("t", b"k001", b"back")
        until("the row is back", lambda: reader.get("/v1/tables/t/rows/k001").content == b"back")
        enough.set()
        thread.join(90)
        assert set(statuses) == {200}


def test_a_returned_worker_that_is_still_silent_costs_no_read(tmp_path):
    with serving(tmp_path) as (node, reader):
        node.create("t")
        node.put_many("t", ROWS)
        reader.wait_ready()
        node.close_feed()
        known, node.published = (
            node.published,
            {LogKey(): LogRecord(reachable=False)},
        )  # it has just started and cannot reach the log
        node.open_feed()
        until("the log is away", lambda: reader.get("/v1/cluster").json()["log"]["reachable"] is False)
        assert reader.get("/v1/tables/t/rows/k001").status_code == 200
        assert len(reader.get("/v1/tables/t/rows?limit=1000").json()["rows"]) == len(ROWS)
        for key, value in {**known, LogKey(): LogRecord(reachable=True)}.items():
            node.publish(key, value)
        until("the log is back", lambda: reader.get("/v1/cluster").json()["log"]["reachable"] is True)
        assert reader.get("/v1/tables/t/rows/k001").status_code == 200


def test_a_reader_starts_without_its_worker(tmp_path):
    node = Node(tmp_path)
    node.create("t")
    node.put_many("t", ROWS)
    node.leave_served_file()
    node.close_feed()
    reader = Reader(tmp_path)
    try:
        reader.wait_listening()
        assert reader.get("/v1/tables/t/rows/k001").content == b"v1"
        assert reader.http.post("/v1/tables/t/rows:get", json={"keys": ["k002"]}).json()["results"][0]["value"] == "v2"
        problem(reader.get("/readyz"), 503, "starting")
        node.open_feed()
        reader.wait_ready()
        assert reader.get("/v1/tables/t/rows/k001").headers["ls-lag"] == "0"
    finally:
        reader.close()
        node.close()


def test_a_reader_that_knows_nothing_says_starting(tmp_path):
    reader = Reader(tmp_path)
    try:
        reader.wait_listening()
        for path in ("/v1/tables/t/rows/k", "/v1/tables", "/v1/tables/t/rows", "/v1/tables/t", "/readyz"):
            answer = reader.get(path)
            assert problem(answer, 503, "starting")["retry_after"] == 1
            assert answer.headers["retry-after"] == "1"
        assert reader.get("/healthz").status_code == 200
        assert reader.get("/v1/partitions").json() == {"partitions": []}
    finally:
        reader.close()


def test_a_definition_is_acknowledged_when_its_views_are_open(tmp_path):
    with serving(tmp_path) as (node, reader):
        node.create("t")
        reader.wait_ready()
        revision = node.revision
        until("the reader acknowledges", lambda: node.acks() == [Acknowledgement(reader.process.pid, revision)])
        view = node.published[ViewKey("t", EPOCH, 0)]
        node.publish(ViewKey("t", EPOCH, 0), None)
        node.tables["u"] = node.tables["t"].__class__("u", "u", epoch_of("u"), 1)
        node.publish_tables()
        until("it answers 200", lambda: reader.get("/v1/tables/u").status_code == 200)
        assert node.acks() == [Acknowledgement(reader.process.pid, revision)]  # two views are not open yet
        problem(reader.get("/v1/tables/u/rows/k"), 503, "starting")
        node.publish(ViewKey("t", EPOCH, 0), view)
        node.open_view(node.tables["u"], 0)
        until("the reader acknowledges", lambda: node.acks() == [Acknowledgement(reader.process.pid, revision + 1)])
        assert reader.get("/v1/tables/u/rows/k").status_code == 404
        node.publish(MarkKey(), MarkRecord("run", 1))
        until(
            "the reader acknowledges",
            lambda: node.acks() == [Acknowledgement(reader.process.pid, revision + 1, MarkRecord("run", 1))],
        )


def test_catching_up_is_not_ready_but_readable(tmp_path):
    with serving(tmp_path, "--ready-lag", "10") as (node, reader):
        table = node.create("t", 1)
        node.put("t", b"k", b"v")
        reader.wait_ready()
        node.say_view(table, 0, "catching-up")
        until("it is not ready", lambda: reader.get("/readyz").status_code == 503)
        assert "behind" in reader.get("/readyz").json()["detail"]
        assert reader.get("/v1/tables/t/rows/k").status_code == 200
        node.say_view(table, 0, "live")
        reader.wait_ready()
        node.say_applied(table, 0, behind=11)
        until("it is not ready", lambda: reader.get("/readyz").status_code == 503)


def test_ready_is_whether_reads_can_be_answered_and_the_log_is_told_beside_it(tmp_path):
    with serving(tmp_path) as (node, reader):
        table = node.create("t", 1)
        node.put("t", b"k", b"v")
        node.publish(LogKey(), LogRecord(reachable=True))
        reader.wait_ready()
        until("the log is told", lambda: reader.get("/readyz").json()["log"] == {"reachable": True})
        node.say_view(table, 0, "catching-up")
        until("it is not ready", lambda: reader.get("/readyz").status_code == 503)
        assert reader.get("/readyz").json()["log"] == {"reachable": True}
        node.publish(NodesKey(), NodesRecord())  # whose announcements nobody hears
        node.publish(LogKey(), LogRecord(reachable=False))
        until("it is as ready as it can be", lambda: reader.get("/readyz").status_code == 200)
        assert reader.get("/readyz").json() == {"status": "ready", "log": {"reachable": False}}
        node.say_view(table, 0, "catching-up", reached=False)
        until("what it lacks is not absent", lambda: reader.get("/readyz").status_code == 503)
        assert reader.get("/livez").json() == reader.get("/healthz").json() == {"status": "ok"}


def test_a_view_that_has_never_been_at_the_end_does_not_answer_and_says_how_far_it_is(tmp_path):
    with serving(tmp_path) as (node, reader):
        table = node.create("t", 1)
        node.put("t", b"k", b"v")
        reader.wait_ready()
        node.say_view(table, 0, "catching-up", reached=False)
        node.say_applied(table, 0, behind=3)
        until("it answers 503", lambda: reader.get("/v1/tables/t/rows/absent").status_code == 503)
        for path in ("rows/k", "rows/absent", "rows", "rows?keys_only=true"):
            document = problem(reader.get(f"/v1/tables/t/{path}"), 503, "starting")
            assert "for the first time: at offset 1 of 4, 25%" in document["detail"]
        page = reader.http.post("/v1/tables/t/rows:get", json={"keys": ["k", "absent"]}).json()
        assert [row["reason"] for row in page["unprocessed"]] == ["starting"] * 2
        (row,) = reader.get("/v1/partitions").json()["partitions"]
        assert (row["state"], "first time" in row["reason"]) == ("catching-up", True)
        node.say_view(table, 0, "live")
        reader.wait_ready()
        assert reader.get("/v1/tables/t/rows/absent").status_code == 404


def test_a_view_built_anew_under_the_same_path_is_noticed(tmp_path):
    with serving(tmp_path) as (node, reader):
        table = node.create("t", 1)
        node.put("t", b"k", b"old")
        reader.wait_ready()
        view = node.views[EPOCH, 0]
        view.close()
        (view.path / "data.mdb").unlink()
        (view.path / "lock.mdb").unlink()
        node.open_view(table, 0)
        node.put("t", b"k", b"new")
        node.say_view(table, 0, "live", "built again")
        until("the row is new", lambda: reader.get("/v1/tables/t/rows/k").content == b"new")


def test_a_damaged_view_is_never_an_answer(tmp_path):
    with serving(tmp_path) as (node, reader):
        table = node.create("t", 1)
        reader.wait_ready()
        broken = tmp_path / "broken"
        broken.mkdir()
        (broken / "data.mdb").write_bytes(b"not a database" * 1000)
        node.publish(ViewKey("t", table.epoch, 0), ViewRecord(str(broken), 0, LIVE))
        until("it answers 503", lambda: reader.get("/v1/tables/t/rows/k").status_code == 503)
        problem(reader.get("/v1/tables/t/rows/k"), 503, "starting")


ENDED_AT_ONCE = """
import os, runpy, signal, sys
from logstore.serve.process import ReaderProcess

serve = ReaderProcess.serve

async def ended(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    await serve(*arguments)

ReaderProcess.serve = ended
runpy.run_module("logstore.serve", run_name="__main__", alter_sys=True)
"""


def test_a_reader_that_is_ended_while_it_starts_ends(tmp_path):
    argv = [sys.executable, "-c", ENDED_AT_ONCE, "--data-dir", str(tmp_path), "--port", "0", "--node", "n"]
    assert subprocess.run(argv, timeout=60, check=False).returncode == 0


def test_two_readers_share_one_port(tmp_path):
    with serving(tmp_path) as (node, reader):
        node.create("t")
        node.put_many("t", ROWS)
        reader.wait_ready()
        second = Reader(tmp_path, "--index", "1")
        second.close()
        second.arguments[second.arguments.index("--port") + 1] = str(reader.port)
        second.start()
        try:
            seen = set()

            def label() -> int:
                with httpx.Client(base_url=reader.url, trust_env=False, timeout=60) as client:
                    process = client.get("/healthz").headers["x-request-id"].partition("-")[0]
                seen.add(process)
                return len(seen) == 2

            until("both have answered", label)
            until("both readers acknowledge", lambda: len(node.acks()) == 2)
        finally:
            second.close()


def test_serving_beyond_this_machine_needs_a_word(tmp_path):
    reader = Reader(tmp_path, "--host", "0.0.0.0")
    assert reader.process.wait(90) == 1
    reader.close()


def test_pages_tell_of_tables_and_quarantine(tmp_path):
    with serving(tmp_path) as (node, reader):
        node.create("t", 2, description="words")
        node.append("t", 0, [(None, b"x")] * 1_005)
        node.append("t", 1, [(b"", b"x"), (b"k", b"v" * 1_000_001)])
        reader.wait_ready()
        assert reader.get("/v1/tables").json()["tables"] == [reader.get("/v1/tables/t").json()]
        assert (
            reader.get("/v1/tables/t").json() | {"description": "words", "partitions": 2}
            == reader.get("/v1/tables/t").json()
        )
        page = reader.get("/v1/tables/t/quarantine").json()
        assert page["counts"]["null-key"] == 1_005
        assert sum(page["counts"].values()) == 1_007
        assert len(page["records"]) == 1_002
        assert page["dropped"] == 5
        assert page["records"][999] == {"partition": 0, "offset": 1_004, "reason": "null-key"}
        assert [record["partition"] for record in page["records"][1_000:]] == [1, 1]
        text = reader.get("/metrics").text
        assert 'logstore_quarantined_total{partition="0",reason="null-key",table="t"} 1005.0' in text
        assert 'logstore_applied_offset{partition="0",table="t"} 1005.0' in text
        assert 'logstore_http_requests_total{method="GET",reader="0",route="quarantine",status="200"} 1.0' in text
        assert (
            'logstore_http_request_seconds_count{reader="0",route="quarantine",status="200",way="ordinary"} 1.0' in text
        )
        problem(reader.get("/v1/tables/none/quarantine"), 404, "no-such-table")


def test_a_noisy_partition_hides_no_quarantine_of_a_quiet_one(tmp_path):
    with serving(tmp_path) as (node, reader):
        node.create("t", 2)
        node.append("t", 1, [(None, b"x")])
        node.append("t", 0, [(None, b"x")] * 1_200)
        reader.wait_ready()
        page = reader.get("/v1/tables/t/quarantine").json()
        assert page["records"][-1] == {"partition": 1, "offset": 0, "reason": "null-key"}
        assert len(page["records"]) == 1_001
        assert (page["counts"], page["dropped"]) == ({"null-key": 1_201}, 200)


def test_openapi_is_true(tmp_path):
    with serving(tmp_path) as (node, reader):
        node.create("t", 1)
        node.put("t", b"k", b"v")
        node.create("c", 1, conditional=True)
        node.decide("c", [(b"k", b"v", {"ls.id": b"i" * 16})])
        reader.wait_ready()
        document = reader.get("/openapi.json").json()
        assert document["openapi"].startswith("3.1")
        for path, methods in document["paths"].items():
            for method in set(methods) - {"parameters"}:
                asked = {"json": {"keys": ["k"]}} if method == "post" else {}
                if path.endswith("/outcomes:get"):
                    asked = {"json": {"partition": 0, "offsets": [0]}}
                if path.endswith("/outcomes"):
                    asked = {"params": {"key": "k", "id": (b"i" * 16).hex()}}
                named = {"table": "c" if "/outcomes" in path else "t", "key": "k", "partition": "0", "offset": "0"}
                answer = reader.http.request(method, path.format(**named), **asked)
                assert str(answer.status_code) in methods[method]["responses"], (method, path)
                if method in ("put", "delete", "patch") or path.endswith("rows:write"):  # off here
                    assert answer.status_code == 405
                    continue
                if path.endswith("/changes"):  # which has no log to follow here
                    assert answer.status_code == 503
                    continue
                assert answer.status_code == 200, (method, path)
                declared = methods[method]["responses"]["200"]["content"]
                assert answer.headers["content-type"].partition(";")[0] in declared, (method, path)
        words = document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]

        assert sorted(words) == sorted(f"urn:logstore:{word}" for word in WORDS if word != "request-timeout")
