"""The connections of the client, against servers that say anything at all: the right row, or a typed error."""

import asyncio
import datetime
import ipaddress
import ssl
import threading
import time
from itertools import pairwise

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_wire import ROW, WireServer, serving

from logstore import AsyncStore, Store
from logstore.client.transport.answer import (
    LIST_HEAD,
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    ROW_HEAD,
    WIDE_HEAD,
    AnswerParser,
    Malformed,
)
from logstore.client.transport.origin import Origin
from logstore.client.transport.protocol import ProtocolPool
from logstore.client.transport.request import request_bytes
from logstore.client.transport.sockets import SocketPool
from logstore.model.errors import ServerError, ServerUnreachable, UsageError

HEAD, BODY = ROW.split(b"\r\n\r\n")
WITHOUT_LENGTH = HEAD.replace(b"content-length: 5\r\n", b"")
READERS_ROW = (  # byte for byte, what a reader answers: see test_http_wire
    b"HTTP/1.1 200 OK\r\ndate: Sun, 29 Nov 2026 18:43:21 GMT\r\ncontent-type: application/octet-stream\r\n"
    b'content-length: 5\r\netag: "' + b"ab" * 16 + b'-1-7"\r\nls-partition: 1\r\nls-version: 7\r\nls-applied: 8\r\n'
    b"ls-lag: 0\r\nls-source: view\r\nls-token: " + b"ab" * 16 + b"-1-8\r\nx-request-id: 400ab0c81f29-e\r\n\r\nvalue"
)
READERS_WIDE_ROW = READERS_ROW.replace(b"x-request-id", b"vary: accept\r\nx-request-id")  # see test_wide_fast_path
READERS_LIST = (
    b"HTTP/1.1 200 OK\r\ndate: Sun, 29 Nov 2026 18:43:21 GMT\r\ncontent-type: application/vnd.logstore.columns+msgpack"
    b"\r\ncontent-length: 5\r\nvary: accept\r\nls-source: view\r\nls-token: " + b"ab" * 16 + b"-1-8\r\n"
    b"x-request-id: 400ab0c81f29-e\r\n\r\nvalue"
)
KNOWN = [(ROW_HEAD, READERS_ROW), (WIDE_HEAD, READERS_WIDE_ROW), (LIST_HEAD, READERS_LIST)]
CHUNKED = WITHOUT_LENGTH + b"\r\ntransfer-encoding: chunked\r\n\r\n3\r\nval\r\n2;ext=1\r\nue\r\n0\r\nTrailer: x\r\n\r\n"
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def blocking(url, deadline_ms=10_000, times=1, **more):
    """The last of some reads by a Store."""
    with Store(url=url, **more) as store:
        return [store.get("t", "k", deadline_ms=deadline_ms) for _ in range(times)][-1]


def looping(url, deadline_ms=10_000, times=1, **more):
    """The last of some reads by an AsyncStore."""

    async def run():
        async with AsyncStore(url=url, **more) as store:
            return [await store.get("t", "k", deadline_ms=deadline_ms) for _ in range(times)][-1]

    return asyncio.run(run())


both = pytest.mark.parametrize("read", [blocking, looping])


@both
@pytest.mark.parametrize(
    "answer",
    [
        ROW,
        CHUNKED,
        [ROW[i : i + 1] for i in range(len(ROW))],
        [CHUNKED[i : i + 1] for i in range(len(CHUNKED))],
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + ROW,
        ROW.replace(b"ls-version", b"LS-Version").replace(b": 7", b":  7 \t"),
    ],
    ids=["length", "chunks", "bytes", "bytes of chunks", "interim", "other case"],
)
def test_a_whole_answer_is_the_row_and_its_connection_is_kept(read, answer):
    with serving(answer) as server:
        row = read(server.url, times=3)
        assert (row.value, row.version, row.partition, row.source) == (b"value", 7, 1, "view")
        assert (server.requests, server.connections) == (3, 1)


