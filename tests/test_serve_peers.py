"""Readers of two nodes: each knows who serves what, and asks the other for lists that span both."""

import base64
import contextlib
import http.server
import random
import threading
import time

import httpx
import msgpack
import pytest
from support_wait import until

from logstore import Store
from logstore.cli import health, status
from logstore.client.transport.node_pages import NodePages
from logstore.model.partitioner import partition_of
from logstore.view.feed.adoption_records import AdoptionKey, AdoptionRecord
from logstore.view.feed.log_records import LogKey, LogRecord
from logstore.view.feed.node_records import NodesKey, NodesRecord
from logstore.view.feed.view_records import ViewKey
from tests.support_serve import ROWS, SLOTS, Node, Reader, epoch_of, key_in, problem, serving

EPOCH = epoch_of("t")


def test_while_somebody_else_is_live_a_view_on_its_first_way_leads_there(pair):
    (even, odd), (reader, _) = pair
    table = even.tables["t"]
    even.open_view(table, 1)  # it was given the slot; the one before still serves it
    even.slots = [*even.slots, 1]
    even.say_view(table, 1, "catching-up", reached=False)
    even.publish_nodes()
    until("it answers 421", lambda: reader.get(f"/v1/tables/t/rows/{key_in(1)}").status_code == 421)
    answer = reader.get(f"/v1/tables/t/rows/{key_in(1)}")
    assert answer.headers["ls-owner"] == odd.url
    page = reader.get("/v1/tables/t/rows?limit=1000").json()
    assert len(page["rows"]) == len(ROWS)
    body = {"keys": sorted(key.decode() for key in ROWS)}
    found = reader.http.post("/v1/tables/t/rows:get", json=body).json()
    assert [row["found"] for row in found["results"]] == [True] * len(ROWS)


@pytest.fixture
def pair(tmp_path):
    """Two nodes that share the slots, each with a reader that knows of both."""
    nodes = [
        Node(tmp_path / name, name=name, slots=slots)
        for name, slots in (("even", range(0, SLOTS, 2)), ("odd", range(1, SLOTS, 2)))
    ]
    readers = [Reader(node.data_dir, node=node.name) for node in nodes]
    for node, reader in zip(nodes, readers, strict=True):
        node.url = reader.url
        reader.http.headers["LS-Deadline"] = "20000"  # one asks the other, which may have to wait for a processor
    for node, other in (nodes, nodes[::-1]):
        node.others = [other.record()]
        node.create("t")
        mine = {key: value for key, value in ROWS.items() if partition_of(key, 4) in node.slots}
        node.put_many("t", mine)
    for reader in readers:
        reader.wait_ready()
    yield nodes, readers
    for part in (*readers, *nodes):
        part.close()


def test_a_row_of_another_node_is_421_with_its_owner(pair):
    (even, odd), (reader, other) = pair
    for partition in range(4):
        answer = reader.get(f"/v1/tables/t/rows/{key_in(partition)}")
        if partition in even.slots:
            assert answer.status_code == 200
        else:
            document = problem(answer, 421, "not-owner")
            assert answer.headers["ls-owner"] == document["owner"] == odd.url
            assert (
                httpx.get(
                    f"{document['owner']}/v1/tables/t/rows/{key_in(partition)}", trust_env=False, timeout=60
                ).status_code
                == 200
            )
    states = [(row["state"], row["owner"]) for row in reader.get("/v1/partitions").json()["partitions"]]
    assert states == [("live", even.url), ("elsewhere", odd.url)] * 2
    cluster = reader.get("/v1/cluster").json()["nodes"]
    assert [(node["node"], node["slots"], node["url"]) for node in cluster] == [
        ("even", even.slots, reader.url),
        ("odd", odd.slots, other.url),
    ]


def test_a_slot_that_nobody_serves_is_starting(pair):
    (even, _), (reader, _) = pair
    even.others = []
    even.publish_nodes()
    until("it answers 503", lambda: reader.get(f"/v1/tables/t/rows/{key_in(1)}").status_code == 503)
    problem(reader.get(f"/v1/tables/t/rows/{key_in(1)}"), 503, "starting")
    problem(reader.get("/v1/tables/t/rows"), 503, "starting")
    states = [(row["state"], row["owner"]) for row in reader.get("/v1/partitions").json()["partitions"]]
    assert states == [("live", even.url), ("unserved", None)] * 2
    page = reader.http.post("/v1/tables/t/rows:get", json={"keys": [key_in(0), key_in(1)]}).json()
    assert [row["key"] for row in page["results"]] == [key_in(0)]
    assert page["unprocessed"] == [{"key": key_in(1), "reason": "starting"}]


