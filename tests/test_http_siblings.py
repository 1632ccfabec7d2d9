"""Siblings over HTTP: status 300, and lists of them in pages; one value that is left is an ordinary row."""

import base64
import time

import msgpack
import pyarrow as pa
import pytest
from support_serve import epoch_of, problem, serving
from support_wait import until

from batch.tasks import compare
from logstore import SeveralValues, Sibling, Store, codecs
from logstore.client.read.row import SiblingRow
from logstore.model.folding.digest import TOMBSTONES
from logstore.model.folding.entry import Entry
from logstore.snapshot.work import FoldOrder, ServedOrder

EPOCH = epoch_of("carts")
MSGPACK = {"Accept": "application/msgpack"}
COLUMNS = "application/vnd.logstore.columns+msgpack"
ROW = "/v1/tables/carts/rows/ada"
VALUES = b"milk", b"\xff\x00eggs"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("node")) as (node, reader):
        node.create("carts", 2, conditional=True, siblings=True)
        reader.wait_ready()
        node.decide("carts", [(b"ada", value, {"ls.seen": b"-1"}) for value in VALUES])
        node.decide("carts", [(b"bob", b"tea", {"ls.seen": b"-1"})])
        yield node, reader


def newest(node, key):
    return node.views[EPOCH, node.home("carts", key)].next_offset - 1


def written(node, key, records):
    """Siblings of a new row: (its version, theirs)."""
    _, first = node.decide("carts", [(key, value, headers) for value, headers in records])
    return first + len(records) - 1, [first + n for n in range(len(records))]


def test_several_values_are_status_300_with_all_of_them(store):
    node, reader = store
    version, members = written(node, b"eve", [(value, {"ls.seen": b"-1"}) for value in VALUES])
    answer = reader.get("/v1/tables/carts/rows/eve")
    body = problem(answer, 300, "siblings")
    assert body["siblings"] == [
        {"version": members[0], "value": "milk"},
        {"version": members[1], "value": {"base64": base64.b64encode(VALUES[1]).decode()}},
    ]
    partition = node.home("carts", b"eve")
    assert (body["version"], body["partition"]) == (version, partition)
    headers = answer.headers
    assert (headers["ls-version"], headers["ls-partition"]) == (str(version), str(partition))
    assert headers["etag"] == f'"{EPOCH}-{partition}-{version}"'
    assert headers["ls-token"] == f"{EPOCH}-{partition}-{version + 1}"
    assert (headers["ls-source"], headers["ls-applied"]) == ("view", str(version + 1))


def test_its_head_has_no_body_and_an_etag_that_is_known_is_304(store):
    _, reader = store
    answer, head = reader.get(ROW), reader.http.head(ROW)
    assert (head.status_code, head.content) == (300, b"")
    assert head.headers["etag"] == answer.headers["etag"]
    known = reader.get(ROW, headers={"If-None-Match": answer.headers["etag"]})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", answer.headers["etag"])


def test_the_fast_path_and_every_level_say_the_same(store):
    _, reader = store
    plain = reader.get(ROW)
    token = {"LS-Consistency": "session", "LS-Token": plain.headers["ls-token"]}
    for headers in (token, {"LS-Consistency": "eventual"}, {"LS-As-Of": plain.headers["ls-token"]}):
        answer = reader.get(ROW, headers=headers)
        assert (answer.status_code, answer.json()) == (300, plain.json())


def test_one_value_is_an_ordinary_row_of_the_rows_version(store):
    node, reader = store
    one = reader.get("/v1/tables/carts/rows/bob")
    assert (one.status_code, one.content) == (200, b"tea")
    version, members = written(
        node, b"kim", [(b"a", {"ls.seen": b"-1"}), (b"b", {"ls.seen": b"-1"})]
    )  # fmt: skip
    node.decide("carts", [(b"kim", None, {"ls.seen": b"%d" % members[0]})])  # what only that one had seen is gone
    left = reader.get("/v1/tables/carts/rows/kim")
    assert (left.status_code, left.content) == (200, b"b")
    assert int(left.headers["ls-version"]) == newest(node, b"kim") == version + 1
    node.decide("carts", [(b"kim", None, {"ls.seen": left.headers["ls-version"].encode()})])
    problem(reader.get("/v1/tables/carts/rows/kim"), 404, "not-found")


def test_pages_list_siblings_in_every_form(store):
    _, reader = store
    where = "/v1/tables/carts/rows?prefix=ada"
    version = int(reader.get(ROW).headers["ls-version"])
    (row,) = reader.get(where).json()["rows"]
    assert (row["version"], [one["value"] for one in row["siblings"]]) == (
        version, ["milk", {"base64": base64.b64encode(VALUES[1]).decode()}],
    )  # fmt: skip
    assert "value" not in row
    expected = [{"version": version - 1, "value": VALUES[0]}, {"version": version, "value": VALUES[1]}]
    (row,) = msgpack.unpackb(reader.get(where, headers=MSGPACK).content)["rows"]
    assert (row["siblings"], "value" in row) == (expected, False)
    columns = msgpack.unpackb(reader.get(where, headers={"Accept": COLUMNS}).content)["columns"]
    assert columns["value"] == [None]
    assert columns["siblings"] == [[[version - 1, VALUES[0]], [version, VALUES[1]]]]
    arrow = reader.get(where, headers={"Accept": "application/vnd.apache.arrow.stream"}).content
    (row,) = pa.ipc.open_stream(arrow).read_all().to_pylist()
    assert (row["value"], row["siblings"], row["version"]) == (None, expected, version)
    (row,) = reader.get(f"{where}&keys_only=true").json()["rows"]
    assert row.keys() == {"key", "version", "partition"}


