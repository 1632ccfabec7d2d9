"""Requests that mean harm, or that nobody reads the answer of: each is answered or refused once, in bounded memory."""

import re
import socket
import struct
import time

import msgpack
import psutil
import pytest
from support_sockets import other_ends
from support_wait import until

from tests.support_serve import problem, serving

POST = b"POST /v1/tables/t/rows:get HTTP/1.1\r\nhost: x\r\n"
KEYS = b'{"keys":["k"]}'
OFFERS = [
    b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMA\r\n",
    b"Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Key: AAAA\r\n",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("node"), "--max-waiters", "50") as (node, reader):
        node.create("t")
        node.put_many("t", {b"k": b"v", **{b"k%d" % i: b"v%d" % i for i in range(50)}})
        reader.wait_ready()
        yield node, reader


@pytest.fixture
def reader(store):
    return store[1]


def heard(sock: socket.socket, answers: int) -> bytes:
    """What comes until `answers` heads and the body behind the last of them are there."""
    data = b""
    while len(re.findall(rb"HTTP/1\.1 \d\d\d ", data)) < answers or not data.rpartition(b"\r\n\r\n")[2]:
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    return data


def memory_mb(reader) -> float:
    return psutil.Process(reader.process.pid).memory_info().rss / 1e6


# An offer to upgrade is ignored (RFC 9110, section 7.8).


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("pieces", ["one segment", "two segments", "single bytes"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_behind_an_offer_to_upgrade_is_the_requests_own(reader, offer, pieces, framing):
    body = KEYS if framing == "length" else b"e\r\n" + KEYS + b"\r\n0\r\n\r\n"
    how = b"content-length: 14\r\n" if framing == "length" else b"transfer-encoding: chunked\r\n"
    head = POST + offer + how + b"\r\n"
    following = b"GET /v1/tables/t/rows/k HTTP/1.1\r\nhost: x\r\n\r\n"
    with reader.connect() as sock:
        if pieces == "one segment":
            sock.sendall(head + body + following)
        elif pieces == "two segments":
            sock.sendall(head)
            sock.sendall(body + following)
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in head + body:
                sock.sendall(bytes([byte]))
            sock.sendall(following)
        data = heard(sock, 2)
    assert re.findall(rb"HTTP/1\.1 (\d+)", data) == [b"200", b"200"]
    assert b'"found":true' in data
    assert data.endswith(b"v")


def test_a_body_is_never_read_as_the_next_request(reader):
    inner = b"GET /v1/tables HTTP/1.1\r\nhost: x\r\n\r\n"
    with reader.connect() as sock:
        sock.sendall(POST + OFFERS[0] + b"content-length: %d\r\n\r\n" % len(inner) + inner)
        data = heard(sock, 1)
        assert data.startswith(b"HTTP/1.1 400 ")
        sock.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        data = heard(sock, 1)
    assert re.findall(rb"HTTP/1\.1 (\d+)", data) == [b"200"]
    assert b"tables" not in data


def test_an_upgrade_without_a_body_is_a_plain_request(reader):
    with reader.connect() as sock:
        sock.sendall(b"GET /v1/tables/t/rows/k HTTP/1.1\r\nhost: x\r\n" + OFFERS[0] + b"\r\n")
        assert heard(sock, 1).endswith(b"\r\n\r\nv")


def test_connect_is_refused(reader):
    whole = reader.raw(b"CONNECT somewhere:443 HTTP/1.1\r\nhost: somewhere:443\r\n\r\n")
    assert whole.startswith(b"HTTP/1.1 405 ")
    assert b"urn:logstore:method-not-allowed" in whole


@pytest.mark.parametrize("hosts", [b"", b"host: a\r\nhost: a\r\n", b"host: a\r\nx: y\r\nHost: b\r\n"])
def test_a_request_has_one_host(reader, hosts):
    for path in (b"/healthz", b"/v1/tables/t/rows/k", b"/v1/tables/t/rows?limit=1"):
        whole = reader.raw(b"GET %b HTTP/1.1\r\n%b\r\n" % (path, hosts))
        assert whole.startswith(b"HTTP/1.1 400 ")
        assert b"one Host header" in whole
    assert reader.raw(b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


# Requests that follow each other on a connection.


@pytest.mark.parametrize("path", [b"/", b"/v1/tables/t/rows/k", b"/v1/tables/t/rows/k?deadline_ms=9"])
def test_thousands_of_requests_in_one_segment_are_answered_in_order_and_cost_no_memory(reader, path):
    count = 3_000
    request = b"GET %b HTTP/1.1\r\nhost: x\r\nx-request-id: %%d\r\n\r\n" % path
    before = memory_mb(reader)
    with reader.connect() as sock:
        sock.sendall(b"".join(request % i for i in range(count)))
        data = b""
        while data.count(b"x-request-id: ") < count:
            piece = sock.recv(1 << 20)
            assert piece
            data += piece
    assert [int(i) for i in re.findall(rb"x-request-id: (\d+)", data)] == list(range(count))
    assert memory_mb(reader) - before < 30


def test_pipelined_bodies_are_answered_in_order(reader):
    with reader.connect() as sock:
        requests = [
            POST + b"content-length: %d\r\n\r\n" % len(b) + b
            for b in (b'{"keys":["k%d"]}' % (i % 50) for i in range(400))
        ]
        sock.sendall(b"".join(requests))
        data = b""
        while data.count(b'"found":true') < 400:
            piece = sock.recv(1 << 20)
            assert piece
            data += piece
    assert [int(i) for i in re.findall(rb'"key":"k(\d+)"', data)] == [i % 50 for i in range(400)]


def test_who_ends_its_side_after_many_requests_gets_all_answers(reader):
    with reader.connect() as sock:
        sock.sendall(b"GET /v1/tables/t/rows/k HTTP/1.1\r\nhost: x\r\n\r\n" * 500)
        sock.shutdown(socket.SHUT_WR)
        data = b""
        while piece := sock.recv(1 << 20):
            data += piece
    assert data.count(b"HTTP/1.1 200 ") == 500


# Who hangs up waits for nothing.


def waiting(reader, epoch) -> bytes:
    token = b"%b-0-999999" % epoch.encode()
    return b"GET /v1/tables/t/rows?deadline_ms=30000 HTTP/1.1\r\nhost: x\r\nls-token: " + token + b"\r\n\r\n"


def waiters(reader) -> int:
    return int(re.search(r"^logstore_waiters\S* (\d+)", reader.get("/metrics").text, re.MULTILINE)[1])


@pytest.mark.parametrize("end", ["close", "half-close"])
@pytest.mark.slow
def test_a_request_whose_client_is_gone_leaves_its_place(reader, store, end):
    epoch = reader.get("/v1/tables/t").json()["epoch"]
    request = waiting(reader, epoch)
    began = time.monotonic()
    for _ in range(3):  # more of them, together, than may wait at a time
        socks = [reader.connect() for _ in range(30)]
        for sock in socks:
            sock.sendall(request)
        until("30 wait", lambda: waiters(reader) == 30)
        for sock in socks:
            if end == "close":
                sock.close()
            else:
                sock.shutdown(socket.SHUT_WR)
        until("nobody waits", lambda: waiters(reader) == 0)
        for sock in socks:
            sock.close()
    assert time.monotonic() - began < 25  # the deadline of each is 30 s


@pytest.mark.slow
def test_a_client_that_leaves_the_end_of_an_answer_unread_is_cut_off(store):
    node, reader = store
    node.put_many("t", {b"large": b"v" * 20_000})  # much less than what a reader takes for too much to wait
    until("it is there", lambda: reader.get("/v1/tables/t/rows/large").status_code == 200)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 10)
    sock.connect(("127.0.0.1", reader.port))
    port, before = sock.getsockname()[1], -1
    while (now := sum(end.unsent_bytes for end in other_ends(port))) < 500_000 or now - before >= 10_000:
        before = now  # until the kernel takes no more, and the reader has the rest of an answer
        sock.sendall(b"GET /v1/tables/t/rows/large HTTP/1.1\r\nhost: x\r\n\r\n")
        assert reader.get("/healthz").status_code == 200  # behind that
    until("it is cut off", lambda: not any(end.is_open for end in other_ends(port)), 150)
    sock.close()


# Bodies and headers.


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("json", b'{"keys":[' + b"{}," * 4_000_000 + b"{}]}"),
        ("json", b'{"keys":[' + b'"",' * 4_000_000 + b'""]}'),
        ("json", b'{"keys":' + b"[" * 12_000_000),
        ("json", b'{"keys":["' + b'\\"' * 5_000_000 + b"]}"),
        ("msgpack", b"\x81\xa4keys\xdd" + struct.pack(">I", 12_000_000) + b"\x80" * 12_000_000),
        ("msgpack", b"\x81\xa4keys\x91" + b"\x91" * 12_000_000),
        ("msgpack", b"\x81\xa4keys\x91\xdd" + struct.pack(">I", 12_000_000) + b"\x01" * 12_000_000),
        ("msgpack", b"\x81" * 12_000_000),
    ],
    ids=[
        "objects",
        "strings",
        "nested",
        "quotes",
        "msgpack-objects",
        "msgpack-nested",
        "msgpack-array",
        "msgpack-maps",
    ],
)
def test_a_large_body_of_small_things_is_refused_before_it_is_built(reader, kind, body):
    before = memory_mb(reader)
    headers = {"content-type": f"application/{kind}"}
    answer = reader.http.post("/v1/tables/t/rows:get", content=body, headers=headers)
    problem(answer, 400, "bad-request" if len(answer.content) and b"bad-key" not in answer.content else "bad-key")
    assert memory_mb(reader) - before < 120
    assert reader.cpu_seconds() < 60