def test_siblings_of_another_node_are_listed_in_every_form(pair):
    nodes, readers = pair
    for node in nodes:
        node.create("carts", conditional=True, siblings=True)
    keys = [next(b"k%d" % n for n in range(99) if partition_of(b"k%d" % n, 4) == p) for p in range(4)]
    for key in keys:
        home = next(node for node in nodes if partition_of(key, 4) in node.slots)
        home.decide("carts", [(key, value, {"ls.seen": b"-1"}) for value in (b"milk", b"\xff")])
    for reader in readers:
        until("it knows the table", lambda reader=reader: reader.get("/v1/tables/carts/rows").status_code == 200)
        with Store(url=reader.url) as store:
            found = [*store.scan("carts"), *store.get_many("carts", keys)]
            assert [[one.value for one in row.siblings] for row in found] == [[b"milk", b"\xff"]] * 8
            assert all(row.siblings[1].version == row.version == 1 for row in found)
        assert [len(row) for row in reader.get("/v1/tables/carts/rows?keys_only=true").json()["rows"]] == [3] * 4


def test_a_scan_of_several_nodes_says_when_what_its_rows_hold_ends(pair):
    nodes, (reader, _) = pair
    hour_ms, now_ms = 3_600_000, time.time_ns() // 1_000_000
    for node in nodes:
        node.create("beside", conditional=True, siblings=True, expiring=True)
    keys = [next(b"k%d" % n for n in range(99) if partition_of(b"k%d" % n, 4) == p) for p in range(4)]
    for key in keys:
        home, ttl = next(node for node in nodes if partition_of(key, 4) in node.slots), hour_ms.to_bytes(8)
        both = [(key, b"stays", {"ls.seen": b"-1"}), (key, b"ends", {"ls.seen": b"-1", "ls.ttl": ttl})]
        home.decide("beside", both if key != keys[3] else both[:1], at_ms=now_ms)
    path = "/v1/tables/beside/rows"
    until("it knows the table", lambda: reader.get(path).status_code == 200)
    ends = {key.decode(): [None, now_ms + hour_ms] for key in keys[:3]}
    for limit in (1, 3, 100):
        page = reader.get(path, params={"ends": "true", "limit": limit}).json()
        assert page["ends"] == [ends.get(row["key"]) for row in page["rows"]], limit
    assert "ends" not in reader.get(path).json()
    page = reader.get("/v1/tables/beside/changes?since=beginning&wait=0").json()
    found = {one["key"]: [each.get("expires") for each in one.get("siblings", [])] for one in page["events"]}
    assert found == {**{key: [None, now_ms + hour_ms] for key in ends}, keys[3].decode(): []}


def test_a_scan_spans_nodes(pair):
    _, readers = pair
    print("seed 7")
    source = random.Random(7)
    for limit in (1, 7, 1_000):
        for reverse in ("false", "true"):
            _scan_pages(source, readers, limit, reverse)


def _scan_pages(source, readers, limit, reverse):
    found, cursor = [], None
    while True:  # every page from whichever reader: a cursor works on all of them
        params = {"limit": limit, "reverse": reverse, "deadline_ms": 20_000, **({"cursor": cursor} if cursor else {})}
        page = source.choice(readers).get("/v1/tables/t/rows", params=params).json()
        found += [(row["key"].encode(), row["value"].encode()) for row in page["rows"]]
        assert set(page["positions"]) == {"0", "1", "2", "3"}
        if (cursor := page["cursor"]) is None:
            break
    assert found == sorted(ROWS.items(), reverse=reverse == "true")


