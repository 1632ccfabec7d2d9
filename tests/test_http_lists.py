import base64
import random

import httpx
import msgpack
import orjson
import pyarrow as pa
import pytest
from support_view import truncate, used_bytes, zero_pages, zero_root
from support_wait import until

from logstore.model.key import to_base64url
from logstore.model.partitioner import partition_of
from logstore.view.feed.view_records import ViewKey, ViewRecord
from logstore.view.generation import remove
from tests.support_serve import epoch_of, problem, serving

SEED = 20_261_121
EPOCH = epoch_of("t")
MSGPACK = {"Accept": "application/msgpack"}
COLUMNS = "application/vnd.logstore.columns+msgpack"


def made_up(seed: int, count: int = 700) -> dict[bytes, bytes]:
    """Keys of all kinds, with shared prefixes, long ones and neighbours."""
    print("seed", seed)
    source = random.Random(seed)
    stems = [b"", b"a", b"ab", b"\x00", b"\xff", b"\xff\xff", b"user/", b"x" * 495, b"x" * 494, b"y" * 600]
    keys = {source.choice(stems) + source.randbytes(source.randrange(4)) for _ in range(count)} - {b""}
    return {key: source.randbytes(source.randrange(40)) for key in keys}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("node")) as (node, reader):
        for name in ("t", "empty", "pages", "graves", "heavy"):
            node.create(name)
        reader.wait_ready()
        rows = made_up(SEED)
        dead = sorted(rows)[::7]
        node.put_many("t", rows)
        node.put_many("t", dict.fromkeys(dead))
        yield node, reader, {key: value for key, value in rows.items() if key not in dead}


def scan(reader, table="t", **params):
    """All pages of a scan in msgpack: (rows as (key, value or None), number of pages)."""
    found, cursor, pages = [], None, 0
    while True:
        asked = {**params, **({"cursor": cursor} if cursor else {})}
        answer = reader.get(f"/v1/tables/{table}/rows", params=asked, headers=MSGPACK)
        assert answer.status_code == 200, answer.text
        page = msgpack.unpackb(answer.content)
        found += [(row["key"], row.get("value")) for row in page["rows"]]
        pages, cursor = pages + 1, page["cursor"]
        if cursor is None:
            return found, pages


def expected(rows, start=b"", end=None, *, reverse=False):
    return [(key, rows[key]) for key in sorted(rows, reverse=reverse) if key >= start and (end is None or key < end)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [1, 17, 100, 1000])
