"""Writes over HTTP, through a whole store: what each answer says is what the log holds."""

import socket
import uuid
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import msgpack
import orjson
import pytest
from support_wait import until

from logstore.model.partitioner import partition_of
from tests.support_openapi import check
from tests.support_serve import problem, read_answer

ROW, WRITE = "/v1/tables/{table}/rows/{key}", "/v1/tables/{table}/rows:write"
DEADLINE = {"LS-Deadline": "30000"}
NDJSON = {"content-type": "application/x-ndjson", **DEADLINE}


@pytest.fixture(scope="module")
def http(dev):
    """A client, each answer to whose writes is held against the interface's description."""
    with httpx.Client(base_url=dev.facts["http"], timeout=60, trust_env=False) as client:
        document = client.get("/openapi.json").json()

        def described(answer: httpx.Response) -> None:
            method, path = answer.request.method, answer.request.url.path
            page = WRITE if path.endswith("/rows:write") else ROW
            if method.lower() in document["paths"][page] and "/rows" in path and method != "GET":
                answer.read()
                check(document, page, method, answer)

        client.event_hooks["response"].append(described)
        yield client


@pytest.fixture(scope="module")
def plain(dev):
    dev("table", "create", "written", "--partitions", "2", "--max-value-bytes", "1000")
    return "/v1/tables/written/rows"


@pytest.fixture(scope="module")
def decided(dev):
    dev("table", "create", "decided", "--partitions", "2", "--conditional")
    return "/v1/tables/decided/rows"


@pytest.fixture(scope="module")
def expiring(dev):
    dev("table", "create", "ending", "--conditional", "--expiring")
    return "/v1/tables/ending/rows"


@pytest.fixture(scope="module")
def wide(dev, http):
    families = ["--family", "content:versions=3", "--family", "anchor"]
    dev("table", "create", "edited", "--partitions", "2", "--wide", "--multi-row", *families)
    dev("table", "create", "edited-alone", "--partitions", "2", "--wide", *families)
    for name in ("edited", "edited-alone"):
        path = f"/v1/tables/{name}/rows/none"
        until("it is served", lambda path=path: http.get(path).json()["type"] == "urn:logstore:not-found")
    return "/v1/tables/edited/rows"


@pytest.fixture
def key():
    return uuid.uuid4().hex


def read(http, answer, path):
    """A row as it is once a write is seen, by the token of the write's answer."""
    return http.get(path, headers={"LS-Token": answer.headers["ls-token"], **DEADLINE})


def raw(dev, data: bytes) -> bytes:
    parts = urlsplit(dev.facts["http"])
    with socket.create_connection((parts.hostname, parts.port), timeout=90) as sock:
        sock.sendall(data)
        return read_answer(sock)


def test_a_row_is_put_read_and_deleted(http, plain, key):
    put = http.put(f"{plain}/{key}", content=b"\x00\xffv", headers=DEADLINE)
    assert put.status_code == 200, put.text
    told = put.json()
    assert (told["outcome"], told["id"]) == ("acknowledged", None)
    assert told["version"] == told["offset"] == int(put.headers["ls-version"])
    assert told["token"] == put.headers["ls-token"]
    found = read(http, put, f"{plain}/{key}")
    assert (found.content, found.headers["etag"]) == (b"\x00\xffv", put.headers["etag"])
    gone = http.delete(f"{plain}/{key}", headers=DEADLINE)
    assert (gone.status_code, gone.json()["version"]) == (200, None)
    assert "etag" not in gone.headers
    assert "ls-version" not in gone.headers
    assert read(http, gone, f"{plain}/{key}").status_code == 404


def test_a_token_that_was_sent_is_in_the_answer(http, plain, key):
    first = http.put(f"{plain}/{key}", content=b"1", headers=DEADLINE)
    other = next(k for k in map(str, range(99)) if partition_of(k.encode(), 2) != first.json()["partition"])
    second = http.put(
        f"{plain}/{other}", content=b"2", headers={"LS-Token": first.headers["ls-token"], **DEADLINE}
    )  # fmt: skip
    assert set(second.headers["ls-token"].split(",")) > set(first.headers["ls-token"].split(","))


@pytest.mark.parametrize("path", ["a%2Fb%00%FF", "YS9iAP8?key_encoding=base64url"])
def test_keys_are_bytes(http, plain, path):
    put = http.put(f"{plain}/{path}", content=path.encode(), headers=DEADLINE)
    assert read(http, put, f"{plain}/a%2Fb%00%FF").content == path.encode()


def test_an_empty_body_is_a_value(http, plain, key):
    put = http.put(f"{plain}/{key}", headers=DEADLINE)
    found = read(http, put, f"{plain}/{key}")
    assert (found.status_code, found.content) == (200, b"")