def test_a_multiget_lists_siblings_beside_rows_and_those_that_are_not_there(store):
    _, reader = store
    found = reader.http.post("/v1/tables/carts/rows:get", json={"keys": ["bob", "ada", "none"]}).json()["results"]
    assert [(one["found"], one.get("value"), len(one.get("siblings", ()))) for one in found] == [
        (True, "tea", 0), (True, None, 2), (False, None, 0),
    ]  # fmt: skip


def test_an_audit_compares_what_is_served_with_what_the_fold_says(store):
    node, reader = store
    written(node, b"audited", [(b"a", {"ls.seen": b"-1"}), (b"b", {"ls.seen": b"-1"})])
    partition = node.home("carts", b"audited")
    order = ServedOrder(FoldOrder(partition, 0, newest(node, b"audited") + 1, [], []), reader.url, 20.0)
    with compare._Pages(order, node.tables["carts"]) as pages:
        served = list(pages.rows())
    entries = sorted(node.entries("carts", partition).items())
    expected = [compare._row(pair) for pair in entries if pair[1][0] not in TOMBSTONES]
    assert served == expected
    assert any(isinstance(value, tuple) for *_, value in served)
    forged = Entry.decode(dict(entries)[b"audited"])
    forged = forged._replace(payload=forged.payload.replace(b"a", b"A", 1)).encode()
    wrong = [compare._row(pair) for pair in sorted({**dict(entries), b"audited": forged}.items())
             if pair[1][0] not in TOMBSTONES]  # fmt: skip
    assert [one.key for one in compare.differences(wrong, served)] == [b"audited"]


def test_the_clients_give_all_values_and_never_one_of_them(store):
    _, reader = store
    version = int(reader.get(ROW).headers["ls-version"])
    with Store(url=reader.url) as client:
        rows = [
            client.get("carts", "ada"),
            client.get("carts", "ada", consistency="eventual"),
            client.get_many("carts", ["ada"])[0],
            *client.get_many("carts", ["none", "ada", "bob"])[1:2],
            *client.scan("carts", prefix="ada"),
        ]
        for row in rows:
            assert type(row) is SiblingRow
            assert [one.value for one in row.siblings] == [*VALUES]
            assert row.siblings[-1].version == row.version == version
            with pytest.raises(SeveralValues, match=f"seen={row.version}") as raised:
                _ = row.value
            assert (raised.value.siblings, raised.value.version) == (row.siblings, row.version)
        (bob,) = client.scan("carts", prefix="bob")
        assert (bob.value, bob.siblings) == (b"tea", (Sibling(bob.version, b"tea"),))
        assert client.get("carts", "bob")[:4] == bob[:4]
        assert client.get("carts", "none") is None
        (keys_only,) = client.scan("carts", prefix="ada", keys_only=True)
        assert (keys_only.value, keys_only.version) == (b"", rows[0].version)


def test_a_typed_table_decodes_each_of_them(store):
    node, reader = store
    written(node, b"typed", [(b"[1]", {"ls.seen": b"-1"}), (b"[2]", {"ls.seen": b"-1"})])
    with Store(url=reader.url) as client:
        typed = client.table("carts", codec=codecs.json)
        for row in (typed.get("typed"), *typed.get_many(["typed"]), *typed.scan(prefix="typed")):
            assert [one.value for one in row.siblings] == [[1], [2]]
            with pytest.raises(SeveralValues):
                _ = row.value


def test_siblings_end_one_by_one_and_the_etag_names_the_first_end(store):
    node, reader = store
    node.create("ending", 1, conditional=True, siblings=True, expiring=True)
    until("it is served", lambda: reader.get("/v1/tables/ending").status_code == 200)
    now_ms, hour_ms = time.time_ns() // 1_000_000, 3_600_000

    def put(key, at_ms, *ttls_ms):
        terms = [{"ls.seen": b"-1"} | ({"ls.ttl": ttl_ms.to_bytes(8)} if ttl_ms else {}) for ttl_ms in ttls_ms]
        records = [(key, b"%d" % n, one) for n, one in enumerate(terms)]
        _, first = node.decide("ending", records, at_ms=at_ms)
        return first + len(records) - 1, reader.get(f"/v1/tables/ending/rows/{key.decode()}")

    _, gone = put(b"gone", now_ms - 3 * hour_ms, hour_ms, 2 * hour_ms)
    problem(gone, 404, "not-found")
    _, stays = put(b"stays", now_ms - 2 * hour_ms, hour_ms, None)
    assert (stays.status_code, stays.content) == (200, b"1")
    for answer in (gone, stays):  # nothing that is left of it ends, and yet what has ended is to stay so in a session
        seen_ms = answer.headers["ls-time"]
        assert (int(seen_ms) >= now_ms, f"t{seen_ms}" in answer.headers["ls-token"].split(",")) == (True, True)
    version, left = put(b"left", now_ms - 2 * hour_ms, hour_ms, 9 * hour_ms)
    assert (left.status_code, left.content, left.headers["ls-version"]) == (200, b"1", str(version))
    assert left.headers["etag"].endswith(f'-{version}-{now_ms + 7 * hour_ms}"')
    version, both = put(b"both", now_ms, hour_ms, 2 * hour_ms)
    assert [one["value"] for one in problem(both, 300, "siblings")["siblings"]] == ["0", "1"]
    assert both.headers["etag"].endswith(f'-{version}-{now_ms + hour_ms}"')
    assert int(both.headers["ls-time"]) >= now_ms
    with Store(url=reader.url) as client:
        assert {row.key: len(row.siblings) for row in client.scan("ending")} == {
            b"left": 1, b"stays": 1, b"both": 2,
        }  # fmt: skip