def test_a_scan_is_the_sorted_dict(store, limit, reverse):
    _, reader, rows = store
    found, pages = scan(reader, limit=limit, reverse=str(reverse).lower())
    assert found == expected(rows, reverse=reverse)
    assert pages == -(-len(rows) // limit)  # the last page has no cursor, even a full one


@pytest.mark.parametrize("reverse", [False, True])
def test_ranges_are_half_open(store, reverse):
    _, reader, rows = store
    source = random.Random(SEED)
    keys = sorted(rows)
    for _ in range(40):
        start, end = source.choice(keys), source.choice([*keys, b"zz", b"\xff" * 3])
        found, _ = scan(
            reader,
            limit=50,
            key_encoding="base64url",
            start=to_base64url(start),
            end=to_base64url(end),
            reverse=str(reverse).lower(),
        )
        assert found == expected(rows, start, end, reverse=reverse)


def test_prefixes(store):
    _, reader, rows = store
    for prefix in (
        b"a",
        b"ab",
        b"\xff",
        b"\xff\xff",
        b"\x00",
        b"user/",
        b"x" * 494,
        b"x" * 495,
        b"y" * 599,
        b"none",
        b"",
    ):
        for reverse in ("false", "true"):
            found, _ = scan(reader, limit=9, key_encoding="base64url", prefix=to_base64url(prefix), reverse=reverse)
            assert found == [(k, rows[k]) for k in sorted(rows, reverse=reverse == "true") if k.startswith(prefix)]


def test_percent_encoded_bounds(store):
    _, reader, rows = store
    answer = httpx.get(
        f"{reader.url}/v1/tables/t/rows?prefix=%FF%FF&limit=1000", headers=MSGPACK, trust_env=False, timeout=60
    )
    assert [row["key"] for row in msgpack.unpackb(answer.content)["rows"]] == [
        k for k in sorted(rows) if k.startswith(b"\xff\xff")
    ]


def test_keys_only_leaves_the_values_out(store):
    _, reader, rows = store
    found, _ = scan(reader, limit=1000, keys_only="true")
    assert found == [(key, None) for key in sorted(rows)]


def test_a_cursor_outlives_its_reader(store):
    _, reader, rows = store
    first = msgpack.unpackb(reader.get("/v1/tables/t/rows?limit=10", headers=MSGPACK).content)
    reader.restart()
    reader.wait_ready()
    second = msgpack.unpackb(
        reader.get("/v1/tables/t/rows", params={"limit": 1000, "cursor": first["cursor"]}, headers=MSGPACK).content
    )
    assert [row["key"] for row in first["rows"] + second["rows"]] == sorted(rows)


def test_a_cursor_belongs_to_its_query(store):
    _, reader, _ = store
    cursor = reader.get("/v1/tables/t/rows?limit=5").json()["cursor"]
    for query in ("prefix=a", "start=a", "reverse=true", "keys_only=true"):
        problem(reader.get(f"/v1/tables/t/rows?{query}&cursor={cursor}"), 400, "bad-cursor")
    problem(reader.get(f"/v1/tables/pages/rows?cursor={cursor}"), 400, "bad-cursor")
    for broken in ("", "x", "AAAA", cursor[:-2], cursor + "AA", "*"):
        problem(reader.get("/v1/tables/t/rows", params={"cursor": broken}), 400, "bad-cursor")


def test_json_shows_bytes_that_are_not_text_as_base64(store):
    node, reader, _ = store
    node.put_many("pages", {b"text": "café".encode(), b"\xff": b"\xfe\xff"})
    page = reader.get("/v1/tables/pages/rows").json()
    assert [(row["key"], row["value"]) for row in page["rows"]] == [
        ("text", "café"),
        ({"base64": "/w=="}, {"base64": "/v8="}),
    ]
    assert page["cursor"] is None
    assert set(page["rows"][0]) == {"key", "value", "version", "partition"}
    positions = {str(p): node.views[epoch_of("pages"), p].next_offset for p in range(4)}
    assert page["positions"] == positions
    assert page["token"] == ",".join(f"{epoch_of('pages')}-{p}-{offset}" for p, offset in positions.items())


def test_arrow_carries_the_same_rows(store):
    _, reader, rows = store
    answer = reader.get("/v1/tables/t/rows?limit=1000", headers={"Accept": "application/vnd.apache.arrow.stream"})
    assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.column_names == ["key", "value", "version", "partition"]
    assert list(zip(table["key"].to_pylist(), table["value"].to_pylist(), strict=True)) == expected(rows)
    assert table["partition"].to_pylist() == [partition_of(key, 4) for key in sorted(rows)]
    assert orjson.loads(table.schema.metadata[b"cursor"]) is None


def in_columns(answer):
    """The rows of an answer in columns, as maps, and what else it has."""
    assert answer.headers["content-type"] == COLUMNS
    body = msgpack.unpackb(answer.content)
    columns = body.pop("columns")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)], body


@pytest.mark.parametrize("query", ["limit=1000", "limit=7&reverse=true", "keys_only=true", "prefix=nothing"])
def test_columns_carry_the_same_page(store, query):
    _, reader, _ = store
    target = f"/v1/tables/t/rows?{query}"
    plain = msgpack.unpackb(reader.get(target, headers=MSGPACK).content)
    rows, rest = in_columns(reader.get(target, headers={"Accept": f"{COLUMNS}, {MSGPACK['Accept']};q=0.9"}))
    assert (rows, rest) == (plain.pop("rows"), plain)


