import random
import re

import httpx
import pytest
from support_wait import until

from tests.support_serve import Node, Reader, epoch_of, problem, serving

EPOCH = epoch_of("t")
CORNERS = [
    b"a", b"a/b", b"\x00", b"\xff\xfe", b"caf\xc3\xa9", b"a+b", b"a b", b"%", b"?", b"#", b"..", b"\r\n", b";=&,",
    b"x" * 495, b"x" * 496, b"x" * 510, b"x" * 511, b"x" * 513, b"\xff" * 65_535,
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("node")) as (node, reader):
        node.create("t")
        node.create("one", 1)
        reader.wait_ready()
        yield node, reader


def encode(key: bytes) -> str:
    return "".join(f"%{byte:02X}" for byte in key)


def path(key: bytes, table: str = "t") -> str:
    return f"/v1/tables/{table}/rows/{encode(key)}"


def test_a_row_says_what_it_is(store):
    node, reader = store
    partition, offset = node.put("t", b"ada", b"lovelace")
    applied = node.views[EPOCH, partition].next_offset
    answer = reader.get("/v1/tables/t/rows/ada")
    assert (answer.status_code, answer.content) == (200, b"lovelace")
    assert answer.headers["etag"] == f'"{EPOCH}-{partition}-{offset}"'
    assert answer.headers["ls-partition"] == str(partition)
    assert answer.headers["ls-version"] == str(offset)
    assert answer.headers["ls-applied"] == str(applied)
    assert answer.headers["ls-source"] == "view"
    assert answer.headers["ls-token"] == f"{EPOCH}-{partition}-{applied}"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-request-id"]


def test_lag_is_the_distance_to_the_end_of_the_log_as_last_heard(store):
    node, reader = store
    partition, _ = node.put("t", b"lagging", b"1")
    node.say_applied(node.tables["t"], partition, behind=7)
    until("the lag is said", lambda: reader.get("/v1/tables/t/rows/lagging").headers["ls-lag"] == "7")
    assert reader.get("/v1/tables/t/rows/lagging?deadline_ms=5").headers["ls-lag"] == "7"