def test_the_longest_keys_are_read_through_our_clients_from_any_node(pair):
    (even, odd), readers = pair
    long = [first + b"\xff" * 65_534 for first in (b"~", b"\xfd", b"\xfe", b"\xff")]
    assert len({partition_of(key, 4) % 2 for key in long}) == 2
    for key in long:
        (odd if partition_of(key, 4) % 2 else even).put("t", key, b"v" + key[:1])
    for reader in readers:
        with Store(url=reader.url) as store:
            assert [store.get("t", key, deadline_ms=20_000).value for key in long] == [b"v" + key[:1] for key in long]
            assert [row.key for row in store.get_many("t", long, deadline_ms=20_000)] == long
            assert [row.key for row in store.scan("t", start=long[0], deadline_ms=20_000)] == long
            assert [
                row.key for row in store.scan("t", start=long[1], end=long[3], limit=1, deadline_ms=20_000)
            ] == long[1:2]
    page = readers[0].get("/v1/tables/t/rows", params={"start": "fg", "limit": 2, "key_encoding": "base64url"}).json()
    answer = readers[1].http.get(
        "/",
        extensions={
            "target": f"/v1/tables/t/rows?start=fg&limit=2&key_encoding=base64url&cursor={page['cursor']}".encode()
        },
    )
    assert [row["key"] for row in answer.json()["rows"]] == [
        {"base64": base64.b64encode(key).decode()} for key in long[2:]
    ]


def test_many_keys_span_nodes(pair):
    _, (reader, _) = pair
    keys = [*sorted(ROWS), b"\xff\xff", b"absent"]
    body = {"keys": [{"base64": base64.b64encode(key).decode()} for key in keys]}
    headers = {"Accept": "application/msgpack", "LS-Deadline": "20000"}
    page = msgpack.unpackb(reader.http.post("/v1/tables/t/rows:get", json=body, headers=headers).content)
    assert [(row["key"], row.get("value")) for row in page["results"]] == [(key, ROWS.get(key)) for key in keys]
    assert set(page["positions"]) == {"0", "1", "2", "3"}


def test_tokens_are_waited_for_on_the_other_node_too(pair):
    (_, odd), (reader, _) = pair
    token = f"{EPOCH}-1-{odd.views[EPOCH, 1].next_offset + 1}"
    late = {"LS-Token": token, "LS-Deadline": "200"}
    problem(reader.get("/v1/tables/t/rows", headers=late), 504, "consistency-timeout")
    problem(
        reader.http.post("/v1/tables/t/rows:get", json={"keys": [key_in(1)]}, headers=late), 504, "consistency-timeout"
    )
    odd.put("t", key_in(1).encode(), b"new")
    patient = {"LS-Token": token, "LS-Deadline": "20000"}
    page = reader.http.post("/v1/tables/t/rows:get", json={"keys": [key_in(1)]}, headers=patient).json()
    assert (page["results"][0]["value"], token in page["token"]) == ("new", True)


def test_a_dead_owner_is_a_typed_error_within_the_deadline(pair):
    (_, odd), (reader, other) = pair
    odd.stop("t", 3)
    patient = {"LS-Deadline": "20000"}
    document = problem(reader.get("/v1/tables/t/rows", headers=patient), 503, "partition-stopped")
    assert (document["partition"], document["owner"]) == (3, odd.url)
    other.kill()
    began = time.monotonic()
    problem(reader.get("/v1/tables/t/rows", headers=patient), 503, "starting")
    page = reader.http.post("/v1/tables/t/rows:get", json={"keys": [key_in(0), key_in(1)]}, headers=patient).json()
    assert page["unprocessed"] == [{"key": key_in(1), "reason": "starting"}]
    assert time.monotonic() - began < 20  # the deadline of each


def test_a_forwarded_question_is_not_forwarded_again(pair):
    _, (reader, _) = pair
    problem(reader.get("/v1/tables/t/rows", headers={"LS-Forwarded": "1"}), 421, "not-owner")
    assert reader.get("/v1/tables/t/rows?partitions=0,2", headers={"LS-Forwarded": "1"}).status_code == 200


def test_nodes_that_hear_of_a_promotion_one_after_the_other_never_mix_two_tables(pair):
    (even, odd), readers = pair
    former = odd.tables["t"]
    odd.create("t", former=(former.epoch,), incarnation=1)  # even has not heard of it
    odd.put_many("t", {key: b"new" for key in ROWS if partition_of(key, 4) in odd.slots})
    readers[1].wait_ready()
    patient = {"LS-Deadline": "20000"}
    for reader in readers:
        problem(reader.get("/v1/tables/t/rows", headers=patient), 503, "starting")
        answer = reader.http.post("/v1/tables/t/rows:get", json={"keys": [key_in(0), key_in(1)]}, headers=patient)
        assert len(answer.json()["results"]) == 1
        assert [row["reason"] for row in answer.json()["unprocessed"]] == ["starting"]
    even.create("t", former=(former.epoch,), incarnation=1)
    even.put_many("t", {key: b"new" for key in ROWS if partition_of(key, 4) in even.slots})
    for reader in readers:
        reader.wait_ready()
        rows = reader.get("/v1/tables/t/rows?limit=1000", headers=patient).json()["rows"]
        assert {row["value"] for row in rows} == {"new"}