@both
@pytest.mark.parametrize(
    "answer", [ROW.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"), ROW.replace(b"HTTP/1.1", b"HTTP/1.0")]
)
def test_a_connection_that_the_server_does_not_keep_is_not_used_again(read, answer):
    with serving([answer, None]) as server:
        assert read(server.url, times=3).value == b"value"
        assert (server.requests, server.connections) == (3, 3)


MALFORMED = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "another protocol": ROW.replace(b"HTTP/1.1", b"RTSP/1.0"),
    "another version": ROW.replace(b"HTTP/1.1", b"HTTP/2.0"),
    "short status": ROW.replace(b" 200 ", b" 20 "),
    "no such status": ROW.replace(b" 200 ", b" 999 "),
    "bare line feeds": ROW.replace(b"\r\n", b"\n"),
    "header without a colon": ROW.replace(b"ls-version: 7", b"ls-version 7"),
    "blank before the colon": ROW.replace(b"ls-version: 7", b"ls-version : 7"),
    "folded header": ROW.replace(b"ls-version: 7", b"ls-version: 7\r\n 8"),
    "zero byte": ROW.replace(b"ls-version: 7", b"ls-version: 7\0"),
    "endless head": HEAD + b"\r\nx: " + b"y" * (MAX_HEAD_BYTES + 200_000),
    "two lengths": ROW.replace(b"content-length: 5", b"content-length: 5\r\ncontent-length: 4"),
    "negative length": ROW.replace(b"length: 5", b"length: -5"),
    "length in words": ROW.replace(b"length: 5", b"length: five"),
    "length in hex": ROW.replace(b"length: 5", b"length: 0x5"),
    "length beyond all": ROW.replace(b"length: 5", b"length: " + b"9" * 40),
    "length beyond the bound": ROW.replace(b"length: 5", b"length: %d" % (MAX_BODY_BYTES + 1)),
    "length and chunks": ROW.replace(b"content-length: 5", b"content-length: 5\r\ntransfer-encoding: chunked"),
    "a body without an end": ROW.replace(b"content-length: 5\r\n", b""),
    "a shorter length": ROW.replace(b"length: 5", b"length: 4"),
    "two answers": ROW + ROW,
    "chunk size": CHUNKED.replace(b"3\r\nval", b"zz\r\nval"),
    "longer chunk": CHUNKED.replace(b"3\r\nval", b"2\r\nval"),
    "compressed transfer": CHUNKED.replace(b"chunked", b"gzip, chunked"),
    "compressed body": ROW.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n"),
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
}


@both
@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_answer_is_an_error_at_once_and_no_row(read, answer):
    with serving(answer) as server:
        with pytest.raises(ServerUnreachable, match="no HTTP answer"):
            read(server.url)
        assert server.requests == 1


@both
@pytest.mark.parametrize(
    "answer",
    [
        ROW.replace(b"ls-version: 7", b"ls-version: 7\r\nls-version: 8"),
        ROW.replace(b"ls-version: 7", b"ls-version: 7_0"),
        ROW.replace(b"ls-version: 7", b"ls-version: -7"),
        ROW.replace(b"ls-version: 7\r\n", b""),
        ROW.replace(b"ls-partition: 1", b"ls-partition: one"),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\n" + ROW.split(b"\r\n", 1)[1],
    ],
)
def test_an_answer_of_another_kind_of_server_is_an_error_and_no_row(read, answer):
    with serving(answer) as server, pytest.raises(ServerError):
        read(server.url)