@pytest.mark.parametrize("key", CORNERS, ids=lambda key: f"{key[:8]!r}x{len(key)}")
def test_every_key_survives_the_way(store, key):
    node, reader = store
    value = b"value of " + key[:20]
    node.put("t", key, value)
    whole = reader.raw(f"GET {path(key)} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    assert whole.startswith(b"HTTP/1.1 200 ")
    assert whole.partition(b"\r\n\r\n")[2] == value


def test_base64url_covers_the_key_of_the_path(store):
    node, reader = store
    node.put("t", b"\xff\xfe\x00", b"binary")
    assert reader.get("/v1/tables/t/rows/__4A?key_encoding=base64url").content == b"binary"
    problem(reader.get("/v1/tables/t/rows/a*b?key_encoding=base64url"), 400, "bad-key")
    problem(reader.get("/v1/tables/t/rows/a?key_encoding=hex"), 400, "bad-request")


def test_a_plus_is_a_plus_and_a_bare_slash_is_part_of_the_key(store):
    node, reader = store
    node.put("t", b"a+b", b"plus")
    node.put("t", b"JFK/2013-01-01", b"flights")
    assert reader.raw(b"GET /v1/tables/t/rows/a+b HTTP/1.1\r\nhost: x\r\n\r\n").endswith(b"plus")
    assert reader.get("/v1/tables/t/rows/JFK/2013-01-01").content == b"flights"


def test_keys_that_cannot_be_are_refused(store):
    _, reader = store
    problem(reader.get("/v1/tables/t/rows/"), 400, "bad-key")
    for bad in ("%", "%4", "%zz", "x" * 65_536):
        whole = reader.raw(f"GET /v1/tables/t/rows/{bad} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert b"400 Bad Request" in whole
        assert b"urn:logstore:bad-key" in whole


def test_absent_and_deleted_rows_are_told_apart(store):
    node, reader = store
    absent = reader.get("/v1/tables/t/rows/never-written")
    assert "deleted" not in problem(absent, 404, "not-found")
    assert "ls-version" not in absent.headers
    assert absent.headers["ls-token"]
    node.put("t", b"gone", b"1")
    partition, offset = node.delete("t", b"gone")
    deleted = reader.get("/v1/tables/t/rows/gone")
    assert problem(deleted, 404, "not-found")["deleted"] is True
    assert (deleted.headers["ls-partition"], deleted.headers["ls-version"]) == (str(partition), str(offset))


def test_an_empty_value_is_a_value(store):
    node, reader = store
    node.put("t", b"empty", b"")
    answer = reader.get("/v1/tables/t/rows/empty")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize("size", [1, 65_536, 1_000_000])
def test_large_values_arrive_whole(store, size):
    node, reader = store
    value = random.Random(size).randbytes(size)
    node.put("t", b"large", value)
    assert reader.get("/v1/tables/t/rows/large").content == value


def test_head_is_get_without_the_body(store):
    node, reader = store
    node.put("t", b"head", b"12345")
    got, head = reader.get("/v1/tables/t/rows/head"), reader.http.head("/v1/tables/t/rows/head")
    assert head.content == b""
    ignored = {"date", "x-request-id"}
    assert {k: v for k, v in head.headers.items() if k not in ignored} == {
        k: v for k, v in got.headers.items() if k not in ignored
    }
    absent = reader.http.head("/v1/tables/t/rows/nothing-here")
    assert (absent.status_code, absent.content) == (404, b"")


def test_if_none_match_answers_304(store):
    node, reader = store
    node.put("t", b"etag", b"1")
    etag = reader.get("/v1/tables/t/rows/etag").headers["etag"]
    for condition in (etag, f"W/{etag}", "*", f'"other", {etag}', f'W/"x" , W/{etag}'):
        answer = reader.get("/v1/tables/t/rows/etag", headers={"If-None-Match": condition})
        assert (answer.status_code, answer.content) == (304, b""), condition
        assert answer.headers["etag"] == etag
        assert answer.headers["ls-applied"]
    assert reader.get("/v1/tables/t/rows/etag", headers={"If-None-Match": '"other"'}).status_code == 200
    node.put("t", b"etag", b"2")
    assert reader.get("/v1/tables/t/rows/etag", headers={"If-None-Match": etag}).content == b"2"


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("*/*", 200),
        ("application/octet-stream", 200),
        ("application/*;q=0.1", 200),
        ("text/html, */*;q=0.1", 200),
        ("application/json", 406),
        ("application/octet-stream;q=0", 406),
    ],
)
def test_accept_is_heeded(store, accept, status):
    node, reader = store
    node.put("t", b"accept", b"1")
    answer = reader.get("/v1/tables/t/rows/accept", headers={"Accept": accept})
    assert answer.status_code == status
    if status == 406:
        problem(answer, 406, "not-acceptable")


def test_the_clients_request_id_comes_back_when_it_is_sane(store):
    _, reader = store
    assert reader.get("/healthz", headers={"X-Request-Id": "abc-123"}).headers["x-request-id"] == "abc-123"
    for insane in ("x" * 129, "two words"):
        assert reader.get("/healthz", headers={"X-Request-Id": insane}).headers["x-request-id"] not in (insane, "")


FAST_AND_SLOW = [
    b"GET /v1/tables/t/rows/%b HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /v1/tables/t/rows/%b? HTTP/1.1\r\nhost: x\r\n\r\n",
]


REQUEST_ID = rb'"request_id":"[^"]*"'  # in the document of a problem


def stripped(whole: bytes) -> bytes:
    return re.sub(rb"(date|x-request-id): [^\r]*\r\n", rb"\1\r\n", whole)


def fast_answers(reader: Reader) -> float:
    """How many requests the short cut has answered: the histogram counts both ways, uvicorn's cycles only one."""
    text = reader.get("/metrics").text
    return float(re.search(r"logstore_fast_path_total\{[^}]*\} (\S+)", text)[1])


@pytest.mark.parametrize(
    "key", [b"same", b"a%2Fb", b"with%20space", b"%00", b"%FF", b"empty-value", b"big", b"absent", b"deleted"]
)
def test_both_ways_give_the_same_bytes(store, key):
    node, reader = store
    for row, value in (
        (b"same", b"1"),
        (b"a/b", b"2"),
        (b"with space", b"3"),
        (b"\x00", b"4"),
        (b"\xff", b"5"),
        (b"empty-value", b""),
    ):
        node.put("t", row, value)
    node.put("t", b"big", b"x" * 100_000)
    node.put("t", b"deleted", b"")
    node.delete("t", b"deleted")
    before = fast_answers(reader)
    fast, slow = (stripped(reader.raw(request % key)) for request in FAST_AND_SLOW)
    assert fast == slow
    assert fast_answers(reader) - before == (0 if key in (b"absent", b"deleted") else 1)