TOKEN = f"{EPOCH}-1-9,{EPOCH}-3-9"


SOUND = {"rows": [{"key": b"a", "value": b"v", "version": 1, "partition": 1}], "cursor": None, "token": TOKEN,
         "positions": {"1": 9, "3": 9}}  # fmt: skip


ROW = SOUND["rows"][0]


FORGED = [
    b"", b"\x93" * 500, b"null", msgpack.packb([]), msgpack.packb({}), b"\x91" * 100_000, b"\0" * 60_000_000,
    *(msgpack.packb({**SOUND, **wrong}) for wrong in (
        {"token": f"{epoch_of('other')}-1-9,{EPOCH}-3-9"}, {"token": ""}, {"token": 5}, {"token": f"{EPOCH}-1-8"},
        {"positions": {}}, {"positions": {"1": 9}}, {"positions": {"0": 9, "1": 9, "3": 9}}, {"positions": [1]},
        {"positions": {"1": "9", "3": 9}}, {"positions": {"x": 9, "1": 9, "3": 9}}, {"rows": None}, {"rows": [5]},
        {"rows": [ROW, ROW]}, {"rows": [{**ROW, "key": "a"}]}, {"rows": [{**ROW, "value": "text"}]},
        {"rows": [{**ROW, "value": None}]}, {"rows": [{**ROW, "version": -1}]}, {"rows": [{**ROW, "version": None}]},
        {"rows": [{**ROW, "partition": 0}]}, {"rows": [{**ROW, "partition": [1]}]}, {"cursor": 5},
        {"rows": [{**ROW, "key": b"b"}, ROW]},
    )),
]  # fmt: skip


@pytest.fixture
def forger():
    """A server that answers every question with the bytes it is given."""
    body = [b""]

    class Forger(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(200)
            self.send_header("content-type", "application/msgpack")
            self.send_header("content-length", str(len(body[0])))
            self.end_headers()
            with contextlib.suppress(OSError):  # who has enough hangs up
                self.wfile.write(body[0])

        do_POST = do_GET  # noqa: N815 - http.server looks for that name

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forger)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", body
    server.shutdown()
    server.server_close()


def test_what_another_node_answers_is_checked_and_bounded(pair, forger):
    (even, odd), (reader, _) = pair
    url, body = forger
    even.others = [odd.record()._replace(url=url)]
    even.publish_nodes()
    until("its owner is named", lambda: reader.get(f"/v1/tables/t/rows/{key_in(1)}").headers.get("ls-owner") == url)
    patient = {"LS-Deadline": "20000"}
    for body[0] in FORGED:
        problem(reader.get("/v1/tables/t/rows", headers=patient), 503, "starting")
        page = reader.http.post("/v1/tables/t/rows:get", json={"keys": [key_in(0), key_in(1)]}, headers=patient).json()
        assert page["unprocessed"] == [{"key": key_in(1), "reason": "starting"}]
        assert [row["key"] for row in page["results"]] == [key_in(0)]
    body[0] = msgpack.packb(SOUND)
    rows = reader.get("/v1/tables/t/rows?limit=1000", headers=patient).json()["rows"]
    assert [row["value"] for row in rows if row["key"] == "a"] == ["v"]