def test_only_an_absent_row_is_created(http, decided, key):
    absent = {"If-None-Match": "*", **DEADLINE}
    made = http.put(f"{decided}/{key}", content=b"1", headers=absent)
    assert (made.status_code, made.json()["outcome"]) == (201, "applied")
    again = problem(http.put(f"{decided}/{key}", content=b"2", headers=absent), 412, "condition-failed")
    assert (again["outcome"], again["version"]) == ("rejected", made.json()["version"])
    assert read(http, made, f"{decided}/{key}").content == b"1"


def test_an_etag_of_an_answer_is_a_condition(http, decided, key):
    first = http.put(f"{decided}/{key}", content=b"1", headers=DEADLINE)
    same = {"If-Match": first.headers["etag"], **DEADLINE}
    second = http.put(f"{decided}/{key}", content=b"2", headers=same)
    assert (second.status_code, second.json()["outcome"]) == (200, "applied")
    late = http.delete(f"{decided}/{key}", headers=same)
    assert problem(late, 412, "condition-failed")["version"] == second.json()["version"]
    assert int(late.headers["ls-version"]) == second.json()["version"]
    found = read(http, second, f"{decided}/{key}")
    assert found.headers["etag"] == second.headers["etag"]
    assert http.delete(f"{decided}/{key}", headers={"If-Match": "*", **DEADLINE}).json()["outcome"] == "applied"
    absent = http.delete(f"{decided}/{key}", headers={"If-Match": "*", **DEADLINE})
    assert problem(absent, 412, "condition-failed")["version"] is None


def test_the_same_id_has_effect_once(http, decided, key):
    named = {"LS-Id": uuid.uuid4().hex, **DEADLINE}
    first = http.put(f"{decided}/{key}", content=b"1", headers=named)
    assert (first.json()["outcome"], first.json()["id"]) == ("applied", named["LS-Id"])
    between = http.put(f"{decided}/{key}", content=b"2", headers=DEADLINE)
    again = http.put(f"{decided}/{key}", content=b"1", headers=named)
    assert (again.status_code, again.json()["outcome"]) == (200, "duplicate")
    assert again.json()["version"] == first.json()["version"]
    assert "etag" not in again.headers
    assert read(http, between, f"{decided}/{key}").content == b"2"
    other = problem(http.put(f"{decided}/{key}", content=b"3", headers=named), 409, "invalid-write")
    assert other["reason"] == "id-reused"


def test_a_row_ends(http, expiring, key):
    put = http.put(f"{expiring}/{key}", content=b"v", headers={"LS-Ttl": "1", **DEADLINE})
    assert put.status_code == 200
    assert "etag" not in put.headers  # its end is the log's to say
    until("the row has ended", lambda: read(http, put, f"{expiring}/{key}").status_code == 404)
    stays = http.put(f"{expiring}/{key}", content=b"v", headers={"LS-Ttl": "3600000", **DEADLINE})
    tag = read(http, stays, f"{expiring}/{key}").headers["etag"]
    assert tag.count("-") == 3  # with the end
    again = http.put(f"{expiring}/{key}", content=b"w", headers={"If-Match": tag, **DEADLINE})
    assert again.json()["outcome"] == "applied"


def test_many_races_for_one_row_have_one_winner(http, decided, key):
    def one(number: int) -> httpx.Response:
        return http.put(f"{decided}/{key}", content=b"%d" % number, headers={"If-None-Match": "*", **DEADLINE})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, range(16)))
    won = [number for number, answer in enumerate(answers) if answer.status_code == 201]
    assert len(won) == 1, [answer.text for answer in answers]
    assert {answer.status_code for answer in answers} == {201, 412}, [answer.text for answer in answers]
    assert {answer.json()["version"] for answer in answers} == {answers[won[0]].json()["version"]}
    assert read(http, answers[won[0]], f"{decided}/{key}").content == b"%d" % won[0]


@pytest.mark.parametrize(
    ("where", "headers", "status", "word"),
    [
        ("written", {"If-None-Match": "*"}, 400, "bad-request"),
        ("written", {"If-Match": '"' + "0" * 32 + '-0-0"'}, 504, "consistency-timeout"),  # one to come
        ("written", {"LS-Id": "0" * 32}, 400, "bad-request"),
        ("written", {"LS-Ttl": "5"}, 400, "bad-request"),
        ("decided", {"LS-Ttl": "5"}, 400, "bad-request"),
        ("decided", {"LS-Id": "xyz"}, 400, "bad-request"),
        ("decided", {"If-None-Match": '"x"'}, 400, "bad-request"),
        ("decided", {"If-Match": '"x"'}, 400, "bad-request"),
        ("decided", {"If-Match": "x"}, 400, "bad-request"),
        ("decided", {"If-Match": '"x", "y"'}, 400, "bad-request"),
        ("decided", {"If-Match": 'W/"' + "0" * 32 + '-0-0"'}, 412, "condition-failed"),
        ("decided", {"If-Match": "*", "If-None-Match": "*"}, 400, "bad-request"),
        ("decided", {"If-Unmodified-Since": "Mon, 30 Nov 2026 00:00:00 GMT"}, 400, "bad-request"),
        ("ending", {"LS-Ttl": "0"}, 400, "bad-request"),
        ("ending", {"LS-Ttl": "-1"}, 400, "bad-request"),
        ("written", {"LS-Consistency": "latest"}, 400, "bad-request"),
        ("written", {"LS-Token": "x"}, 400, "bad-token"),
        ("written", {"Content-Encoding": "gzip"}, 415, "unsupported-media-type"),
        ("written", {"Content-Range": "bytes 0-1/2"}, 400, "bad-request"),
        ("written", {"LS-Write-Level": "quorum"}, 400, "bad-level"),
        ("written", {"LS-Write-Level": ""}, 400, "bad-level"),
        ("decided", {"LS-Write-Level": "one", "If-None-Match": "*"}, 400, "bad-level"),
        ("decided", {"LS-Write-Level": "one", "LS-Id": "0" * 32}, 400, "bad-level"),
        ("nowhere", {}, 404, "no-such-table"),
    ],
)  # fmt: skip
def test_what_a_write_cannot_say(http, plain, decided, expiring, key, where, headers, status, word):
    path = f"/v1/tables/{where}/rows/{key}"
    answer = http.put(path, content=b"v", headers={"LS-Deadline": "50", **headers})
    document = problem(answer, status, word)
    if word == "bad-request":
        assert len(document["detail"]) > 20
    assert http.get(path, headers={"LS-Consistency": "latest", **DEADLINE}).status_code == 404