def test_columns_carry_the_same_results(store):
    _, reader, rows = store
    keys = [*sorted(rows)[:20], b"absent", sorted(rows)[3], *(key for key in made_up(SEED) if key not in rows)]
    body, kind = msgpack.packb({"keys": keys}), {"Content-Type": "application/msgpack"}
    answers = [
        reader.http.post("/v1/tables/t/rows:get", content=body, headers={"Accept": accept, **kind})
        for accept in (MSGPACK["Accept"], COLUMNS)
    ]
    plain, (found, rest) = msgpack.unpackb(answers[0].content), in_columns(answers[1])
    assert [row["key"] for row in found] == keys
    fields = ("value", "version", "partition")
    assert [[row[f] for f in fields] for row in found] == [[one.get(f) for f in fields] for one in plain.pop("results")]
    assert rest == plain


def test_an_empty_table_is_an_empty_page(store):
    _, reader, _ = store
    assert reader.get("/v1/tables/empty/rows").json() | {"token": ""} == {
        "rows": [], "cursor": None, "token": "", "positions": {"0": 0, "1": 0, "2": 0, "3": 0},
    }  # fmt: skip


def test_a_page_has_at_most_8_mib_but_at_least_one_row(store):
    node, reader, _ = store
    rows = {b"heavy%02d" % i: bytes([i]) * 900_000 for i in range(20)}
    node.put_many("heavy", rows)
    found, pages = scan(reader, table="heavy", limit=1000)
    assert found == expected(rows)
    assert pages == 3
    answer = reader.http.post(
        "/v1/tables/heavy/rows:get",
        content=msgpack.packb({"keys": sorted(rows)}),
        headers={**MSGPACK, "Content-Type": "application/msgpack"},
    )
    page = msgpack.unpackb(answer.content)
    assert [row["key"] for row in page["results"]] == sorted(rows)[:9]
    assert page["unprocessed"] == [{"key": key, "reason": "page-full"} for key in sorted(rows)[9:]]


def test_a_field_of_graves_does_not_hold_a_page(store):
    node, reader, _ = store
    keys = [b"%06d" % i for i in range(120_000)]
    node.put_many("graves", dict.fromkeys(keys))
    node.put("graves", b"999999", b"alive")
    found, pages = scan(reader, table="graves", limit=10)
    assert found == [(b"999999", b"alive")]
    assert pages == 3  # 50,000 entries a page
    assert scan(reader, table="graves", limit=10, reverse="true")[0] == found


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=",
        "reverse=yes",
        "keys_only=1",
        "prefix=a&start=b",
        "prefix=a&end=b",
        "limit=1&limit=2",
        "partitions=4",
        "partitions=x",
        "partitions=",
        "columns=a",
    ],
)
def test_queries_that_contradict_themselves(store, query):
    _, reader, _ = store
    problem(reader.get(f"/v1/tables/t/rows?{query}"), 400, "bad-request")


def test_a_scan_can_be_limited_to_partitions(store):
    _, reader, rows = store
    found, _ = scan(reader, limit=40, partitions="1,3")
    assert found == [(key, value) for key, value in expected(rows) if partition_of(key, 4) in (1, 3)]


def test_many_keys_come_back_in_the_order_of_the_request(store):
    _, reader, rows = store
    source = random.Random(SEED)
    keys = [*source.choices(sorted(rows), k=300), b"never written", b"\x00\x00never"]
    source.shuffle(keys)
    body = {"keys": [{"base64": base64.b64encode(key).decode()} for key in keys]}
    answer = reader.http.post("/v1/tables/t/rows:get", json=body, headers=MSGPACK)
    page = msgpack.unpackb(answer.content)
    assert [(row["key"], row["found"], row.get("value")) for row in page["results"]] == [
        (k, k in rows, rows.get(k)) for k in keys
    ]
    assert page["unprocessed"] == []
    binary = reader.http.post(
        "/v1/tables/t/rows:get",
        content=msgpack.packb({"keys": keys}),
        headers={**MSGPACK, "Content-Type": "application/msgpack"},
    )
    assert msgpack.unpackb(binary.content) == page


def test_string_keys_may_be_base64url(store):
    node, reader, _ = store
    node.put("pages", b"\xff\xff\xff", b"v")
    page = reader.http.post("/v1/tables/pages/rows:get?key_encoding=base64url", json={"keys": ["____"]}).json()
    assert page["results"][0]["value"] == "v"