LIST = b"HTTP/1.1 200 OK\r\ncontent-type: application/msgpack\r\ncontent-length: %d\r\n\r\n%s"
ITEM = {"found": True, "key": b"k", "value": b"v", "version": 7, "partition": 1}
COLUMNS = {name: [field] for name, field in ITEM.items()}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\xc1", b"\x91" * 5_000, [], None, 7, {}, {"rows": [], "token": "t"},
        {"rows": None, "token": "t", "cursor": None}, {"rows": [None], "token": "t", "cursor": None},
        {"rows": [ITEM], "token": 7, "cursor": None}, {"rows": [ITEM], "token": "t", "cursor": 7},
        *(
            {"rows": (bad := [ITEM, ITEM | wrong]), "results": bad, "unprocessed": [], "token": "t", "cursor": None}
            for wrong in ({"key": "k"}, {"key": 7}, {"value": None}, {"value": "v"}, {"version": "7"},
                          {"version": 7.5}, {"partition": None})
        ),
        *(
            {"columns": wrong, "unprocessed": [], "token": "t", "cursor": None}
            for wrong in (None, 7, [], {}, [COLUMNS], COLUMNS | {"key": ["k"]}, COLUMNS | {"key": b"k"},
                          COLUMNS | {"value": ["v"]}, COLUMNS | {"value": []}, COLUMNS | {"version": ["7"]},
                          COLUMNS | {"version": [7, 7]}, COLUMNS | {"version": [None]},
                          COLUMNS | {"partition": [None]}, COLUMNS | {"partition": [True]},
                          COLUMNS | {"key": [[]]})
        ),
    ],
    ids=repr,
)  # fmt: skip
def test_a_list_that_is_none_is_an_error_and_no_row(body):
    packed = body if isinstance(body, bytes) else msgpack.packb(body)
    with serving(LIST % (len(packed), packed)) as server, Store(url=server.url) as store:
        with pytest.raises(ServerError):
            list(store.scan("t"))
        with pytest.raises(ServerError):
            store.get_many("t", ["k"])


def test_keys_that_were_not_asked_for_are_no_answer():
    for body in (
        {"results": [{**ITEM, "key": b"other", "found": True}], "unprocessed": []},
        {"results": [{"key": b"other", "found": False}], "unprocessed": []},
        {"results": [], "unprocessed": [{"key": b"other", "reason": "not-owner"}]},
        {"columns": {**COLUMNS, "key": [b"other"]}, "unprocessed": []},
        {"columns": {**COLUMNS, "key": [b"other"], "value": [None]}, "unprocessed": []},
    ):
        packed = msgpack.packb({**body, "token": "t"})
        answer = LIST % (len(packed), packed)
        with (
            serving(answer) as server,
            Store(url=server.url) as store,
            pytest.raises(ServerError, match="not those that were asked for"),
        ):
            store.get_many("t", ["k"])


@pytest.mark.parametrize(
    "body",
    [
        {"results": [{**ITEM, "found": True}, {"key": b"none", "found": False, "partition": 0}]},
        {"columns": {"key": [b"k", b"none"], "value": [b"v", None], "version": [7, 9], "partition": [1, 0]}},
    ],
    ids=["rows", "columns"],
)
def test_rows_come_in_columns_and_from_nodes_before_them_one_by_one(body):
    packed = msgpack.packb({**body, "token": "t", "unprocessed": []})
    with serving(LIST % (len(packed), packed)) as server, Store(url=server.url) as store:
        assert store.get_many("t", ["none", "k", "k"]) == [None, *[(b"k", b"v", 7, 1, "t", "")] * 2]


@pytest.mark.parametrize("body", [{"rows": [{"key": b"k", "version": 7, "partition": 1}]},
                                  {"columns": {"key": [b"k"], "version": [7], "partition": [1]}}],
                         ids=["rows", "columns"])  # fmt: skip
def test_rows_without_values_are_rows_where_only_keys_were_asked_for(body):
    packed = msgpack.packb({**body, "token": None, "cursor": None})
    with serving(LIST % (len(packed), packed)) as server, Store(url=server.url) as store:
        assert list(store.scan("t", keys_only=True)) == [(b"k", b"", 7, 1, "", "")]
        with pytest.raises(ServerError, match="one length"):
            list(store.scan("t"))


@both
@pytest.mark.parametrize("cut", [10, len(HEAD) + 2, len(ROW) - 1])
def test_an_answer_that_is_cut_off_is_tried_again_and_never_a_row(read, cut):
    with serving([ROW[:cut], None]) as server, pytest.raises(ServerUnreachable):
        read(server.url, deadline_ms=100)
    with serving([ROW[:cut], None], ROW) as server:
        assert read(server.url).value == b"value"