def test_an_etag_of_another_row_is_never_this_ones(http, decided, key):
    first = http.put(f"{decided}/{key}", content=b"1", headers=DEADLINE)
    epoch, partition, offset = first.headers["etag"].strip('"').split("-")
    tag = f'"{epoch}-{1 - int(partition)}-{offset}"'
    problem(http.put(f"{decided}/{key}", content=b"2", headers={"If-Match": tag}), 412, "condition-failed")


@pytest.mark.parametrize(
    ("tail", "status", "word"),
    [(b"?token=x", 400, b"bad-token"), (b"?consistency=latest", 400, b"bad-request"), (b"?x=1", 400, b"bad-request")],
)
def test_parameters_of_a_write(dev, plain, tail, status, word):
    head = b"PUT %b/k%b HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n" % (plain.encode(), tail)
    answer = raw(dev, head)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"urn:logstore:" + word in answer


def test_a_key_is_there_and_a_delete_has_no_body(http, dev, plain):
    problem(http.put(f"{plain}/", content=b"v"), 400, "bad-key")
    problem(http.put(f"{plain}/%zz", content=b"v"), 400, "bad-key")
    problem(http.request("DELETE", f"{plain}/k", content=b"v"), 400, "bad-request")
    chunked = b"DELETE %b/k HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" % plain.encode()
    assert raw(dev, chunked).startswith(b"HTTP/1.1 400 ")


def test_a_value_is_bounded_before_it_reaches_the_log(http, dev, plain, key):
    longest = http.put(f"{plain}/{key}", content=b"x" * 1_000, headers=DEADLINE)
    assert longest.status_code == 200
    assert problem(http.put(f"{plain}/{key}", content=b"x" * 1_001), 413, "too-large")["limit_bytes"] == 1_000
    head = b"PUT %b/k HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % plain.encode()
    assert raw(dev, head + b"3e9\r\n" + b"x" * 1_001 + b"\r\n0\r\n\r\n").startswith(b"HTTP/1.1 413 ")
    waiting = b"PUT %b/k HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\nexpect: 100-continue\r\n\r\n" % plain.encode()
    assert raw(dev, waiting).startswith(b"HTTP/1.1 413 ")  # without a 100 before it