@pytest.mark.parametrize("comma", [",", "[", "{", "\\", '"'])
def test_keys_may_be_made_of_what_parts_elements(reader, comma):
    keys = [comma * 500 + str(i) for i in range(1_000)]
    answer = reader.http.post("/v1/tables/t/rows:get", json={"keys": keys})
    assert [row["key"] for row in answer.json()["results"]] == keys


def test_the_longest_keys_are_taken_in_either_form(reader):
    keys = [b"\x00" * 65_535, b"\xff" * 65_535]

    packed = reader.http.post(
        "/v1/tables/t/rows:get", content=msgpack.packb({"keys": keys}), headers={"content-type": "application/msgpack"}
    )
    assert [row["found"] for row in packed.json()["results"]] == [False, False]
    answer = reader.http.post("/v1/tables/t/rows:get", json={"keys": ["\x00" * 65_535] * 30})
    assert len(answer.json()["results"]) == 30


def test_an_accept_header_is_bounded(reader):
    accept = ", ".join(f"text/x{i};q=0.1" for i in range(3_000))
    problem(reader.http.get("/v1/tables/t/rows", headers={"accept": accept}), 431, "headers-too-large")


@pytest.mark.parametrize(("query", "word"), [("cursor=%FF%FE", "bad-cursor"), ("token=%FF%FE", "bad-token")])
def test_what_is_not_even_text_is_neither_cursor_nor_token(reader, query, word):
    problem(reader.get(f"/v1/tables/t/rows?{query}"), 400, word)
    if word == "bad-token":
        problem(reader.get(f"/v1/tables/t/rows/k?{query}"), 400, word)