@pytest.mark.parametrize(
    ("token", "more", "quick"),
    [
        ("{epoch}-{partition}-{next}", b"", True),
        ("{epoch}-{partition}-0", b"", True),
        ("{epoch}-{partition}-{next}", b"LS-Deadline: 900\r\n", True),
        ("{epoch}-{other}-7", b"", True),  # nothing to wait for, and the answer's token has two pieces
        ("{epoch}-{partition}-{next},{epoch}-{other}-7", b"", True),
        ("{epoch}-{other}-7,{epoch}-{partition}-0", b"LS-Deadline: 900\r\n", True),
        ("{epoch}-{other}-7,{epoch}-{other}-9,{epoch}-{other}-8", b"", True),
        ("{epoch}-{other}-7,{epoch}-{partition}-{ahead}", b"LS-Deadline: 1\r\n", False),
        ("{epoch}-{partition}-0,{unknown}-{partition}-1", b"LS-Deadline: 1\r\n", False),
        ("{epoch}-{partition}-0,{epoch}-99-1", b"", False),
        ("{epoch}-{partition}-0,t1000", b"", False),
        ("{epoch}-{partition}-0, {epoch}-{other}-0", b"", False),
        ("{epoch}-{partition}-0,", b"", False),
        ("{epoch}-{partition}-{ahead}", b"LS-Deadline: 1\r\n", False),
        ("{unknown}-{partition}-1", b"LS-Deadline: 1\r\n", False),
        ("{epoch}-{partition}-01", b"", False),
        ("{epoch}-{partition}-9223372036854775808", b"", False),
        ("{epoch}-{partition}-0", b"LS-Token: {epoch}-{partition}-0\r\n", False),
        ("{epoch}-{partition}-0", b"LS-Consistency: session\r\nLS-Token: {epoch}-{partition}-0\r\n", False),
        ("{epoch}-{partition}-0", b" folded\r\n", False),
    ],
)
def test_a_session_that_waits_for_nothing_gets_the_same_bytes_both_ways(store, token, more, quick):
    node, reader = store
    partition, offset = node.put("t", b"in-session", b"1")
    named = {
        "epoch": node.tables["t"].epoch, "unknown": "e" * 32, "partition": str(partition), "next": str(offset + 1),
        "other": str((partition + 1) % node.tables["t"].partitions), "ahead": str(offset + 2),
    }  # fmt: skip
    head = b"host: x\r\nLS-Consistency: session\r\nLS-Token: %b\r\n%b\r\n" % (
        token.format(**named).encode(), more.decode().format(**named).encode()
    )  # fmt: skip
    before = fast_answers(reader)
    request = b"GET /v1/tables/t/rows/in-session%b HTTP/1.1\r\n%b"
    fast, slow = (stripped(reader.raw(request % (query, head))) for query in (b"", b"?"))
    assert re.sub(REQUEST_ID, b"", fast) == re.sub(REQUEST_ID, b"", slow)
    assert fast.startswith(b"HTTP/1.1 200 " if quick else b"HTTP/1.1 ")
    assert fast_answers(reader) - before == quick


@pytest.mark.parametrize(
    ("head", "quick"),
    [
        (b"host: x\r\n", True),
        (b"Host: x\r\nUser-Agent: curl/8\r\nAccept: */*\r\n", True),
        (b"host: x\r\nconnection: keep-alive\r\n", True),
        (b"", False),
        (b"host: x\r\nHost: x\r\n", False),
        (b"host: x\r\nconnection: close\r\n", False),
        (b"host: x\r\naccept: application/octet-stream\r\n", False),
        (b"host: x\r\nls-deadline: 10\r\n", True),
        (b"LS-Deadline:30000 \r\nhost: x\r\n", True),
        (b"host: x\r\nls-deadline: 30001\r\n", False),
        (b"host: x\r\nls-deadline: 0\r\n", False),
        (b"host: x\r\nls-deadline: 10\r\nLS-Deadline: 10\r\n", False),
        (b"host: x\r\nif-none-match: *\r\n", False),
        (b"host: x\r\nx-request-id: a\r\n", False),
        (b"host: x\r\ntransfer-encoding: chunked\r\n", False),
        (b"host: x\r\nexpect: 100-continue\r\n", False),
        (b"host: x\r\ncontent-length: 0\r\n", False),
    ],
)
def test_only_simple_requests_take_the_short_cut(store, head, quick):
    node, reader = store
    node.put("t", b"simple", b"1")
    before = fast_answers(reader)
    request = (
        b"GET /v1/tables/t/rows/simple HTTP/1.1\r\n" + head + b"\r\n" + (b"0\r\n\r\n" if b"chunked" in head else b"")
    )
    assert reader.raw(request).startswith(b"HTTP/1.1 ")
    assert fast_answers(reader) - before == quick


