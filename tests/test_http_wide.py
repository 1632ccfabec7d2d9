"""Wide rows over HTTP: selections of cells, forms, ETags, lists; and what is no selection."""

import base64
import io

import msgpack
import pyarrow as pa
import pytest
from support_serve import SLOTS, Node, Reader, epoch_of, problem, serving

from logstore import RowEdit
from logstore.client.conditional.record import Expected, edit_record
from logstore.client.wide.row_edit import edited_row
from logstore.model.partitioner import partition_of
from logstore.serve.wire.request import percent_decode

EPOCH = epoch_of("pages")
MSGPACK = {"Accept": "application/msgpack"}
COLUMNS = "application/vnd.logstore.columns+msgpack"
FAMILIES = {"content": {"versions": 3}, "anchor": {}}
ROW = "/v1/tables/pages/rows/org.example%2F"
ODD = b"a,b%c:\xff"


def edit(node, key, *edits):
    """Fold edits of a row, each a record: (partition, version of the last one)."""
    records = [edit_record(edited_row(key, one), Expected(), None) for one in edits]
    partition, first = node.decide("pages", [(key, one.value, dict(one.own)) for one in records])
    return partition, first + len(records) - 1


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("node")) as (node, reader):
        node.create("pages", 2, conditional=True, wide=True, families=FAMILIES)
        node.create("users", 2)
        reader.wait_ready()
        yield node, reader


@pytest.fixture(scope="module")
def row(store):
    """A row of four versions of one cell, of which three are kept, and others: (partition, version, first)."""
    node, _ = store
    edits = [RowEdit().set("content", "html", f"<{n}>") for n in range(4)]
    last = RowEdit().set("anchor", "org.other/", "Example").set("anchor", ODD, b"\xfe").incr("content", "hits", 5)
    partition, version = edit(node, b"org.example/", *edits, last)
    node.put("users", b"ada", b"1815")
    return partition, version, version - 4


def cells(answer):
    assert answer.status_code == 200, answer.text
    return [(one["family"], one["qualifier"], one["value"]) for one in answer.json()["cells"]]


def test_a_row_is_its_cells_newest_version_first(store, row):
    _, reader = store
    partition, version, first = row
    answer = reader.get(ROW)
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert (body["key"], body["version"]) == ("org.example/", version)
    assert body["cells"] == [
        {"family": "anchor", "qualifier": {"base64": base64.b64encode(ODD).decode()}, "version": version,
         "timestamp": 1, "value": {"base64": "/g=="}},
        {"family": "anchor", "qualifier": "org.other/", "version": version, "timestamp": 1, "value": "Example"},
        {"family": "content", "qualifier": "hits", "version": version, "timestamp": 1,
         "value": "\0\0\0\0\0\0\0\5"},
        {"family": "content", "qualifier": "html", "version": first + 3, "timestamp": 1, "value": "<3>"},
    ]  # fmt: skip
    headers = answer.headers
    assert (headers["ls-version"], headers["ls-partition"]) == (str(version), str(partition))
    assert headers["etag"] == f'"{EPOCH}-{partition}-{version}"'
    assert headers["vary"].lower() == "accept"
    packed = reader.get(ROW, params={"versions": 9}, headers=MSGPACK)
    found = msgpack.unpackb(packed.content)
    assert found["key"] == b"org.example/"
    versions = [(one["version"], one["value"]) for one in found["cells"] if one["qualifier"] == b"html"]
    assert versions == [(first + n, b"<%d>" % n) for n in (3, 2, 1)], "the newest first, as many as the family keeps"
    head = reader.http.head(ROW)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(answer.content)))


def test_columns_and_versions_select_cells(store, row):
    _, reader = store
    assert row
    html, anchor = ("content", "html", "<3>"), ("anchor", "org.other/", "Example")
    assert cells(reader.get(ROW, params={"columns": "content:html"})) == [html]
    assert cells(reader.get(ROW, params={"columns": "content:html,anchor:org.other%2F"})) == [anchor, html]
    assert len(cells(reader.get(ROW, params={"columns": "anchor:"}))) == 2
    assert cells(reader.get(f"{ROW}?columns=content:html&versions=2")) == [html, ("content", "html", "<2>")]
    odd = reader.get(f"{ROW}?columns=anchor:a%252Cb%2525c:%25FF")
    assert [one[2] for one in cells(odd)] == [{"base64": "/g=="}]
    assert percent_decode(b"anchor:a%252Cb%2525c:%25FF", "bad-request") == b"anchor:a%2Cb%25c:%FF"
    none = problem(reader.get(ROW, params={"columns": "content:none"}), 404, "not-found")
    assert (none["version"], "deleted" in none) == (row[1], False)


