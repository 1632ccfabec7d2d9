"""Outcomes over HTTP: what became of a conditional write, by offset and by id, from a real reader."""

import threading

import msgpack
import orjson
import pytest
from support_wait import until

from logstore.model.partitioner import partition_of
from logstore.serve.wire.problems import WORDS
from tests.support_serve import SLOTS, serving
from tests.support_serve import problem as problem_of_status

ID, OTHER = b"i" * 16, b"o" * 16
ONE = (1).to_bytes(8)
DAY_MS = 86_400_000
ELSEWHERE = tuple(range(1, SLOTS))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("node")) as (node, reader):
        node.create("c", 2, conditional=True)
        node.create("short", 1, conditional=True, dedup_records=2)
        node.create("plain", 1)
        node.put("plain", b"k", b"v")
        reader.wait_ready()
        yield node, reader


def outcome(reader, table, partition, offset, **headers):
    answer = reader.get(f"/v1/tables/{table}/outcomes/{partition}/{offset}", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["ls-partition"]) == partition
    assert int(answer.headers["ls-applied"]) > offset
    body = answer.json()
    assert body.pop("token") == answer.headers["ls-token"]
    return body


def told(word, offset, partition, *, version=None, reason=None, first=None, first_outcome=None):
    return {
        "outcome": word, "version": version, "reason": reason, "first": first, "first_outcome": first_outcome,
        "partition": partition, "offset": offset,
    }  # fmt: skip


def problem(answer, word):
    return problem_of_status(answer, WORDS[word][0], word)


def test_every_outcome_is_told_as_it_was_decided(store):
    node, reader = store
    partition, at = node.decide("c", [
        (b"all", b"1", {"ls.if": b"absent", "ls.id": ID}), (b"all", b"1", {"ls.if": b"absent", "ls.id": ID}),
        (b"all", b"2", {"ls.if": b"absent", "ls.id": ID}), (b"all", b"2", {"ls.if": b"absent"}),
        (b"all", ONE, {"ls.op": b"incr"}), (b"all", None, {"ls.if": b"version:%d" % 0}), (b"all", b"3", {}),
    ])  # fmt: skip
    assert outcome(reader, "c", partition, at) == told("applied", at, partition, version=at)
    assert outcome(reader, "c", partition, at + 1) == told(
        "duplicate", at + 1, partition, version=at, first=at, first_outcome="applied"
    )
    assert outcome(reader, "c", partition, at + 2) == told("invalid", at + 2, partition, reason="id-reused")
    assert outcome(reader, "c", partition, at + 3) == told("rejected", at + 3, partition, version=at)
    assert outcome(reader, "c", partition, at + 4) == told("invalid", at + 4, partition, reason="wrong-length")
    plain = reader.get(f"/v1/tables/c/outcomes/{partition}/{at + 6}")
    assert problem(plain, "not-found")["offset"] == at + 6
    assert int(plain.headers["ls-applied"]) == at + 7


def test_an_outcome_is_waited_for(store):
    node, reader = store
    partition = partition_of(b"late", 2)
    following = node.views[node.tables["c"].epoch, partition].next_offset
    page, found = f"/v1/tables/c/outcomes/{partition}/{following}", []
    late = problem(reader.get(page, headers={"LS-Deadline": "50"}), "consistency-timeout")
    assert (late["asked"], late["applied"]) == (following + 1, following)
    waiting = threading.Thread(target=lambda: found.append(reader.get(page, headers={"LS-Deadline": "30000"})))
    waiting.start()
    assert node.decide("c", [(b"late", ONE, {"ls.op": b"incr"})]) == (partition, following)
    waiting.join(90)
    assert found[0].json()["outcome"] == "applied"


def many(reader, table, body, **headers):
    packed = headers.get("Content-Type") == "application/msgpack"
    content = msgpack.packb(body) if packed else orjson.dumps(body)
    return reader.http.post(f"/v1/tables/{table}/outcomes:get", content=content, headers=headers)