def test_http_1_0_and_close_end_the_connection(store):
    node, reader = store
    node.put("t", b"closing", b"1")
    for request in (
        b"GET /v1/tables/t/rows/closing HTTP/1.0\r\n\r\n",
        b"GET /v1/tables/t/rows/closing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ):
        with reader.connect() as sock:
            sock.sendall(request)
            whole = b""
            while chunk := sock.recv(4096):
                whole += chunk
        assert whole.endswith(b"\r\n\r\n1")
        assert b"connection: close\r\n" in whole


def test_a_table_of_one_partition_and_unknown_tables(store):
    node, reader = store
    node.put("one", b"k", b"v")
    assert reader.get("/v1/tables/one/rows/k").content == b"v"
    problem(reader.get("/v1/tables/absent/rows/k"), 404, "no-such-table")
    problem(reader.get("/v1/tables/%FF/rows/k"), 404, "no-such-table")


def test_a_dropped_table_is_gone(store):
    node, reader = store
    table = node.create("passing", 1)
    node.put("passing", b"k", b"v")
    until("it answers 200", lambda: reader.get("/v1/tables/passing/rows/k").status_code == 200)
    node.tables["passing"] = type(table)(table.name, table.topic, table.epoch, 1, dropped=True)
    node.publish_tables()
    until("it answers 404", lambda: reader.get("/v1/tables/passing/rows/k").status_code == 404)
    problem(reader.get("/v1/tables/passing/rows/k"), 404, "no-such-table")


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("deadline_ms=0", "bad-request"),
        ("deadline_ms=30001", "bad-request"),
        ("deadline_ms=x", "bad-request"),
        ("deadline_ms=-1", "bad-request"),
        ("deadline_ms=5&deadline_ms=5", "bad-request"),
        ("unknown=1", "bad-request"),
        ("prefix=a", "bad-request"),
        ("consistency=session", "bad-request"),
        ("max_lag_ms=5&consistency=latest", "bad-request"),
        ("max_lag_ms=5&consistency=eventual", "bad-request"),
        ("max_lag_ms=-1&consistency=bounded", "bad-request"),
        ("consistency=bounded", "bad-request"),
        ("consistency=strong", "bad-level"),
        ("max_lag_ms=x", "bad-request"),
        ("token=nonsense", "bad-token"),
        ("token=", "bad-token"),
        ("deadline_ms=%zz", "bad-request"),
        ("token=%FF", "bad-token"),
    ],
)
def test_what_is_not_understood_is_refused(store, query, word):
    _, reader = store
    document = problem(httpx.get(f"{reader.url}/v1/tables/t/rows/k?{query}", trust_env=False, timeout=60), 400, word)
    if word == "bad-request":
        assert (
            query.partition("=")[0].split("%")[0] in document["detail"]
            or "percent" in document["detail"]
            or "session" in document["detail"]
            or "bounded" in document["detail"]
        )


def test_headers_win_over_parameters(store):
    node, reader = store
    node.put("t", b"wins", b"1")
    assert reader.get("/v1/tables/t/rows/wins?deadline_ms=0", headers={"LS-Deadline": "5"}).status_code == 200
    problem(reader.get("/v1/tables/t/rows/wins?deadline_ms=5", headers={"LS-Deadline": "0"}), 400, "bad-request")
    problem(
        reader.get("/v1/tables/t/rows/wins?as_of=nonsense", headers={"LS-As-Of": "2999-01-01T00:00:00Z"}),
        400,
        "bad-level",
    )
    problem(reader.get("/v1/tables/t/rows/wins", headers={"LS-Consistency": "strong"}), 400, "bad-level")


def test_node_of_the_tests_is_the_real_fold(tmp_path):
    node = Node(tmp_path)
    node.create("t", 1)
    node.append("t", 0, [(None, b"no key"), (b"k", b"v")])
    assert node.views[EPOCH, 0].reader().quarantine_counts() == {"null-key": 1}
    node.close()