def test_any_node_tells_how_the_whole_store_stands(pair):
    (even, odd), readers = pair
    for node in (even, odd):
        node.publish(LogKey(), LogRecord(reachable=True))
    table = odd.tables["t"]
    odd.publish(AdoptionKey("t", table.epoch, 1), AdoptionRecord("s-1", 5, "s-2", "refused", "digests differ"))
    for reader in readers:
        until("the log is there", lambda r=reader: r.get("/v1/status").json()["log"] == {"reachable": True})
        until("it is refused", lambda r=reader: status_row(r, 1)["snapshot"]["state"] == "refused")
        found = until(
            "both answer", lambda r=reader: (page := r.get("/v1/status").json()) and not page["silent"] and page
        )
        assert [(row["partition"], row["state"], row["owner"]) for row in found["partitions"]] == [
            (0, "live", even.url), (1, "live", odd.url), (2, "live", even.url), (3, "live", odd.url),
        ]  # fmt: skip
        assert {node["node"] for node in found["nodes"]} == {"even", "odd"}
        assert [(one["name"], one["quarantined"]) for one in found["tables"]] == [("t", {})]
        assert (found["silent"], found["schedules"]) == ([], [])
        assert health.reasons(found) == ["t/1 refuses snapshot s-2: digests differ"]
        with NodePages(20) as pages:
            until("the command reads it", lambda p=pages, r=reader, f=found: by_command(p, r) == f["partitions"])
    problem(readers[0].get("/v1/status?x=1"), 400, "bad-request")


def test_a_node_that_does_not_answer_is_named_and_what_it_has_is_unserved(pair):
    (_, odd), (reader, other) = pair
    other.close()
    found = reader.get("/v1/status").json()
    (silent,) = found["silent"]
    assert (silent["node"], silent["url"]) == ("odd", odd.url)
    assert "does not answer" in silent["error"]
    assert [row["state"] for row in found["partitions"]] == ["live", "unserved", "live", "unserved"]
    assert found["partitions"][1]["reason"] == f"{odd.url}, which has it, does not answer"


@pytest.mark.parametrize(
    "page",
    [b"", b"[]", b'{"partitions": 5}', b'{"partitions": [5]}', b'{"partitions": [{"table": "t"}]}',
     b'{"partitions": [{"table": "t", "partition": "0", "state": "live"}]}', b'{"snapshots": [{}]}',
     b'{"partitions": [{"table": "t", "partition": 0, "state": "live", "quarantined": {"x": "y"}}]}'],
)  # fmt: skip
def test_a_node_whose_pages_are_none_is_named(pair, forger, page):
    (even, odd), (reader, _) = pair
    url, body = forger
    body[0] = page
    even.others = [odd.record()._replace(url=url)]
    even.publish_nodes()
    refused = f"{url} answers with what is no page of logstore's"

    def asked():  # in its time, however busy this machine is
        page = reader.get("/v1/status").json()
        return page if [one["error"].startswith(refused) for one in page["silent"]] == [True] else None

    found = until("it is asked, and named", asked)
    assert [row["state"] for row in found["partitions"]] == ["live", "unserved", "live", "unserved"]


def by_command(pages, reader):
    return status.gather(pages, reader.url)["partitions"]


def status_row(reader, partition):
    """The partition as `/v1/status` has it; with the snapshot of none where it is not told."""
    row = reader.get("/v1/status").json()["partitions"][partition]
    return {"snapshot": {"state": None}, **row}


def test_a_handed_over_slot_is_forgotten(pair):
    (even, odd), (reader, _) = pair
    even.slots = [slot for slot in even.slots if slot != 2]
    odd.slots = sorted([*odd.slots, 2])
    even.others = [odd.record()]
    even.publish_nodes()
    even.publish(ViewKey("t", EPOCH, 2), None)
    until("it answers 421", lambda: reader.get(f"/v1/tables/t/rows/{key_in(2)}").status_code == 421)
    assert reader.get(f"/v1/tables/t/rows/{key_in(2)}").headers["ls-owner"] == odd.url


def test_a_slot_taken_over_while_its_worker_was_away_is_answered_there(tmp_path):
    with serving(tmp_path) as (node, reader):
        node.create("t")
        node.put_many("t", ROWS)
        reader.wait_ready()
        node.close_feed()
        node.slots = [slot for slot in node.slots if slot != 2]
        other = node.record()._replace(node="other", url="http://elsewhere:1", slots=(2,), live=(2,))
        node.published[NodesKey()] = NodesRecord((node.record(), other))
        del node.published[ViewKey("t", EPOCH, 2)]
        node.open_feed()
        until("it answers 421", lambda: reader.get(f"/v1/tables/t/rows/{key_in(2)}").status_code == 421)
        assert reader.get(f"/v1/tables/t/rows/{key_in(2)}").headers["ls-owner"] == "http://elsewhere:1"
        assert reader.get(f"/v1/tables/t/rows/{key_in(1)}").status_code == 200