def test_outcomes_of_a_list_are_those_of_the_single_page(store):
    node, reader = store
    partition, at = node.decide("c", [
        (b"many", b"1", {"ls.if": b"absent", "ls.id": b"m" * 16}), (b"many", b"1", {"ls.if": b"absent"}),
        (b"many", b"x", {}),
        (b"many", b"1", {"ls.if": b"absent", "ls.id": b"m" * 16}), (b"many", ONE, {"ls.op": b"incr"}),
    ])  # fmt: skip
    wanted = [at + 4, at, at + 2, at + 3, at, at + 1]
    single = {n: outcome(reader, "c", partition, n) for n in {*wanted} - {at + 2}}
    for one in single.values():
        assert one.pop("partition") == partition
    expected = [single.get(n, {"offset": n, "error": "not-found"}) for n in wanted]
    asked = {"partition": partition, "offsets": wanted}
    answer = many(reader, "c", asked)
    assert answer.status_code == 200, answer.text
    token = answer.headers["ls-token"]
    assert answer.json() == {"partition": partition, "outcomes": expected, "token": token}
    packing = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    assert msgpack.unpackb(many(reader, "c", asked, **packing).content)["outcomes"] == expected
    assert [one["outcome"] for one in expected if "outcome" in one] == [
        "invalid", "applied", "duplicate", "applied", "rejected",
    ]  # fmt: skip


def test_outcomes_of_a_list_are_waited_for(store):
    node, reader = store
    partition = partition_of(b"later", 2)
    following = node.views[node.tables["c"].epoch, partition].next_offset
    asked, found = {"partition": partition, "offsets": [following, following + 1]}, []
    assert problem(many(reader, "c", asked, **{"LS-Deadline": "50"}), "consistency-timeout")["asked"] == following + 2
    node.decide("c", [(b"later", ONE, {"ls.op": b"incr"})])
    waiting = threading.Thread(target=lambda: found.append(many(reader, "c", asked, **{"LS-Deadline": "30000"})))
    waiting.start()
    node.decide("c", [(b"later", ONE, {"ls.op": b"incr"})])
    waiting.join(90)
    assert [one["outcome"] for one in found[0].json()["outcomes"]] == ["applied", "applied"]


WRONG_LISTS = [
    {"partition": 2, "offsets": [0]}, {"partition": -1, "offsets": [0]}, {"partition": True, "offsets": [0]},
    {"partition": 2**64 - 1, "offsets": [0]}, {"partition": 0, "offsets": []}, {"partition": 0, "offsets": [-1]},
    {"partition": 0, "offsets": ["0"]}, {"partition": 0, "offsets": [2**63 - 1]}, {"partition": 0},
    {"partition": 0, "offsets": [0] * 1_001}, {"partition": 0, "offsets": [0], "more": 1}, [0],
]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "body", "word"),
    [
        *(("c", body, "bad-request") for body in WRONG_LISTS),
        ("c", {"partition": 0, "offsets": ["0" * 70_000]}, "too-large"),
        ("none", {"partition": 0, "offsets": [0]}, "no-such-table"),
        ("plain", {"partition": 0, "offsets": [0]}, "bad-request"),
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "application/msgpack"])
def test_a_list_that_is_asked_for_wrongly_is_refused(store, table, body, word, kind):
    problem(many(store[1], table, body, **{"Content-Type": kind}), word)


def test_a_list_in_another_encoding_is_refused(store):
    problem(many(store[1], "c", {}, **{"Content-Type": "text/plain"}), "unsupported-media-type")
    problem(many(store[1], "c", {"partition": 0, "offsets": [0]}, Accept="text/html"), "not-acceptable")
    assert problem(store[1].get("/v1/tables/c/outcomes:get"), "method-not-allowed")


def test_an_outcome_is_found_by_row_and_id(store):
    node, reader = store
    partition, at = node.decide("c", [(b"a/b", b"1", {"ls.id": OTHER}), (b"a/b", b"1", {"ls.id": OTHER})])
    for query in (f"key=a%2Fb&id={OTHER.hex()}", f"key=YS9i&key_encoding=base64url&id={OTHER.hex().upper()}"):
        answer = reader.get(f"/v1/tables/c/outcomes?{query}")
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body == {**told("applied", at, partition, version=at), "token": answer.headers["ls-token"]}
    elsewhere = reader.get(f"/v1/tables/c/outcomes?key=other&id={OTHER.hex()}")
    problem(elsewhere, "not-found")
    assert "ls-applied" in elsewhere.headers
    late = reader.get(f"/v1/tables/c/outcomes?key=a%2Fb&id={ID.hex()}&token={body['token'][:-1]}999&deadline_ms=50")
    problem(late, "consistency-timeout")


