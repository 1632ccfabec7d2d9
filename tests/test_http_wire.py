import random
import socket
import time
from contextlib import ExitStack

import pytest
from support_wait import until

from logstore.client.read.row import LISTS
from logstore.client.transport.answer import LIST_HEAD, ROW_HEAD
from tests.support_serve import problem, read_answer, serving

ROW = b"GET /v1/tables/t/rows/k HTTP/1.1\r\nhost: x\r\n\r\n"
SEED = 1_121


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    options = ("--request-timeout", "1.5", "--idle-timeout", "4")
    with serving(tmp_path_factory.mktemp("node"), *options) as (node, reader):
        node.create("t")
        node.put_many("t", {b"k": b"v", **{b"k%d" % i: b"v%d" % i for i in range(50)}})
        reader.wait_ready()
        yield reader


def is_problem(whole: bytes, status: int, word: str) -> None:
    head, _, body = whole.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), whole[:300]
    assert b"content-type: application/problem+json" in head
    assert f'"urn:logstore:{word}"'.encode() in body
    assert b"x-request-id: " in head
    assert b"Traceback" not in body


def healthy(reader) -> bool:
    return reader.raw(ROW).endswith(b"\r\n\r\nv")


def closed(sock: socket.socket) -> bool:
    """True when the other side hangs up; whatever it still says is read."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def answers(sock: socket.socket, count: int) -> list[bytes]:
    """The bodies of `count` answers on one connection."""
    data, bodies = b"", []
    while len(bodies) < count:
        while b"\r\n\r\n" not in data:
            chunk = sock.recv(65536)
            assert chunk, (bodies, data)
            data += chunk
        head, _, data = data.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        while len(data) < length:
            chunk = sock.recv(65536)
            assert chunk, (bodies, data)
            data += chunk
        bodies.append(data[:length])
        data = data[length:]
    return bodies


@pytest.mark.parametrize(
    "header", [b"", b"LS-Deadline: 900\r\n", b"LS-Unknown: 1\r\n"], ids=["fast", "deadline", "slow"]
)
def test_the_answer_to_a_plain_read_is_the_one_that_clients_know_by_heart(reader, header):
    request = ROW.replace(b"\r\n\r\n", b"\r\n" + header + b"\r\n")
    answer = reader.raw(request)
    assert ROW_HEAD.match(answer).end() == len(answer) - len(b"v")


@pytest.mark.parametrize(
    "request_line", [b"GET /v1/tables/t/rows?limit=9", b"POST /v1/tables/t/rows:get"], ids=["scan", "multi-get"]
)
def test_the_head_of_a_list_in_columns_is_the_one_that_clients_know_by_heart(reader, request_line):
    body = b'{"keys": ["k"]}' if request_line.startswith(b"POST") else b""
    head = b"%b HTTP/1.1\r\nhost: x\r\naccept: %b\r\ncontent-length: %d\r\n" % (request_line, LISTS.encode(), len(body))
    more = b"content-type: application/json\r\n\r\n" if body else b"\r\n"
    answer = reader.raw(head + more + body)
    found = LIST_HEAD.match(answer)
    assert int(found[LIST_HEAD.length_at]) == len(answer) - found.end() > 0


def test_pipelined_requests_are_answered_in_order(reader):
    requests = [
        b"GET /v1/tables/t/rows/k%d%b HTTP/1.1\r\nhost: x\r\n\r\n" % (i, b"?deadline_ms=9" if i % 3 else b"")
        for i in range(50)
    ]
    with reader.connect() as sock:
        sock.sendall(b"".join(requests))
        assert answers(sock, 50) == [b"v%d" % i for i in range(50)]


def test_requests_in_pieces_of_any_size(reader):
    print("seed", SEED)
    source = random.Random(SEED)
    for _ in range(15):
        chosen = [source.randrange(50) for _ in range(6)]
        data = b"".join(b"GET /v1/tables/t/rows/k%d HTTP/1.1\r\nhost: x\r\n\r\n" % i for i in chosen)
        with reader.connect() as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data:
                size = source.choice([1, 3, 20, 46, 47, 48, 100])
                sock.sendall(data[:size])
                data = data[size:]
            assert answers(sock, 6) == [b"v%d" % i for i in chosen]


def test_a_body_that_looks_like_a_request_is_a_body(reader):
    body = b'{"keys": ["k"]}' + b" " * 100
    head = b"POST /v1/tables/t/rows:get HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (len(body) + len(ROW))
    with reader.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(head)
        time.sleep(0.05)  # so that the body comes as pieces of its own: that is the trap
        sock.sendall(ROW)
        time.sleep(0.05)
        sock.sendall(body)
        is_problem(read_answer(sock), 400, "bad-request")  # one answer: the body was not JSON
        sock.sendall(ROW)
        assert answers(sock, 1) == [b"v"]


def test_a_client_that_has_said_all_still_gets_its_answer(reader):
    for request in (ROW, ROW.replace(b"/k ", b"/k? "), ROW * 3):
        with reader.connect() as sock:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            assert answers(sock, request.count(b"GET")) == [b"v"] * request.count(b"GET")
            assert closed(sock)


def test_chunked_bodies_and_100_continue(reader):
    head = b"POST /v1/tables/t/rows:get HTTP/1.1\r\nhost: x\r\n"
    with reader.connect() as sock:
        sock.sendall(head + b'transfer-encoding: chunked\r\n\r\n8\r\n{"keys":\r\n6\r\n["k"]}\r\n0\r\n\r\n')
        assert b'"value":"v"' in read_answer(sock)
        sock.sendall(head + b"content-length: 14\r\nexpect: 100-continue\r\n\r\n")
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b'{"keys":["k"]}')
        assert b'"value":"v"' in read_answer(sock)


@pytest.mark.parametrize(
    "junk",
    [
        b"\r\n\r\n\r\nnonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 5,
        b"GET / HTTP/1.1\r\nbroken header\r\n\r\n",
        b"GET / HTTP/1.1\r\n: empty\r\n\r\n",
        b"GET / HTTP/1.1\r\na: b\x00c\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /v1/tables/t/rows:get HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"QUATSCH / HTTP/1.1\r\n\r\n",
        b"\x00" * 100,
    ],
)
def test_what_is_not_http_gets_a_problem_and_the_line_is_closed(reader, junk):
    with reader.connect() as sock:
        sock.sendall(junk)
        is_problem(read_answer(sock), 400, "bad-request")
        assert closed(sock)
    assert healthy(reader)


def test_a_broken_request_behind_a_good_one_leaves_its_answer(reader):
    with reader.connect() as sock:
        sock.sendall(ROW + b"nonsense\r\n\r\n")
        value, refusal = answers(sock, 2)
        assert (value, b"bad-request" in refusal) == (b"v", True)
        assert closed(sock)


def test_noise_never_harms_the_reader(reader):
    print("seed", SEED)
    source = random.Random(SEED)
    seeds = [
        ROW,
        b"POST /v1/tables/t/rows:get HTTP/1.1\r\nhost: x\r\ncontent-length: 14\r\n\r\n" + b'{"keys":["k"]}',
        b"GET /v1/tables/t/rows?limit=3 HTTP/1.1\r\nhost: x\r\n\r\n",
    ]
    for _ in range(150):
        data = bytearray(source.choice(seeds))
        for _ in range(source.randrange(1, 6)):
            data[source.randrange(len(data))] = source.randrange(256)
        with reader.connect() as sock:
            sock.sendall(bytes(data))
            sock.shutdown(socket.SHUT_WR)
            whole = read_answer(sock)
            assert not whole or b" 500 " not in whole.split(b"\r\n")[0], (data, whole)
    assert healthy(reader)


@pytest.mark.parametrize(
    ("target", "status", "word"),
    [
        (b"/nothing", 404, "no-such-page"),
        (b"/v1", 404, "no-such-page"),
        (b"/v1/", 404, "no-such-page"),
        (b"/v1/tables/", 404, "no-such-page"),
        (b"/v1/tables/t/nothing", 404, "no-such-page"),
        (b"//v1/tables", 404, "no-such-page"),
        (b"/v1/tables/t/rows/%", 400, "bad-key"),
        (b"/healthz?x=1", 400, "bad-request"),
        (b"/v1/tables/t/rows/k?a=1&a=2", 400, "bad-request"),
        (b"*", 404, "no-such-page"),
        (b"/v1/tables/%zz", 400, "bad-request"),
    ],
)
def test_pages_that_are_not_there(reader, target, status, word):
    is_problem(reader.raw(b"GET " + target + b" HTTP/1.1\r\nhost: x\r\n\r\n"), status, word)


def test_absolute_targets_name_the_same_page(reader):
    assert reader.raw(b"GET http://somewhere/v1/tables/t/rows/k HTTP/1.1\r\nhost: x\r\n\r\n").endswith(b"\r\n\r\nv")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_methods_a_page_does_not_take(reader, method):
    for path in ("/v1/tables/t/rows/k", "/v1/tables", "/healthz"):
        answer = reader.http.request(method, path)
        problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == "GET, HEAD"
    assert reader.get("/v1/tables/t/rows:get").headers["allow"] == "POST"


def test_request_lines_of_256_kib_are_taken_and_longer_ones_refused(reader):
    longest = b"GET /v1/tables/t/rows/k?token=" + b"a" * (256 * 1024 - 41) + b" HTTP/1.1\r\n"
    assert len(longest) == 256 * 1024
    is_problem(reader.raw(longest + b"host: x\r\n\r\n"), 400, "bad-token")
    is_problem(reader.raw(b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\n\r\n"), 414, "uri-too-long")
    is_problem(reader.raw(b"GET /" + b"a" * 5_000_000), 414, "uri-too-long")


def test_headers_over_64_kib_are_refused(reader):
    assert reader.raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\na: " + b"x" * 60_000 + b"\r\n\r\n").startswith(
        b"HTTP/1.1 200 "
    )
    is_problem(reader.raw(b"GET /healthz HTTP/1.1\r\na: " + b"x" * 140_000 + b"\r\n\r\n"), 431, "headers-too-large")
    is_problem(reader.raw(b"GET /healthz HTTP/1.1\r\n" + b"a: b\r\n" * 30_000 + b"\r\n"), 431, "headers-too-large")
    is_problem(reader.raw(b"GET /healthz HTTP/1.1\r\na: " + b"x" * 3_000_000), 431, "headers-too-large")


def test_bodies_over_16_mib_are_refused(reader):
    head = b"POST /v1/tables/t/rows:get HTTP/1.1\r\nhost: x\r\n"
    is_problem(reader.raw(head + b"content-length: 16777217\r\n\r\n"), 413, "too-large")
    megabyte = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    is_problem(reader.raw(head + b"transfer-encoding: chunked\r\n\r\n" + megabyte * 17), 413, "too-large")


def test_slow_requests_are_ended_and_healthy_clients_do_not_notice(reader):
    with ExitStack() as stack:
        slow = [stack.enter_context(reader.connect()) for _ in range(50)]
        began = time.monotonic()
        for i, sock in enumerate(slow):
            sock.sendall(
                ROW[: 5 + i % 30]
                if i % 2
                else b"POST /v1/tables/t/rows:get HTTP/1.1\r\nhost: x\r\ncontent-length: 14\r\n\r\n{"
            )
        while time.monotonic() - began < 1.0:
            assert healthy(reader)
        for sock in slow:
            is_problem(read_answer(sock), 408, "bad-request")
            assert closed(sock)
        assert 1.4 < time.monotonic() - began < 60


def test_idle_connections_are_closed_and_busy_ones_are_not(reader):
    with reader.connect() as idle, reader.connect() as busy:
        began = time.monotonic()
        while time.monotonic() - began < 5.0:
            busy.sendall(ROW)
            assert answers(busy, 1) == [b"v"]
            time.sleep(0.2)
        idle.settimeout(60)
        assert closed(idle)


def test_a_thousand_connections_and_one_too_many(tmp_path):
    with serving(tmp_path, "--max-connections", "1100") as (
        node,
        reader,
    ):  # of its own: connections are idle here for long
        node.create("t")
        node.put("t", b"k", b"v")
        _fill(reader.wait_ready())


def _fill(reader):
    def open_connections() -> float:
        line = next(
            line
            for line in reader.get("/metrics").text.splitlines()
            if line.startswith("logstore_http_open_connections{")
        )
        return float(line.split()[1])

    with ExitStack() as stack:
        sockets = [stack.enter_context(reader.connect()) for _ in range(1_000)]
        for sock in sockets:
            sock.sendall(ROW)
        assert all(answers(sock, 1) == [b"v"] for sock in sockets)
        assert open_connections() >= 1_000
        more = [stack.enter_context(reader.connect()) for _ in range(101)]
        for sock in more[:90]:
            sock.sendall(ROW)
            assert answers(sock, 1) == [b"v"]
        is_problem(read_answer(more[-1]), 503, "overloaded")
    until("connections are closed", lambda: open_connections() < 20)
    assert healthy(reader)


def test_clients_that_hang_up_leave_nothing_behind(reader):
    for request in (ROW[:20], ROW, b"POST /v1/tables/t/rows:get HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"):
        for _ in range(30):
            with reader.connect() as sock:
                sock.sendall(request)
                sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
                )  # a reset, not a farewell
    assert healthy(reader)
