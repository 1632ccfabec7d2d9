"""Wide rows have the same bytes on the fast path and on the ordinary way: generated rows, selections, headers, errors.

A request with an id of its own goes the ordinary way, and its answer differs in the id alone.
"""

import pickle
import random
import re
from dataclasses import replace
from urllib.parse import quote_from_bytes

import msgpack
import pytest
from support_serve import read_answer, serving
from support_wait import until

from logstore import RowEdit, Store, WideCell
from logstore.client.conditional.record import Expected, edit_record
from logstore.client.transport.answer import WIDE_HEAD
from logstore.client.wide.row_edit import edited_row

FAMILIES = {"anchor": {}, "content": {"versions": 3}, "notes": {"versions": 2}}
QUALIFIERS = (b"a", b"html", b"a,b%c:\xff", b"\x00", "žluť".encode())
ORDINARY = b"X-Request-Id: a\r\n"
PACKED = b"Accept: application/msgpack\r\n"
ROWS, REQUESTS = 40, 400
_PER_ANSWER = rb"(date|x-request-id|content-length): [^\r]*\r\n"
_ID = rb'"request_id":"[^"]*"'


def edit(node, table, key, *edits):
    """Fold edits of a row, each a record: (partition, offset behind the last one)."""
    records = [edit_record(edited_row(key, one), Expected(), None) for one in edits]
    partition, first = node.decide(table, [(key, one.value, dict(one.own)) for one in records])
    return partition, first + len(records)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Rows in two partitions, one of which stands on a snapshot; some are gone, one is large, one may end."""
    chance = random.Random(7)
    with serving(tmp_path_factory.mktemp("node")) as (node, reader):
        node.create("pages", 2, conditional=True, wide=True, families=FAMILIES)
        node.create("ending", 1, conditional=True, wide=True, expiring=True, families=FAMILIES)
        node.create("users", 1)
        reader.wait_ready()
        for n in range(ROWS):
            if n == ROWS // 2:
                node.adopt("pages", 0)
            edit(node, "pages", key_of(n), *(generated(chance) for _ in range(chance.randint(1, 4))))
        edit(node, "pages", key_of(3), RowEdit().delete_row())
        edit(node, "pages", key_of(4), RowEdit().delete_family("content").delete_family("notes"))
        edit(node, "pages", b"large", RowEdit().set("content", "html", b"x" * 150_000).set("anchor", "a", "1"))
        edit(node, "pages", b"k", RowEdit().set("content", "html", "1").set("anchor", "a", "2"))
        edit(node, "ending", b"k", RowEdit().set("content", "html", "1"))
        node.put("users", b"k", b"1")
        yield node, reader


def key_of(n):
    return b"row/%d %%" % n


def generated(chance):
    """An edit of some cells."""
    made = RowEdit()
    for _ in range(chance.randint(1, 5)):
        family, qualifier = chance.choice(list(FAMILIES)), chance.choice(QUALIFIERS)
        value = chance.randbytes(chance.choice((0, 1, 30, 300)))
        made = made.delete(family, qualifier) if chance.random() < 0.1 else made.set(family, qualifier, value)
    return made


def generated_query(chance):
    """A selection of cells, or nearly one."""
    if chance.random() < 0.1:
        return b""
    pieces = []
    if chance.random() < 0.8:
        columns = [generated_column(chance) for _ in range(chance.randint(1, 3))]
        pieces.append(b"columns=" + b",".join(columns))
    if chance.random() < 0.7:
        pieces.append(b"versions=" + chance.choice((b"1", b"2", b"3", b"9", b"1", b"0", b"%31", b"-1", b"")))
    if chance.random() < 0.05:
        pieces.append(chance.choice((b"versions=1", b"columns=", b"nothing=1", b"deadline_ms=900", b"x", b"%zz=1")))
    chance.shuffle(pieces)
    return b"?" + b"&".join(pieces)


def generated_column(chance):
    """A column as it stands in a query: escaped once, and once more."""
    family = chance.choice((*FAMILIES, "content", "content", "nobody" if chance.random() < 0.1 else "notes"))
    qualifier = b"" if chance.random() < 0.5 else chance.choice(QUALIFIERS)
    once = f"{family}:{quote_from_bytes(qualifier, safe='')}"
    return quote_from_bytes(once.encode(), safe=chance.choice(("", ":"))).encode()


def generated_headers(chance, tokens):
    """Headers of a request: what is accepted, a session, a deadline."""
    accept = chance.choice((PACKED, PACKED, PACKED, b"", b"Accept: */*\r\n", b"Accept: text/html, */*;q=0.1\r\n"))
    session = b"LS-Consistency: session\r\nLS-Token: %b\r\n" % chance.choice(tokens)
    deadline = b"LS-Deadline: 900\r\n" if chance.random() < 0.1 else b""
    pieces = [accept, session if chance.random() < 0.3 else b"", deadline]
    chance.shuffle(pieces)
    return b"Host: x\r\n" + b"".join(pieces)


def request(key, query=b"", headers=b"Host: x\r\n" + PACKED, table=b"pages"):
    return b"GET /v1/tables/%b/rows/%b%b HTTP/1.1\r\n%b\r\n" % (
        table, quote_from_bytes(key, safe="").encode(), query, headers
    )  # fmt: skip


def ask(sock, wanted):
    sock.sendall(wanted)
    return read_answer(sock)


def both_ways(sock, wanted):
    """The answer as the fast path would give it, and as the ordinary way does."""
    return ask(sock, wanted), ask(sock, wanted.replace(b"\r\n\r\n", b"\r\n" + ORDINARY + b"\r\n"))


def alike(answer):
    """The answer without its date and id."""
    head, line, body = answer.partition(b"\r\n\r\n")
    return re.sub(_PER_ANSWER, rb"\1\r\n", head + line) + re.sub(_ID, b"", body)


def answered_fast(reader):
    text = reader.get("/metrics").text
    return float(re.search(r"logstore_fast_path_total\{[^}]*\} (\S+)", text)[1])


def tokens_of(node):
    epoch = node.tables["pages"].epoch
    ends = [node.views[epoch, partition].next_offset for partition in (0, 1)]
    whole = ",".join(f"{epoch}-{partition}-{end}" for partition, end in enumerate(ends))
    return [whole.encode(), f"{epoch}-0-1".encode(), f"{epoch}-1-{ends[1]}".encode()]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_asked_has_the_same_bytes_both_ways(store, seed):
    node, reader = store
    chance, before, found = random.Random(seed), answered_fast(reader), 0
    tokens = tokens_of(node)
    with reader.connect() as sock:
        for _ in range(REQUESTS):
            key = chance.choice((key_of(chance.randrange(ROWS + 1)), b"k", b"large"))
            wanted = request(key, generated_query(chance), generated_headers(chance, tokens))
            fast, ordinary = both_ways(sock, wanted)
            assert alike(fast) == alike(ordinary), wanted
            simple = key != b"large" and b"text/html" not in wanted and b"deadline_ms" not in wanted
            found += simple and fast.startswith(b"HTTP/1.1 200 ")
    assert answered_fast(reader) - before == found > REQUESTS // 4, "what is simple, and found, was answered there"


SIMPLE = b"?versions=1&columns=content%3A"


@pytest.mark.parametrize(
    ("wanted", "quick"),
    [
        (request(b"k"), True),
        (request(b"k", SIMPLE), True),
        (request(b"k", b"?"), True),
        (request(b"k", SIMPLE, b"host: x\r\n"), True),
        (request(b"k", SIMPLE, b"accept:application/msgpack \r\nhost: x\r\naccept-encoding: gzip\r\n"), True),
        (request(b"k", SIMPLE, b"host: x\r\nACCEPT: Application/MsgPack\r\n"), True),
        (request(b"k", SIMPLE, b"host: x\r\naccept: */*\r\n"), True),
        (request(b"k", SIMPLE, b"host: x\r\naccept: */*\r\n" + PACKED), False),  # JSON: the first of equals
        (request(b"k", SIMPLE, b"host: x\r\naccept: application/json\r\n"), False),
        (request(b"k", SIMPLE, b"host: x\r\naccept: application/msgpack;q=0\r\n"), False),
        (request(b"k", SIMPLE, b"host: x\r\naccept: application/octet-stream\r\n"), False),
        (request(b"k", SIMPLE, b"host: x\r\nif-none-match: *\r\n"), False),
        (request(b"k", SIMPLE, b"host: x\r\nls-consistency: eventual\r\n"), False),
        (request(b"k", SIMPLE, b"host: x\r\nls-as-of: 2001-01-01T00:00:00Z\r\n"), False),
        (request(b"k", b"?columns=content:&token=x"), False),
        (request(b"k", b"?columns=content:&columns=content:"), False),
        (request(b"k", b"?columns=content:&key_encoding=base64url"), False),
        (request(b"k", b"?columns=nobody:"), False),
        (request(b"k", b"?columns=content"), False),
        (request(b"k", b"?columns=content:%25"), False),
        (request(b"k", b"?columns=content:%2"), False),
        (request(b"k", b"?columns=notes:"), False),
        (request(b"k", b"?columns="), False),
        (request(b"k", b"?versions=1000000"), False),
        (request(b"k", b"?columns=" + b",".join([b"content:"] * 1_001)), False),
        (request(b"k", SIMPLE + b"#versions=3"), False),
        (request(b"nobody", SIMPLE), False),
        (request(key_of(3), SIMPLE), False),
        (request(key_of(4), SIMPLE), False),
        (request(b"large", b"?columns=anchor:a"), False),
        (request(b"k", SIMPLE, table=b"ending"), False),  # the answer names an instant
        (request(b"k", SIMPLE, table=b"users"), False),
        (request(b"k", b"", table=b"users"), False),
        (request(b"k", b"", b"host: x\r\n", table=b"users"), True),
        (request(b"k", SIMPLE, table=b"nothing"), False),
    ],
)
def test_only_simple_requests_take_the_short_cut_and_all_are_answered_alike(store, wanted, quick):
    _, reader = store
    before = answered_fast(reader)
    with reader.connect() as one, reader.connect() as other:
        fast, ordinary = ask(one, wanted), ask(other, wanted.replace(b"\r\n\r\n", b"\r\n" + ORDINARY + b"\r\n"))
    now = re.compile(rb"(ls-time: |ls-token: [^\r]*,t)[0-9]+")
    assert now.sub(rb"\1", alike(fast)) == now.sub(rb"\1", alike(ordinary))
    assert answered_fast(reader) - before == quick
    assert fast.startswith(b"HTTP/1.1 200 ") or not quick


@pytest.mark.parametrize("header", [b"", ORDINARY], ids=["fast", "ordinary"])
def test_the_head_is_the_one_that_clients_know_by_heart(store, header):
    answer = store[1].raw(request(b"k", SIMPLE, b"Host: x\r\n" + PACKED + header))
    head = WIDE_HEAD.match(answer)
    assert int(head[WIDE_HEAD.length_at]) == len(answer) - head.end() > 0
    assert [cell["value"] for cell in msgpack.unpackb(answer[head.end() :])["cells"]] == [b"1"]


def test_a_session_is_answered_from_what_it_has_seen_on(store):
    node, reader = store
    partition, following = edit(node, "pages", b"seen", RowEdit().set("notes", "a", "1"))
    epoch, before = node.tables["pages"].epoch, answered_fast(reader)
    with reader.connect() as sock:
        for token, quick in (
            (f"{epoch}-{partition}-{following}", True),
            (f"{epoch}-{1 - partition}-7", True),  # nothing to wait for, and the answer's token has two pieces
            (f"{epoch}-{partition}-{following + 1}", False),
            (f"{epoch}-{partition}-0,t1000", False),
        ):
            session = b"LS-Consistency: session\r\nLS-Token: %b\r\nLS-Deadline: 1\r\n" % token.encode()
            fast, ordinary = both_ways(sock, request(b"seen", b"", b"Host: x\r\n" + session + PACKED))
            assert alike(fast) == alike(ordinary), token
            assert answered_fast(reader) - before == quick, token
            before = answered_fast(reader)


def test_what_a_query_asks_for_is_read_again_when_the_families_have_changed(store):
    node, reader = store
    node.create("altered", 1, conditional=True, wide=True, families=FAMILIES)
    reader.wait_ready()
    edit(node, "altered", b"k", RowEdit().set("notes", "a", "1"))
    known, new = request(b"k", b"?columns=notes:", table=b"altered"), b"?columns=title:,notes:"
    for families, status in ((FAMILIES, b"400"), ({**FAMILIES, "title": {}}, b"200"), (FAMILIES, b"400")):
        node.tables["altered"] = replace(node.tables["altered"], families=families)
        node.publish_tables()
        page = request(b"k", new, table=b"altered")
        begins = b"HTTP/1.1 %b " % status
        until("the families are known", lambda page=page, begins=begins: reader.raw(page).startswith(begins))
        assert reader.raw(known).startswith(b"HTTP/1.1 200 ")


def test_a_row_as_clients_have_it_is_compared_printed_pickled_and_never_changed(store):
    with Store(url=store[1].url) as client:
        row, again = (client.get_row("pages", b"k", ["content:"]) for _ in range(2))
        whole = client.get_row("pages", "k")
    assert row == again == pickle.loads(pickle.dumps(row)) != whole
    assert len({row, again}) == 1
    assert [tuple(cell) for cell in row.cells] == [("content", b"html", row.version, 1, b"1")]
    assert type(row.cells[0]) is WideCell
    assert repr(row).startswith(
        f"WideRow(key=b'k', cells=(WideCell(family='content', qualifier=b'html', version={row.version}"
    )
    with pytest.raises(AttributeError):
        row.version = 1