def test_what_is_older_than_the_window_is_said_to_be(store):
    node, reader = store
    epoch = node.tables["short"].epoch
    for n in range(4):
        node.decide("short", [(b"k", ONE, {"ls.op": b"incr", "ls.id": bytes([n]) * 16}), (b"k", b"", {})][: 1 + n % 2])
    kept = [0, 1, 3, 4]  # offsets of increments; 2 and 5 are plain
    status = {n: reader.get(f"/v1/tables/short/outcomes/0/{n}").status_code for n in range(6)}
    assert node.views[epoch, 0].next_offset == 6
    assert status == {kept[0]: 410, kept[1]: 410, 2: 410, kept[2]: 200, kept[3]: 200, 5: 404}
    gone = problem(reader.get("/v1/tables/short/outcomes/0/0"), "not-retained")
    listed = many(reader, "short", {"partition": 0, "offsets": [*range(6)]}).json()["outcomes"]
    assert [one.get("error", one.get("outcome")) for one in listed] == [
        "not-retained", "not-retained", "not-retained", "invalid", "invalid", "not-found",
    ]  # fmt: skip
    assert (gone["partition"], gone["offset"]) == (0, 0)
    assert problem(reader.get(f"/v1/tables/short/outcomes?key=k&id={bytes(16).hex()}"), "not-found")
    node.decide("short", [(b"k", b"v", {})], at_ms=2 * DAY_MS)
    assert [reader.get(f"/v1/tables/short/outcomes/0/{n}").status_code for n in range(5)] == [410] * 5


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("plain/outcomes/0/0", "bad-request"), (f"plain/outcomes?key=k&id={ID.hex()}", "bad-request"),
        ("none/outcomes/0/0", "no-such-table"), ("c/outcomes/2/0", "bad-request"), ("c/outcomes/x/0", "bad-request"),
        ("c/outcomes/0", "bad-request"), ("c/outcomes/0/", "bad-request"), ("c/outcomes/0/-1", "bad-request"),
        ("c/outcomes/0/0/0", "bad-request"), (f"c/outcomes/0/{2**63}", "bad-request"), ("c/outcomes", "bad-request"),
        ("c/outcomes?key=k", "bad-request"), (f"c/outcomes?id={ID.hex()}", "bad-request"),
        ("c/outcomes?key=k&id=zz", "bad-request"), (f"c/outcomes?key=k&id={ID.hex()}00", "bad-request"),
        (f"c/outcomes?key=&id={ID.hex()}", "bad-key"), (f"c/outcomes?key=%zz&id={ID.hex()}", "bad-request"),
        ("c/outcomes/0/0?as_of=2020-01-01T00:00:00Z", "bad-request"), ("c/outcomes/0/0?x=1", "bad-request"),
        ("c/outcomes/0/0?token=x", "bad-token"), ("c/outcomes/0/0?deadline_ms=0", "bad-request"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_refused(store, path, word):
    body = problem(store[1].get(f"/v1/tables/{path}"), word)
    assert body["detail"]
    assert ("conditional" in body) == path.startswith("plain"), "a client learns what the table lacks"


def test_an_outcome_of_another_node_is_asked_for_there(store, tmp_path):
    with serving(tmp_path, slots=[0]) as (node, reader):
        node.create("c", 2, conditional=True)
        node.others = [store[0].record()._replace(node="node-b", slots=ELSEWHERE, live=ELSEWHERE)]
        node.publish_nodes()
        reader.wait_ready()
        answer = until(
            "the other node is known",
            lambda: (found := reader.get("/v1/tables/c/outcomes/1/0")).status_code == 421 and found,
        )
        assert problem(answer, "not-owner")["owner"] == answer.headers["ls-owner"]


def test_a_stopped_partition_tells_no_outcomes(tmp_path):
    with serving(tmp_path) as (node, reader):
        node.create("c", 1, conditional=True)
        node.decide("c", [(b"k", ONE, {"ls.op": b"incr"})])
        reader.wait_ready()
        node.stop("c", 0)
        problem(reader.get("/v1/tables/c/outcomes/0/0"), "partition-stopped")
        problem(reader.get(f"/v1/tables/c/outcomes?key=k&id={ID.hex()}"), "partition-stopped")


def test_a_definition_says_whether_a_table_is_conditional(store):
    tables = {one["name"]: one for one in store[1].get("/v1/tables").json()["tables"]}
    assert tables["short"]["dedup_records"] == 2
    assert (tables["c"]["conditional"], tables["c"]["dedup_window_ms"]) == (True, DAY_MS)
    assert tables["plain"]["conditional"] is False
    assert "dedup_records" not in tables["plain"]