def test_each_form_and_selection_has_an_etag_of_its_own(store, row):
    _, reader = store
    assert row
    forms = [
        {"params": params, "headers": headers}
        for params in ({}, {"versions": 2}, {"columns": "content:"}, {"columns": "anchor:"})
        for headers in ({}, MSGPACK)
    ]
    tags = [reader.get(ROW, **form).headers["etag"] for form in forms]
    assert len(set(tags)) == len(tags)
    for form, tag in zip(forms, tags, strict=True):
        again = reader.get(ROW, params=form["params"], headers={**form["headers"], "If-None-Match": tag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert again.headers["vary"].lower() == "accept"
    assert reader.get(ROW, headers={"If-None-Match": tags[1]}).status_code == 200
    same = reader.get(f"{ROW}?versions=1", headers={"If-None-Match": tags[0]})
    assert same.status_code == 304, "what is asked for is the whole row, said or not"


def test_a_row_that_changes_has_another_version_and_one_without_cells_is_not_there(store):
    node, reader = store
    page = "/v1/tables/pages/rows/gone"
    absent = problem(reader.get(page), 404, "not-found")
    assert "deleted" not in absent
    partition, version = edit(node, b"gone", RowEdit().set("anchor", "a", "1"))
    tag = reader.get(page).headers["etag"]
    _, changed = edit(node, b"gone", RowEdit().delete("anchor", "nothing"))
    assert changed == version + 1
    assert reader.get(page, headers={"If-None-Match": tag}).status_code == 200
    node.adopt("pages", partition)
    assert (one := reader.get(page)).headers["ls-source"] == "snapshot"
    assert one.json()["version"] == changed, "a row of the base is a wide row, too"
    edit(node, b"gone", RowEdit().delete_row())
    gone = problem(reader.get(page), 404, "not-found")
    assert (gone["deleted"], gone["wide"]) == (True, True)


def test_lists_have_the_cells_that_are_asked_for(store, row):
    node, reader = store
    edit(node, b"list-a", RowEdit().set("content", "html", "a").set("anchor", "x", "1"))
    edit(node, b"list-b", RowEdit().set("anchor", "x", "2"))
    page = reader.get("/v1/tables/pages/rows", params={"prefix": "list-", "columns": "anchor:,content:"}).json()
    assert [(one["key"], len(one["cells"]), "value" in one) for one in page["rows"]] == [
        ("list-a", 2, False), ("list-b", 1, False),
    ]  # fmt: skip
    html = {"prefix": "list-", "columns": "content:html"}
    assert [one["key"] for one in reader.get("/v1/tables/pages/rows", params=html).json()["rows"]] == ["list-a"]
    for more, keys in (({}, ["list-a"]), ({"columns": "anchor:"}, ["list-a", "list-b"])):
        named = reader.get("/v1/tables/pages/rows", params={**html, **more, "keys_only": "true"}).json()["rows"]
        assert [one["key"] for one in named] == keys
        assert "cells" not in named[0]
    first = reader.get("/v1/tables/pages/rows", params={"prefix": "list-", "limit": 1}).json()
    rest = reader.get("/v1/tables/pages/rows", params={"prefix": "list-", "cursor": first["cursor"]}).json()
    assert [one["key"] for one in first["rows"] + rest["rows"]] == ["list-a", "list-b"]
    other = reader.get("/v1/tables/pages/rows", params={**html, "cursor": first["cursor"]})
    problem(other, 400, "bad-cursor")
    keys = {"keys": ["list-b", "org.example/", "none", "list-a"]}
    found = reader.http.post("/v1/tables/pages/rows:get?columns=content:&versions=2", json=keys).json()["results"]
    assert [(one["found"], len(one.get("cells", ()))) for one in found] == [
        (False, 0), (True, 3), (False, 0), (True, 1),
    ]  # fmt: skip
    assert "deleted" not in found[0]
    in_columns = reader.http.post("/v1/tables/pages/rows:get", json=keys, headers={"Accept": COLUMNS})
    shown = msgpack.unpackb(in_columns.content)["columns"]
    assert "value" not in shown
    assert shown["cells"][2] is None
    assert [cell[:2] for cell in shown["cells"][3]] == [["anchor", b"x"], ["content", b"html"]]


def test_an_arrow_stream_has_a_row_for_each_cell(store, row):
    _, reader = store
    params = {"prefix": "org.", "versions": "2", "columns": "content:html"}
    answer = reader.get(
        "/v1/tables/pages/rows", params=params, headers={"Accept": "application/vnd.apache.arrow.stream"}
    )
    table = pa.ipc.open_stream(io.BytesIO(answer.content)).read_all()
    assert table.select(["key", "family", "qualifier", "cell_version", "value", "version"]).to_pylist() == [
        {"key": b"org.example/", "family": "content", "qualifier": b"html", "cell_version": row[2] + n,
         "value": b"<%d>" % n, "version": row[1]}
        for n in (3, 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "status", "word", "says"),
    [
        (f"{ROW}?columns=content", 400, "bad-request", "family:qualifier"),
        (f"{ROW}?columns=", 400, "bad-request", "family:qualifier"),
        (f"{ROW}?columns=anchor:a%25", 400, "bad-request", "%2C"),
        (f"{ROW}?columns=title:", 400, "bad-request", "it has anchor, content"),
        (f"{ROW}?columns={','.join(['anchor:'] * 1001)}", 400, "bad-request", "1 to 1,000 columns"),
        (f"{ROW}?versions=0", 400, "bad-request", "1 to 10,000"),
        (f"{ROW}?versions=x", 400, "bad-request", "versions"),
        ("/v1/tables/pages/rows?columns=content", 400, "bad-request", "family:qualifier"),
        ("/v1/tables/pages/rows?columns=title:x", 400, "bad-request", "it has anchor, content"),
        ("/v1/tables/users/rows/ada?columns=content:", 400, "bad-request", "--wide"),
        ("/v1/tables/users/rows/ada?versions=1", 400, "bad-request", "--wide"),
        ("/v1/tables/users/rows?versions=1", 400, "bad-request", "--wide"),
    ],
)
def test_what_is_no_selection_is_refused_with_the_words(store, row, path, status, word, says):
    _, reader = store
    assert row
    assert says in problem(reader.get(path), status, word)["detail"]


def test_a_wide_row_comes_in_the_forms_that_it_has(store, row):
    _, reader = store
    assert row
    refused = reader.get(ROW, headers={"Accept": "application/octet-stream"})
    assert "application/json or application/msgpack" in problem(refused, 406, "not-acceptable")["detail"]
    problem(reader.http.post("/v1/tables/users/rows:get?versions=1", json={"keys": ["a"]}), 400, "bad-request")


def test_a_row_of_many_cells_is_answered_whole_and_pages_stay_bounded(store):
    node, reader = store
    for key in (b"many-a", b"many-b"):
        wide = RowEdit()
        for n in range(15_000):
            wide.set("anchor", b"%d" % n, b"v" * 20)
        edit(node, key, wide)
    found = reader.get("/v1/tables/pages/rows/many-a", headers=MSGPACK)
    assert len(msgpack.unpackb(found.content)["cells"]) == 15_000
    one = reader.get("/v1/tables/pages/rows/many-a", params={"columns": "anchor:14999"})
    assert [cell["qualifier"] for cell in one.json()["cells"]] == ["14999"]
    page = reader.get("/v1/tables/pages/rows", params={"prefix": "many-"}).json()
    assert ([row["key"] for row in page["rows"]], page["cursor"] is None) == (["many-a", "many-b"], True)


def test_a_list_spans_nodes(tmp_path):
    nodes = [
        Node(tmp_path / name, name=name, slots=slots)
        for name, slots in (("even", range(0, SLOTS, 2)), ("odd", range(1, SLOTS, 2)))
    ]
    readers = [Reader(node.data_dir, node=node.name) for node in nodes]
    try:
        for node, reader in zip(nodes, readers, strict=True):
            node.url = reader.url
        for node, other in (nodes, nodes[::-1]):
            node.others = [other.record()]
            node.create("pages", 2, conditional=True, wide=True, families=FAMILIES)
        for reader in readers:
            reader.wait_ready()
        keys = [f"k{n}".encode() for n in range(20)]
        for key in keys:
            home = nodes[partition_of(key, 2)]
            edit(home, key, RowEdit().set("content", "html", key).set("anchor", ODD, "x"))
        query = {"columns": "content:html,anchor:a%2Cb%25c:%FF", "deadline_ms": 20_000}
        page = readers[0].get("/v1/tables/pages/rows", params=query).json()
        assert [one["key"].encode() for one in page["rows"]] == sorted(keys)
        assert [one["cells"][1]["value"].encode() for one in page["rows"]] == sorted(keys)
        assert {len(one["cells"]) for one in page["rows"]} == {2}
        body = {"keys": [key.decode() for key in keys]}
        answer = readers[1].http.post("/v1/tables/pages/rows:get", params={**query, "columns": "content:"}, json=body)
        assert [one["cells"][0]["value"].encode() for one in answer.json()["results"]] == keys
        named = readers[0].get("/v1/tables/pages/rows", params={"keys_only": "true", "deadline_ms": 20_000}).json()
        assert len(named["rows"]) == len(keys)
    finally:
        for closing in (*readers, *nodes):
            closing.close()
