"""The OpenAPI document against real answers: every answer to whatever is asked is one that it describes."""

import random

import msgpack
import pytest

from tests.support_openapi import check
from tests.support_serve import serving

SEED = 1_129
ROUNDS = 600
ROW = "/v1/tables/{table}/rows/{key}"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("node"), "--writes", "--bootstrap", "127.0.0.1:1") as (node, reader):
        node.create("t", 2)
        node.put_many("t", {b"k%d" % i: bytes([i]) * i for i in range(60)})
        node.put("t", b"text", b"\xc3\xa4")
        node.delete("t", b"k7")
        node.create("c", 2, conditional=True)
        node.decide("c", [(b"k1", b"v", {"ls.if": b"absent", "ls.id": b"i" * 16})] * 2)
        node.create("carts", 1, conditional=True, siblings=True)
        node.decide("carts", [(b"k1", value, {"ls.seen": b"-1"}) for value in (b"milk", b"\xff")])
        node.create("pages", 1, conditional=True, wide=True, families={"f": {}})
        edit = msgpack.packb([["set", "f", b"k1", b"\xff"], ["set", "f", b"text", b"v"]])
        node.decide("pages", [(b"k1", edit, {"ls.op": b"edit"})])
        reader.wait_ready()
        yield node, reader


@pytest.fixture(scope="module")
def document(store):
    return store[1].get("/openapi.json").json()


@pytest.mark.parametrize("key", ["k1", "k7", "none", "text", "%ff", "", "a%2Fb", "%zz", "k" * 300])
@pytest.mark.parametrize("way", ["fast", "ordinary"])
def test_rows_are_as_described_on_both_ways(store, document, key, way):
    _, reader = store
    headers = {} if way == "fast" else {"x-way": "ordinary"}
    for method in ("GET", "HEAD"):
        for table in ("t", "none", "T%20", "carts", "pages"):
            answer = reader.http.request(method, f"/v1/tables/{table}/rows/{key}", headers=headers)
            check(document, ROW, method, answer)
    before = reader.http.get(f"/v1/tables/t/rows/{key}")
    if tag := before.headers.get("etag"):
        same = reader.http.get(f"/v1/tables/t/rows/{key}", headers={"if-none-match": tag})
        assert same.status_code == (304 if before.status_code == 200 else before.status_code)
        check(document, ROW, "GET", same)


def parameters(document, path: str, method: str) -> list[dict]:
    found = [*document["paths"][path].get("parameters", []), *document["paths"][path][method].get("parameters", [])]
    return [
        document["components"]["parameters"][one["$ref"].rpartition("/")[2]] if "$ref" in one else one for one in found
    ]


def some_value(rng: random.Random, name: str, token: str) -> str:
    fitting = {
        "limit": ["1", "7", "1000"],
        "token": [token],
        "key_encoding": ["base64url"],
        "reverse": ["true"],
        "consistency": ["eventual", "session", "bounded", "latest", "linearizable"],
        "as_of": [token, "2020-01-01T00:00:00Z"],
        "id": [(b"i" * 16).hex(), "0" * 32],
        "If-Match": ["*", 'W/"x"', '"x"', f'"{token.rsplit(",", 1)[0]}"'],
        "If-None-Match": ["*"],
        "LS-Id": ["0" * 32],
        "LS-Ttl": ["5"],
        "since": ["beginning", token],
        "columns": ["f:", "f:text", "f:none"],
        "versions": ["1", "9"],
        "wait": ["0"],
    }
    odd = ["", "0", "-1", "1001", "x", "%FF", "%00", "2" * 30, "maybe", "k1", "latest", "a,b", "9999-99-99", "/", "?"]
    return rng.choice(fitting.get(name, ["k1"]) if rng.random() < 0.6 else odd)


@pytest.mark.slow
def test_whatever_is_asked_the_answer_is_described(store, document):
    _, reader = store
    token = reader.get("/v1/tables/t/rows?limit=1").json()["token"]
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    operations = [
        (path, method) for path, methods in document["paths"].items() for method in methods if method != "parameters"
    ]
    statuses = set()
    for _ in range(ROUNDS):
        path, method = rng.choice(operations)
        named = [p for p in parameters(document, path, method) if p["in"] != "path"]
        chosen = rng.sample(named, min(len(named), rng.choice([0, 1, 1, 2, 3])))
        query, headers = [], {"accept": rng.choice(["*/*", "application/json", "application/msgpack", "text/html"])}
        for one in chosen:
            value = some_value(rng, one["name"], token)
            if one["in"] == "query":
                query.append(f"{one['name']}={value}")
            else:
                headers[one["name"]] = value
        headers["ls-deadline"] = "50"
        tables = (
            ["t", "c", "none"]
            if "outcomes" in path or method != "get"
            else ["t", "t", "carts", "pages", "pages", "none"]
        )
        asked = path.replace("{table}", rng.choice(tables)).replace("{key}", rng.choice(["k1", "none"]))
        asked = asked.replace("{partition}", rng.choice("0017x")).replace("{offset}", rng.choice(["0", "1", "9", "-1"]))
        body = {}
        if method == "post":
            kinds = [
                b'{"key":"k1","value":"v"}',
                b'{"key":""}',
                b'{"keys":["k1","none"]}',
                b'{"keys":[]}',
                b"{",
                b"[]",
                b'{"keys":[1]}',
                b'{"keys":[""]}',
            ]
            if "outcomes" in path:
                kinds += [b'{"partition":%d,"offsets":[0,1,9]}' % n for n in (0, 1, 2)]
            body = {"content": rng.choice(kinds)}
            kinds_of = ["application/json", "application/x-ndjson", "text/plain", "application/msgpack"]
            headers["content-type"] = rng.choice(kinds_of)
        answer = reader.http.request(
            method.upper(), asked + ("?" + "&".join(query) if query else ""), headers=headers, **body
        )
        check(document, path, method.upper(), answer)
        statuses.add(answer.status_code)
    assert {200, 400, 404, 406, 415} <= statuses