@pytest.mark.parametrize("answer", [ROW, READERS_ROW, READERS_WIDE_ROW, READERS_LIST, CHUNKED])
def test_no_beginning_of_an_answer_is_one(answer):
    for cut in range(len(answer)):
        assert not AnswerParser().feed(answer[:cut]), answer[:cut]
    parser = AnswerParser()
    assert parser.feed(answer)
    assert (parser.answer(0.0).content, parser.reusable) == (b"value", True)
    with pytest.raises(Malformed, match=r"more bytes|begins with|Expected|Invalid"):
        parser.feed(answer)


@pytest.mark.parametrize(("head", "answer"), KNOWN)
def test_the_short_way_reads_in_an_answer_what_the_parser_reads(head, answer):
    end = head.match(answer).end()
    parser = AnswerParser()
    assert [parser.feed(answer[i : i + 1]) for i in range(len(answer))][-1]
    every = parser.answer(1.0)
    expected = every._replace(headers={name: every.headers[name] for name in head.names})
    for cut in range(end, len(answer) + 1):
        parser = AnswerParser()
        assert parser.feed(answer[:cut]) is (cut == len(answer))
        assert cut == len(answer) or parser.feed(answer[cut:])
        assert (parser.answer(1.0), parser.reusable) == (expected, True)


@pytest.mark.parametrize(("head", "answer"), KNOWN)
@pytest.mark.parametrize("more", [b"transfer-encoding: chunked", b"connection: close", b"content-length: 4", b"x: y"])
def test_any_other_header_takes_an_answer_off_the_short_way(head, answer, more):
    for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        assert not head.match(answer.replace(line, line + b"\r\n" + more, 1)), line


LOOKED_AT = {*ROW_HEAD.names, *WIDE_HEAD.names, *LIST_HEAD.names, b"ls-owner", b"retry-after"}


def outcome(pieces):
    """What a parser makes of the pieces: an answer, nothing yet, or an error."""
    parser, whole = AnswerParser(), False
    try:
        for piece in pieces:
            whole = parser.feed(piece) or whole
    except Malformed:
        return "malformed"
    if not whole:
        return "not yet"
    status, headers, content, _ = parser.answer(0.0)
    return status, {name: headers[name] for name in headers if name in LOOKED_AT}, content, parser.reusable


@given(
    answer=st.sampled_from(
        [ROW, READERS_ROW, READERS_WIDE_ROW, READERS_LIST, CHUNKED, *(a for a in MALFORMED.values() if len(a) < 1_000)]
    ),
    place=st.integers(0, 400), byte=st.none() | st.integers(0, 255), cuts=st.lists(st.integers(1, 400), max_size=6),
)  # fmt: skip
def test_how_an_answer_is_cut_into_pieces_changes_nothing(answer, place, byte, cuts):
    if byte is not None:
        place %= len(answer)
        answer = answer[:place] + bytes([byte]) + answer[place + 1 :]
    edges = [0, *sorted({cut for cut in cuts if cut < len(answer)}), len(answer)]
    pieces = [answer[a:b] for a, b in pairwise(edges)]
    assert outcome(pieces) == outcome([answer])


@both
def test_a_connection_that_was_closed_meanwhile_costs_no_read(read):
    with serving([ROW, None]) as server:  # closed behind every answer, without a word
        assert read(server.url, times=4).value == b"value"
        assert server.requests == 4


@both
def test_a_kept_connection_that_ends_without_an_answer_is_asked_again_once(read):
    with serving(ROW, [None], ROW) as server:
        assert read(server.url, times=2).value == b"value"
        assert (server.requests, server.connections) == (3, 2)