def test_a_body_comes_in_chunks_or_after_a_100(http, dev, plain, key):
    target = f"{plain}/{key}".encode()
    chunked = b"PUT %b HTTP/1.1\r\nhost: x\r\nls-deadline: 30000\r\ntransfer-encoding: chunked\r\n\r\n" % target
    assert raw(dev, chunked + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    parts = urlsplit(dev.facts["http"])
    with socket.create_connection((parts.hostname, parts.port), timeout=90) as sock:
        sock.sendall(b"PUT %b HTTP/1.1\r\nhost: x\r\nls-deadline: 30000\r\ncontent-length: 3\r\n" % target)
        sock.sendall(b"expect: 100-continue\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"xyz")
        assert read_answer(sock).startswith(b"HTTP/1.1 200 ")
    now = http.get(f"{plain}/{key}", headers={"LS-Consistency": "latest", **DEADLINE})
    assert now.content == b"xyz"


def test_a_client_that_is_cut_off_in_its_body_writes_nothing(http, dev, plain, key):
    parts = urlsplit(dev.facts["http"])
    with socket.create_connection((parts.hostname, parts.port), timeout=90) as sock:
        sock.sendall(b"PUT %b/%b HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf" % (plain.encode(), key.encode()))

    def held() -> list[str]:
        lines = http.get("/metrics").text.splitlines()
        return [line for line in lines if line.startswith("logstore_writes_in_flight") and not line.endswith(" 0.0")]

    until("nothing is held for it", lambda: not held())
    assert http.get(f"{plain}/{key}", headers={"LS-Consistency": "latest", **DEADLINE}).status_code == 404


def test_methods_are_told(http, plain):
    answer = http.request("POST", f"{plain}/k")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, HEAD, PUT, DELETE, PATCH"
    answer = http.options(f"{plain}:write")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"


def test_a_write_says_what_is_to_have_it(http, plain, decided, key):
    for n in range(20):
        applied = http.put(f"{plain}/{key}", content=b"%d" % n, headers={"LS-Write-Level": "applied", **DEADLINE})
        assert (applied.status_code, applied.json()["outcome"]) == (200, "applied"), applied.text
        assert applied.json()["version"] == applied.json()["offset"] == int(applied.headers["ls-version"])
        found = http.get(f"{plain}/{key}")  # no token
        assert (found.content, found.headers["etag"]) == (b"%d" % n, applied.headers["etag"])
    assert http.delete(f"{plain}/{key}?write_level=applied", headers=DEADLINE).json()["outcome"] == "applied"
    assert http.get(f"{plain}/{key}").status_code == 404
    offsets = []
    for level in ("one", "all"):
        answer = http.put(f"{plain}/{key}", content=level.encode(), headers={"LS-Write-Level": level, **DEADLINE})
        assert (answer.status_code, answer.json()["outcome"]) == (200, "acknowledged"), answer.text
        offsets.append(answer.json()["offset"])
        assert read(http, answer, f"{plain}/{key}").content == level.encode()
    assert offsets[1] == offsets[0] + 1
    for level in ("all", "applied"):
        headers = {"LS-Write-Level": level, "LS-Id": uuid.uuid4().hex, **DEADLINE}
        assert http.put(f"{decided}/{key}", content=b"1", headers=headers).json()["outcome"] == "applied"


def test_the_level_of_a_batch_is_that_of_all_its_rows(http, dev, plain, decided, key):
    lines = [{"key": f"{key}{n}", "value": "v"} for n in range(200)]
    applied = http.post(f"{plain}:write", content=rows(*lines), headers={"LS-Write-Level": "applied", **NDJSON})
    assert applied.status_code == 200, applied.text
    assert {one["outcome"] for one in applied.json()["results"]} == {"applied"}
    assert len(http.get(plain, params={"prefix": key, "limit": 1_000}).json()["rows"]) == 200
    one = http.post(f"{plain}:write", content=rows(*lines), headers={"LS-Write-Level": "one", **NDJSON})
    assert {one["outcome"] for one in one.json()["results"]} == {"acknowledged"}
    mixed = rows({"key": key, "value": "1"}, {"key": key, "op": "incr", "delta": 1})
    refused = http.post(f"{decided}:write", content=mixed, headers={"LS-Write-Level": "one", **NDJSON})
    assert problem(refused, 400, "bad-level")["row"] == 1
    assert http.get(f"{decided}/{key}", headers={"LS-Consistency": "latest", **DEADLINE}).status_code == 404
    both = http.post(f"{decided}:write", content=mixed, headers={"LS-Write-Level": "applied", **NDJSON})
    assert [one["outcome"] for one in both.json()["results"]] == ["applied", "invalid"]


def test_a_put_that_a_row_may_refuse_is_not_judged_where_less_is_asked(http, dev, key):
    dev("table", "create", "wide-levels", "--partitions", "1", "--wide")
    path = f"/v1/tables/wide-levels/rows/{key}"
    until("the table is served", lambda: http.get(path).json()["type"] == "urn:logstore:not-found")
    for level, outcome in ((None, "applied"), ("applied", "applied"), ("all", "acknowledged"), ("one", "acknowledged")):
        headers = DEADLINE if level is None else {"LS-Write-Level": level, **DEADLINE}
        if level == "one":  # of a table that decides nothing of it then
            assert http.put(path, content=b"v", headers=headers).json()["outcome"] == outcome
            continue
        answer = http.put(path, content=b"v", headers=headers)
        assert (answer.json()["outcome"], answer.json()["id"] is None) == (outcome, level == "all"), level


def rows(*lines: dict) -> bytes:
    return b"\n".join(map(orjson.dumps, lines))


def test_many_rows_are_written_in_their_order(http, plain, key):
    body = rows(
        {"key": key, "value": "1"}, {"key": key, "value": {"base64": "AP8="}}, {"key": f"{key}/", "value": ""},
        {"op": "delete", "key": "none"},
    )  # fmt: skip
    answer = http.post(f"{plain}:write", content=body + b"\n", headers=NDJSON)
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [one["outcome"] for one in results] == ["acknowledged"] * 4
    assert results[1]["offset"] > results[0]["offset"]
    assert answer.json()["token"] == answer.headers["ls-token"]
    assert read(http, answer, f"{plain}/{key}").content == b"\x00\xff"


def test_many_rows_in_msgpack_each_with_its_own_terms(http, decided, key):
    k = key.encode()
    body = [
        {"key": k, "value": b"1", "if": {"absent": True}}, {"key": k, "value": b"2", "if": {"value": b"1"}},
        {"key": k, "value": "3", "if": {"absent": True}}, {"key": k + b"#", "op": "incr", "delta": -2},
        {"key": k + b"#", "op": "append", "value": b"!"}, {"key": k, "op": "delete", "if": {"present": True}},
    ]  # fmt: skip
    headers = {"content-type": "application/msgpack", **DEADLINE}
    answer = http.post(f"{decided}:write", content=msgpack.packb(body), headers=headers)
    assert answer.status_code == 207, answer.text
    results = answer.json()["results"]
    assert [(one["status"], one["outcome"]) for one in results] == [
        (201, "applied"), (200, "applied"), (412, "rejected"), (200, "applied"), (200, "applied"), (200, "applied"),
    ]  # fmt: skip
    assert results[2]["version"] == results[1]["version"]
    assert results[2]["type"] == "urn:logstore:condition-failed"
    assert read(http, answer, f"{decided}/{key}%23").content == (-2).to_bytes(8, signed=True) + b"!"
    assert read(http, answer, f"{decided}/{key}").status_code == 404


GOOD = {"key": "good", "value": "1"}
WRONG_ROWS = [
    {}, {"key": "k"}, {"key": "", "value": "1"}, {"key": 1, "value": "1"}, {"key": "k", "value": 1},
    {"key": "k", "value": None}, {"key": "k", "value": {"base64": "x"}}, {"key": "k", "value": "1", "more": 1},
    {"op": "delete", "key": "k", "value": "1"}, {"op": "merge", "key": "k"}, {"op": "incr", "key": "k"},
    {"key": "k", "value": "1", "id": "0" * 32}, {"key": "k", "value": "1", "ttl_ms": 5},
    {"key": "k", "value": "1", "if": {"absent": True}}, {"key": "k", "value": "1", "if": {}},
    {"key": "k" * 65_536, "value": "1"}, [], "x", None,
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_ROWS, ids=lambda wrong: str(wrong)[:40])
def test_a_row_that_is_wrong_is_named_and_nothing_is_written(http, plain, wrong):
    before = http.get("/v1/tables/written/rows/good", headers={"LS-Consistency": "latest", **DEADLINE}).status_code
    answer = http.post(f"{plain}:write", content=rows(GOOD, wrong), headers=NDJSON)
    assert answer.status_code == 400, answer.text
    assert answer.json()["row"] == 1
    packed = http.post(
        f"{plain}:write", content=msgpack.packb([GOOD, wrong]), headers={"content-type": "application/msgpack"}
    )
    assert packed.status_code == 400, packed.text
    after = http.get("/v1/tables/written/rows/good", headers={"LS-Consistency": "latest", **DEADLINE}).status_code
    assert before == after == 404


@pytest.mark.parametrize(
    ("body", "headers", "status", "word"),
    [
        (b"", NDJSON, 400, "bad-request"),
        (b"{", NDJSON, 400, "bad-request"),
        (b"[" * 100_000, NDJSON, 400, "bad-request"),
        (b'{"key":"\xff","value":"1"}', NDJSON, 400, "bad-request"),
        (rows(*[GOOD] * 1_001), NDJSON, 400, "bad-request"),
        (b"\n" * 5_000, NDJSON, 400, "bad-request"),
        (rows(GOOD), {"content-type": "application/json"}, 415, "unsupported-media-type"),
        (rows(GOOD), {}, 415, "unsupported-media-type"),
        (rows({"key": "k", "value": "x" * 1_001}), NDJSON, 413, "too-large"),
        (b" " * (8 * 1024 * 1024 + 1), NDJSON, 413, "too-large"),
        (rows(GOOD), {**NDJSON, "If-Match": "*"}, 400, "bad-request"),
        (rows(GOOD), {**NDJSON, "LS-Write-Level": "both"}, 400, "bad-level"),
        (b"\xdd\xff\xff\xff\xff", {"content-type": "application/msgpack"}, 400, "bad-request"),
        (b"\x92\xc0", {"content-type": "application/msgpack"}, 400, "bad-request"),
        (msgpack.packb({"key": "k"}), {"content-type": "application/msgpack"}, 400, "bad-request"),
        (b"", {"content-type": "application/msgpack"}, 400, "bad-request"),
    ],
    ids=range(16),
)
def test_bodies_that_are_no_rows(http, plain, body, headers, status, word):
    problem(http.post(f"{plain}:write", content=body, headers=headers), status, word)


def test_a_writer_says_what_it_had_seen_and_newer_values_stay_beside_its_own(http, dev, decided, key):
    dev("table", "create", "carts-over-http", "--partitions", "1", "--siblings")
    path = f"/v1/tables/carts-over-http/rows/{key}"
    until("the table is served", lambda: http.get(path).json()["type"] == "urn:logstore:not-found")
    one, two = (
        http.put(path, content=value, headers={"LS-Seen": "-1", **DEADLINE}) for value in (b"milk", b"eggs")
    )  # fmt: skip
    assert [answer.json()["outcome"] for answer in (one, two)] == ["applied"] * 2
    several = read(http, two, path)
    assert several.status_code == 300
    assert [value["value"] for value in several.json()["siblings"]] == ["milk", "eggs"]
    assert (several.headers["ls-version"], several.headers["etag"]) == (two.headers["ls-version"], two.headers["etag"])
    gone = http.delete(path, headers={"LS-Seen": one.headers["ls-version"], **DEADLINE})
    left = read(http, gone, path)
    assert (left.status_code, left.content) == (200, b"eggs")
    rows = [
        {"key": key, "value": "both", "seen": int(left.headers["ls-version"])},
        {"key": key, "op": "delete", "seen": -1},
    ]
    written = http.post(
        "/v1/tables/carts-over-http/rows:write", content=b"\n".join(map(orjson.dumps, rows)), headers=NDJSON
    )  # fmt: skip
    assert [one["outcome"] for one in written.json()["results"]] == ["applied"] * 2
    assert read(http, written, path).content == b"both"
    ahead = http.put(path, content=b"x", headers={"LS-Seen": "9999999", **DEADLINE})
    assert problem(ahead, 409, "invalid-write")["reason"] == "bad-seen"
    for headers in ({"LS-Seen": "-2"}, {"LS-Seen": "x"}, {"LS-Seen": "1", "If-Match": "*"}):
        problem(http.put(path, content=b"x", headers={**headers, **DEADLINE}), 400, "bad-request")
    for row in ({"seen": -2, "value": "x"}, {"seen": 1, "op": "incr", "delta": 1}):
        line = orjson.dumps({"key": key, **row})
        problem(http.post("/v1/tables/carts-over-http/rows:write", content=line, headers=NDJSON), 400, "bad-request")
    refused = problem(http.put(f"{decided}/{key}", content=b"x", headers={"LS-Seen": "-1"}), 400, "bad-request")
    assert "--siblings" in refused["detail"]


def test_a_counter_and_a_log_are_changed_where_they_stand(http, decided, key):
    def change(body: dict, **headers: str) -> httpx.Response:
        return http.patch(f"{decided}/{key}", json=body, headers={**DEADLINE, **headers})

    made = change({"op": "incr", "delta": 40}, **{"If-None-Match": "*"})
    assert (made.status_code, made.json()["outcome"]) == (200, "applied"), made.text
    refused = problem(change({"op": "incr", "delta": 1}, **{"If-None-Match": "*"}), 412, "condition-failed")
    assert (refused["outcome"], refused["version"]) == ("rejected", made.json()["version"])
    named = {"LS-Id": uuid.uuid4().hex}
    first, again = (change({"op": "incr", "delta": 2}, **named) for _ in range(2))
    assert [first.json()["outcome"], again.json()["outcome"]] == ["applied", "duplicate"]
    assert (again.status_code, again.json()["first"]) == (200, first.json()["offset"])
    other = change({"op": "incr", "delta": 3}, **named)
    assert problem(other, 409, "invalid-write")["reason"] == "id-reused"
    found = read(http, other, f"{decided}/{key}")
    assert int.from_bytes(found.content, signed=True) == 42
    packed = http.patch(
        f"{decided}/{key}", content=msgpack.packb({"op": "append", "value": b"\xff", "if": {"present": True}}),
        headers={"content-type": "application/msgpack", "LS-Write-Level": "applied", **DEADLINE},
    )  # fmt: skip
    assert packed.json()["outcome"] == "applied"
    assert "etag" not in packed.headers
    assert http.get(f"{decided}/{key}").content == (42).to_bytes(8) + b"\xff"
    counted = change({"op": "incr", "delta": 1})
    assert problem(counted, 409, "invalid-write")["reason"] == "wrong-length"
    tag = read(http, counted, f"{decided}/{key}").headers["etag"]
    assert change({"op": "append", "value": {"base64": "AA=="}}, **{"If-Match": tag}).json()["outcome"] == "applied"
    problem(change({"op": "append", "value": "x"}, **{"If-Match": tag}), 412, "condition-failed")


def set_(family: str, qualifier: str, value: str) -> dict:
    return {"op": "set", "family": family, "qualifier": qualifier, "value": value}


def cells_of(answer: httpx.Response) -> list[tuple]:
    return [(cell["family"], cell["qualifier"], cell["value"]) for cell in answer.json()["cells"]]


def test_the_cells_of_a_row_are_edited_together_or_not_at_all(http, wide, key):
    def edit(*edits: dict, headers: dict | None = None, **more) -> httpx.Response:
        return http.patch(f"{wide}/{key}", json={"edits": edits, **more}, headers={**DEADLINE, **(headers or {})})

    made = edit(
        set_("content", "html", "1"), set_("anchor", "a", "x"), headers={"If-None-Match": "*"}
    )  # fmt: skip
    assert (made.status_code, made.json()["outcome"]) == (200, "applied"), made.text
    version = made.json()["version"]
    assert cells_of(read(http, made, f"{wide}/{key}")) == [("anchor", "a", "x"), ("content", "html", "1")]
    count = {"op": "incr", "family": "anchor", "qualifier": "a", "delta": 1}
    invalid = edit(set_("content", "html", "2"), count)
    assert problem(invalid, 409, "invalid-write")["reason"] == "wrong-length"
    of_cell = {"version": version, "family": "content", "qualifier": "html"}
    more = {"op": "append", "family": "content", "qualifier": "html", "value": {"base64": "/w=="}}
    second = edit(more, {**count, "qualifier": "n"}, **{"if": of_cell})
    assert second.json()["outcome"] == "applied", second.text
    stale = edit(set_("anchor", "a", "y"), **{"if": of_cell})
    assert problem(stale, 412, "condition-failed")["version"] == second.json()["version"]
    row = read(http, stale, f"{wide}/{key}")
    assert cells_of(row) == [
        ("anchor", "a", "x"), ("anchor", "n", "\0" * 7 + "\x01"), ("content", "html", {"base64": "Mf8="}),
    ]  # fmt: skip
    tag = {"If-Match": row.headers["etag"]}
    gone = edit(
        {"op": "delete", "family": "anchor", "qualifier": "n"},
        {"op": "delete-family", "family": "content"},
        headers=tag,
    )
    assert cells_of(read(http, gone, f"{wide}/{key}")) == [("anchor", "a", "x")]
    problem(edit({"op": "delete-row"}, headers=tag), 412, "condition-failed")
    last = edit({"op": "delete-row"}, **{"if": {"present": True}})
    assert read(http, last, f"{wide}/{key}").status_code == 404


def test_a_batch_edits_rows_one_by_one_and_several_together(http, wide, key):
    names = [name for name in (f"{key}{n}" for n in range(99)) if partition_of(name.encode(), 2) == 0][:3]
    other = next(name for name in (f"{key}{n}" for n in range(99)) if partition_of(name.encode(), 2) == 1)
    edits = [set_("anchor", "a", "x")]
    body = rows(
        {"key": names[0], "op": "edit", "edits": edits, "if": {"absent": True}},
        {"op": "edit", "rows": [{"key": name, "edits": [set_("anchor", "b", name)]} for name in names[:2]]},
        {"op": "edit", "rows": [{"key": names[2], "edits": edits}, {"key": other, "edits": edits}]},
        {"key": names[0], "op": "edit", "edits": edits, "if": {"absent": True}},
        {"key": names[1], "value": "plain"},
    )  # fmt: skip
    answer = http.post(f"{wide}:write", content=body, headers=NDJSON)
    assert answer.status_code == 207, answer.text
    results = answer.json()["results"]
    assert [(one["status"], one["outcome"]) for one in results] == [
        (200, "applied"), (200, "applied"), (409, "invalid"), (412, "rejected"), (200, "applied"),
    ]  # fmt: skip
    assert results[2]["reason"] == "wrong-partition"
    assert results[3]["version"] == results[1]["version"]
    assert cells_of(read(http, answer, f"{wide}/{names[0]}")) == [("anchor", "a", "x"), ("anchor", "b", names[0])]
    assert cells_of(read(http, answer, f"{wide}/{names[1]}")) == [("", "", "plain"), ("anchor", "b", names[1])]
    assert read(http, answer, f"{wide}/{names[2]}").status_code == 404
    named = {"op": "set", "family": "anchor", "qualifier": b"\xff", "value": b""}
    packed = [{"op": "edit", "key": names[2], "edits": [named]}]
    again = http.post(
        f"{wide}:write", content=msgpack.packb(packed), headers={"content-type": "application/msgpack", **DEADLINE}
    )
    assert again.json()["results"][0]["outcome"] == "applied", again.text
    assert cells_of(read(http, again, f"{wide}/{names[2]}")) == [("anchor", {"base64": "/w=="}, "")]


SET = {"op": "set", "family": "anchor", "qualifier": "a", "value": "x"}
WRONG_CHANGES = [
    ({}, 400), ([], 400), ({"op": "put", "value": "x"}, 400), ({"op": "delete"}, 400), ({"op": "merge"}, 400),
    ({"op": "incr"}, 400), ({"op": "incr", "delta": 1 << 63}, 400), ({"op": "incr", "delta": 1.5}, 400),
    ({"op": "append"}, 400), ({"op": "append", "value": 1}, 400), ({"op": "append", "value": "x", "delta": 1}, 400),
    ({"op": "append", "value": "x", "edits": [SET]}, 400), ({"key": "k", "edits": [SET]}, 400),
    ({"edits": []}, 400), ({"edits": SET}, 400), ({"edits": [{}]}, 400), ({"edits": [{**SET, "op": "put"}]}, 400),
    ({"edits": [{**SET, "delta": 1}]}, 400), ({"edits": [{"op": "set", "family": "anchor", "qualifier": "a"}]}, 400),
    ({"edits": [{**SET, "family": "a,b"}]}, 400), ({"edits": [{**SET, "family": "none"}]}, 400),
    ({"edits": [{**SET, "qualifier": 1}]}, 400), ({"edits": [{**SET, "value": {"base64": "x"}}]}, 400),
    ({"edits": [{**SET, "ttl_ms": 5}]}, 400), ({"edits": [{**SET, "ttl_ms": 0}]}, 400),
    ({"edits": [{"op": "incr", "family": "anchor", "qualifier": "a", "delta": 1, "ttl_ms": 5}]}, 400),
    ({"edits": [{"op": "delete-row", "family": "anchor"}]}, 400), ({"edits": [SET], "if": {}}, 400),
    ({"edits": [SET], "if": {"value": "x"}}, 400), ({"edits": [SET], "if": {"absent": True, "version": 1}}, 400),
    ({"edits": [SET], "if": {"version": 1, "family": "anchor"}}, 400),
    ({"edits": [SET], "if": {"present": True, "family": "anchor", "qualifier": "a"}}, 400),
    ({"edits": [SET], "if": {"version": 1, "family": "anchor", "qualifier": "q" * 1_001}}, 400),
    ({"op": "append", "value": "x", "if": {"version": 1, "family": "anchor", "qualifier": "a"}}, 400),
    ({"edits": [{**SET, "value": "x" * 1_000_001}]}, 413),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status"), WRONG_CHANGES, ids=[str(body)[:50] for body, _ in WRONG_CHANGES])
def test_a_change_that_is_wrong_writes_nothing(http, wide, body, status):
    path, word = "/v1/tables/edited-alone/rows/wrong", "too-large" if status == 413 else "bad-request"
    problem(http.patch(path, json=body, headers=DEADLINE), status, word)
    kind = {"content-type": "application/msgpack", **DEADLINE}
    problem(http.patch(path, content=msgpack.packb(body), headers=kind), status, word)
    if isinstance(body, dict) and "key" not in body and body.get("op") not in ("put", "delete"):
        line = rows({"key": "wrong", "op": "edit", **body})
        problem(http.post("/v1/tables/edited-alone/rows:write", content=line, headers=NDJSON), status, word)
    assert http.get(path, headers={"LS-Consistency": "latest", **DEADLINE}).status_code == 404


def test_what_a_change_cannot_say(http, plain, decided, wide, key):
    edits, incr = {"edits": [SET]}, {"op": "incr", "delta": 1}
    for path, body, headers, status, word in (
        (plain, incr, {}, 400, "bad-request"), (decided, edits, {}, 400, "bad-request"),
        (wide, edits, {"LS-Ttl": "5"}, 400, "bad-request"), (wide, edits, {"LS-Seen": "1"}, 400, "bad-request"),
        (wide, edits, {"LS-Write-Level": "one"}, 400, "bad-level"),
        (wide, edits, {"Content-Type": "text/plain"}, 415, "unsupported-media-type"),
        (wide, {**edits, "if": {"absent": True}}, {"If-None-Match": "*"}, 400, "bad-request"),
        (decided, incr, {"Content-Encoding": "gzip"}, 415, "unsupported-media-type"),
        ("/v1/tables/nowhere/rows", incr, {}, 404, "no-such-table"),
    ):  # fmt: skip
        problem(http.patch(f"{path}/{key}", json=body, headers={**DEADLINE, **headers}), status, word)
    assert problem(http.patch(f"{decided}/{key}", json=edits, headers=DEADLINE), 400, "bad-request")["wide"] is False
    assert (
        problem(http.patch(f"{plain}/{key}", json=incr, headers=DEADLINE), 400, "bad-request")["conditional"] is False
    )
    alone = "/v1/tables/edited-alone/rows:write"
    for several in (
        {"op": "edit", "rows": [{"key": "a", "edits": [SET]}]}, {"op": "edit", "rows": []},
        {"op": "edit", "rows": [{"key": "a", "edits": [SET]}, {"key": "a", "edits": [SET]}]},
        {"op": "edit", "key": "a", "rows": [{"key": "a", "edits": [SET]}]}, {"op": "edit", "key": "a"},
        {"op": "edit", "rows": [{"key": "", "edits": [SET]}]}, {"op": "edit", "edits": [SET]},
        {"op": "edit", "key": "a", "edits": [SET], "rows": [{"key": "a", "edits": [SET]}]}, {"key": "a", "rows": []},
        {"op": "edit", "key": "a", "edits": [SET], "ttl_ms": 5}, {"op": "edit", "key": "a", "edits": [SET], "seen": 1},
    ):  # fmt: skip
        refused = http.post(alone, content=rows(several), headers=NDJSON)
        assert refused.status_code == 400, (several, refused.text)
        assert refused.json()["row"] == 0
    deep = b'{"edits":' + b"[" * 100_000
    answer = http.patch(f"{wide}/{key}", content=deep, headers={"content-type": "application/json", **DEADLINE})
    problem(answer, 400, "bad-request")