@pytest.mark.parametrize(
    ("body", "content_type", "status", "word"),
    [
        (b"", "application/json", 400, "bad-request"),
        (b"{", "application/json", 400, "bad-request"),
        (b"[]", "application/json", 400, "bad-request"),
        (b'{"keys": []}', "application/json", 400, "bad-request"),
        (b'{"keys": "a"}', "application/json", 400, "bad-request"),
        (b'{"keys": ["a"], "x": 1}', "application/json", 400, "bad-request"),
        (b'{"keys": [1]}', "application/json", 400, "bad-key"),
        (b'{"keys": [""]}', "application/json", 400, "bad-key"),
        (b'{"keys": [{"base64": "*"}]}', "application/json", 400, "bad-key"),
        (b'{"keys": [null]}', "application/json", 400, "bad-key"),
        (b"\xc1", "application/msgpack", 400, "bad-request"),
        (b"\x81\xa4keys", "application/msgpack", 400, "bad-request"),
        (b'{"keys": ["a"]}', "text/plain", 415, "unsupported-media-type"),
        (orjson.dumps({"keys": ["a"] * 1001}), "application/json", 400, "bad-request"),
        (b"[" * 100_000, "application/json", 400, "bad-request"),
        (orjson.dumps({"keys": ["a" * 65_536]}), "application/json", 400, "bad-key"),
        (b"\x91" * 100_000, "application/msgpack", 400, "bad-request"),
    ],
)
def test_bodies_that_cannot_be(store, body, content_type, status, word):
    _, reader, _ = store
    problem(
        reader.http.post("/v1/tables/t/rows:get", content=body, headers={"Content-Type": content_type}), status, word
    )


def test_what_is_neither_json_nor_msgpack_is_not_acceptable(store):
    _, reader, _ = store
    problem(reader.get("/v1/tables/t/rows", headers={"Accept": "text/csv"}), 406, "not-acceptable")
    problem(
        reader.http.post("/v1/tables/t/rows:get", json={"keys": ["a"]}, headers={"Accept": "text/csv"}),
        406,
        "not-acceptable",
    )


def test_a_stopped_partition_stops_scans_and_leaves_keys_out(tmp_path):
    with serving(tmp_path) as (node, reader):
        node.create("t")
        rows = {b"k%d" % i: b"v" for i in range(40)}
        node.put_many("t", rows)
        reader.wait_ready()
        assert reader.get("/v1/tables/t/rows").status_code == 200
        node.stop("t", 2)
        lost = [key for key in rows if partition_of(key, 4) == 2]
        token = f"{EPOCH}-2-1"
        for options in ({}, {"LS-Token": token}, {"LS-Consistency": "eventual"}):
            for path in (f"/v1/tables/t/rows/{lost[0].decode()}", "/v1/tables/t/rows"):
                document = problem(reader.get(path, headers=options), 503, "partition-stopped")
                assert (document["partition"], document["offset"]) == (2, 5)
                assert "table repair" in document["detail"]
        page = reader.http.post("/v1/tables/t/rows:get", json={"keys": [key.decode() for key in rows]}).json()
        assert page["unprocessed"] == [{"key": key.decode(), "reason": "partition-stopped"} for key in lost]
        assert [row["key"] for row in page["results"]] == [key.decode() for key in rows if key not in lost]
        assert reader.get("/v1/tables/t/rows?partitions=0,1,3").status_code == 200
        stopped = reader.get("/v1/partitions").json()["partitions"][2]
        assert (stopped["state"], "table repair" in stopped["reason"]) == ("stopped", True)
        assert 'logstore_partition_state{partition="2",state="stopped",table="t"} 1.0' in reader.get("/metrics").text
        assert reader.get("/readyz").status_code == 200  # the others go on