def test_what_a_server_says_unasked_is_no_answer_to_the_next_request():
    late = threading.Event()

    def script(number):
        yield ROW
        if not number:
            late.wait(30)
            yield ROW.replace(b"value", b"wrong")

    server = WireServer(script)
    try:
        with Store(url=server.url) as store:
            assert store.get("t", "k").value == b"value"
            pool = store.reader._pools[server.url]
            late.set()
            (kept,) = [connection for connection, _ in pool.stack._idle]
            kept._wait_for(1, time.monotonic() + 30)  # until it has arrived
            assert store.get("t", "k").value == b"value"
            assert server.connections == 2
    finally:
        late.set()
        server.close()


@pytest.mark.parametrize("kind", ["sockets", "loop"])
def test_a_server_that_answers_before_it_has_everything_is_heard(kind):
    refusal = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno"
    request = REQUEST + b"x" * 30_000_000
    with serving(refusal) as server:
        origin, end = Origin.of(server.url), time.monotonic() + 30
        if kind == "sockets":
            assert SocketPool(origin, None).ask(request, end).status == 413
            return

        async def run():
            pool = ProtocolPool(origin, None)
            answer = await pool.ask(request, time.monotonic() + 30)
            pool.close()
            await asyncio.sleep(0)
            return answer

        assert asyncio.run(run()).status == 413


def certificate(directory):
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    from cryptography import x509  # noqa: PLC0415 - used here only
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415 - only what has a certificate made
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - only what has a certificate made

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a node")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (directory / "node.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "node.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(directory / "node.pem"), str(directory / "node.key")


@both
def test_https_is_spoken_with_those_whose_certificate_counts(read, tmp_path):
    pem, key = certificate(tmp_path)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(pem, key)
    long = b"x" * 300_000
    answer = HEAD.replace(b"length: 5", b"length: 300000") + b"\r\n\r\n" + long
    with serving([answer], tls=server_side) as server:
        mine = ssl.create_default_context(cafile=pem)
        assert read(server.url, times=3, tls=mine).value == long
        assert (server.requests, server.connections) == (3, 1)
        with pytest.raises(ServerUnreachable, match="certificate"):
            read(server.url)
    with serving(ROW, [None], ROW, tls=server_side) as server:
        assert read(server.url, times=2, tls=ssl.create_default_context(cafile=pem)).value == b"value"
        with pytest.raises(ServerUnreachable):
            read(server.url.replace("https", "http"), deadline_ms=100)
    with serving(ROW) as plain, pytest.raises(ServerUnreachable):
        read(plain.url.replace("http", "https"), deadline_ms=100)


@both
def test_a_node_may_have_an_address_of_ipv6_and_lie_below_a_path(read):
    with serving(ROW, host="::1") as server:
        assert read(f"{server.url}/below/").value == b"value"
    origin = Origin.of("http://[::1]:80/below/")
    assert request_bytes(origin, "GET", "/x", {}) == b"GET /below/x HTTP/1.1\r\nHost: [::1]\r\n\r\n"
    assert str(Origin.of("https://EXAMPLE.com")) == "https://example.com"


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8480", "ftp://h", "http://", "http:///x", "http://h:0", "http://h:65536", "http://h:x", "http://[::1",
        "http://h/?q", "http://h/#f", "http://u:p@h", "http://h\r\nx: y", "http://h h", "http://" + "a" * 64 + ".x",
        "http://h/ü", "http://h\\x", 7, b"http://h", "http://\ud800",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_node_is_refused_at_once(url):
    with pytest.raises(UsageError):
        Store(url=url)
    with pytest.raises(UsageError):
        AsyncStore(url=url)


@pytest.mark.parametrize("header", ["a\r\nx: y", "a\nb", "a\0b", "ä", "\x7f"])
def test_a_header_is_one_header(header):
    with pytest.raises(UsageError):
        request_bytes(Origin.of("http://h"), "GET", "/", {"LS-Token": header})


def test_stores_say_where_they_point_and_what_they_take():
    assert repr(Store("kafka:9092", "http://node:8480")) == "Store(bootstrap='kafka:9092', url='http://node:8480')"
    assert repr(AsyncStore("kafka:9092")) == "AsyncStore(bootstrap='kafka:9092', url=None)"
    store = Store(url="http://node:8480")
    store.close()
    assert "closed" in repr(store)