def test_a_partition_that_the_worker_calls_stopped_has_stopped(tmp_path):
    with serving(tmp_path) as (node, reader):
        table = node.create("t", 1)
        node.put("t", b"k", b"v")
        reader.wait_ready()
        node.say_view(table, 0, "stopped", "the view is damaged; remove it")
        until("it answers 503", lambda: reader.get("/v1/tables/t/rows/k").status_code == 503)
        assert "damaged" in problem(reader.get("/v1/tables/t/rows/k"), 503, "partition-stopped")["detail"]
        node.publish(ViewKey("t", table.epoch, 0), ViewRecord(None, 0, "stopped", "no view at all"))
        until("it is said that there is no view", lambda: "no view at all" in reader.get("/v1/tables/t/rows/k").text)
        assert reader.http.post("/v1/tables/t/rows:get", json={"keys": ["k"]}).json()["unprocessed"] == [
            {"key": "k", "reason": "partition-stopped"}
        ]
        node.say_view(table, 0, "live")
        until("it answers 200", lambda: reader.get("/v1/tables/t/rows/k").status_code == 200)


def test_a_partition_whose_view_is_damaged_leaves_the_others_alone(tmp_path):
    with serving(tmp_path) as (node, reader):
        node.create("t")
        rows = {b"k%03d" % i: b"v" * 100 for i in range(400)}
        node.put_many("t", rows)
        reader.wait_ready()
        lost, sound = ([key.decode() for key in rows if (partition_of(key, 4) == 2) == bad] for bad in (True, False))
        assert reader.get(f"/v1/tables/t/rows/{lost[0]}").status_code == 200
        zero_pages(node.views[EPOCH, 2].path)
        for path in (
            f"/v1/tables/t/rows/{lost[0]}",
            f"/v1/tables/t/rows/{lost[0]}?deadline_ms=100",
            "/v1/tables/t/rows",
        ):
            assert problem(reader.get(path), 503, "partition-stopped")["reason"] == "corrupted"
        page = reader.http.post("/v1/tables/t/rows:get", json={"keys": [*lost, *sound]}).json()
        assert page["unprocessed"] == [{"key": key, "reason": "partition-stopped"} for key in lost]
        assert [row["key"] for row in page["results"]] == sound
        assert all(reader.get(f"/v1/tables/t/rows/{key}").status_code == 200 for key in sound)
        assert reader.get("/v1/tables/t/rows?partitions=0,1,3").status_code == 200
        assert reader.get("/v1/partitions").json()["partitions"][2]["state"] == "stopped"
        assert 'logstore_partition_state{partition="2",state="stopped",table="t"} 1.0' in reader.get("/metrics").text
        assert reader.get("/readyz").status_code == 200
        node.views[EPOCH, 2].close(flush=False)
        del node.views[EPOCH, 2]


@pytest.mark.parametrize(
    "harm", [zero_root, lambda path: truncate(path, used_bytes(path) // 2)], ids=["zeroed", "cut short"]
)
def test_a_reader_that_finds_a_damaged_view_serves_the_others_and_takes_the_next_one(tmp_path, harm):
    with serving(tmp_path) as (node, reader):
        reader.wait_listening()
        table = node.create("t")
        rows = {b"k%03d" % i: b"v" * 100 for i in range(400)}
        node.put_many("t", rows)
        reader.wait_ready()
        node.leave_served_file()
        reader.kill()
        view = node.views.pop((EPOCH, 2))
        view.close()
        harm(view.path)
        reader.restart()
        reader.wait_listening()
        lost, sound = ([key.decode() for key in rows if (partition_of(key, 4) == 2) == bad] for bad in (True, False))
        until("it answers 200", lambda: reader.get(f"/v1/tables/t/rows/{sound[0]}").status_code == 200)
        assert all(reader.get(f"/v1/tables/t/rows/{key}").status_code == 200 for key in sound)
        assert "is damaged" in problem(reader.get(f"/v1/tables/t/rows/{lost[0]}"), 503, "starting")["detail"]
        remove(view.path)
        node.open_view(table, 2)
        node.put_many("t", {key.encode(): b"again" for key in lost})
        until(
            "the lost rows are back",
            lambda: all(reader.get(f"/v1/tables/t/rows/{key}").text == "again" for key in lost),
        )
