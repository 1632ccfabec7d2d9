"""Records at every limit, and garbage in the log, end to end on a real store."""

import base64
import http.client
import random
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from support_faults import addresses, await_no_lag, create, get, key_of, standing_of
from support_log import produce, transactional, until
from support_store import Running, cli

from logstore import Store
from logstore.log.kafka import offsets
from logstore.log.kafka.clients import admin
from logstore.model.errors import BadKey, ValueTooLarge
from logstore.model.key import to_base64url

# Keys and values at every limit


def _keys(rng: random.Random) -> list[bytes]:
    plain = [
        b"a",
        b"\0",
        b"\xff",
        b"\0\0",
        b"\xff\xfe\x80",
        b"\xc3\x28",
        b"%2F..",
        b"../../x",
        b"a/b?c#d%",
        b"+ +",
        "schön".encode(),
    ]
    long = [rng.randbytes(1) * n for n in (495, 496, 509, 510, 511, 512, 513, 65_534, 65_535)]
    near = [b"p" * 495 + tail for tail in (b"", b"\0", b"\xff", b"q", rng.randbytes(100))] + [
        b"p" * 65_534 + b"\0",
        rng.randbytes(65_535),
    ]
    return list(dict.fromkeys([*plain, *long, *near]))


def test_every_key_passes_every_door_and_comes_back_in_order(fault_store, fault_table, rng):
    rows = {key: b"value of %d" % len(key) + key[:3] for key in _keys(rng)}
    with Store(fault_store.bootstrap, fault_store.url) as client:
        position = client.put_many(fault_table, rows.items())
        ordered = sorted(rows.items())
        assert [(row.key, row.value) for row in client.scan(fault_table, after=position, deadline_ms=10_000)] == ordered
        assert [(row.key, row.value) for row in client.scan(fault_table, reverse=True)] == ordered[::-1]
        assert [row and row.value for row in client.get_many(fault_table, list(rows))] == list(rows.values())
    address = httpx.URL(fault_store.url)
    connection = http.client.HTTPConnection(address.host, address.port, timeout=60)
    for key, value in rows.items():
        escaped = "".join(f"%{byte:02X}" for byte in key)
        for path in (escaped, quote(key, safe="").replace(".", "%2E"), to_base64url(key) + "?key_encoding=base64url"):
            connection.request("GET", f"/v1/tables/{fault_table}/rows/{path}")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, value), (key[:20], len(key), path[:60])
    connection.close()
    asked = {"keys": [{"base64": base64.b64encode(key).decode()} for key in rows if len(key) < 1000]}
    found = httpx.post(
        f"{fault_store.url}/v1/tables/{fault_table}/rows:get", json=asked, trust_env=False, timeout=60
    ).json()
    assert [_bytes(one["value"]) for one in found["results"]] == [
        value for key, value in rows.items() if len(key) < 1000
    ]


def _bytes(field: Any) -> bytes:
    return field.encode() if isinstance(field, str) else base64.b64decode(field["base64"])


def test_what_is_over_a_limit_is_refused_before_the_log(fault_store, tmp_path):
    limit = 1_000
    table = create(fault_store, "limited", "--max-value-bytes", str(limit))
    files = {size: tmp_path / str(size) for size in (0, limit, limit + 1)}
    for size, path in files.items():
        path.write_bytes(b"x" * size)
    with Store(fault_store.bootstrap, fault_store.url) as client:
        for key in (b"", b"k" * 65_536):
            for write in (
                lambda key=key: client.put(table, key, b"v"),
                lambda key=key: client.put_many(table, [(key, b"v")]),
            ):
                with pytest.raises(BadKey):
                    write()
        with pytest.raises(ValueTooLarge):
            client.put(table, "k", b"x" * (limit + 1))
        too_long = to_base64url(b"k" * 65_536)
        refused = [
            cli("put", table, "", "v", check=False, **addresses(fault_store)),
            cli("put", table, too_long, "v", "--key-encoding", "base64url", check=False, **addresses(fault_store)),
            cli("put", table, "k", "--file", str(files[limit + 1]), check=False, **addresses(fault_store)),
        ]
        assert [done.returncode for done in refused] == [2, 2, 2], [done.stderr for done in refused]
        assert all("Traceback" not in done.stderr for done in refused)
        ends = offsets.bounds(admin(fault_store.bootstrap), table, [0, 1])
        assert [bounds.end for bounds in ends.values()] == [0, 0]
        for size in (0, limit):
            cli("put", table, f"cli{size}", "--file", str(files[size]), **addresses(fault_store))
            position = client.put(table, f"lib{size}", b"x" * size)
            for key in (f"cli{size}", f"lib{size}"):
                until(
                    "it is read",
                    lambda key=key, at=position: client.get(table, key, after=at, deadline_ms=30_000).value is not None,
                )
                assert client.get(table, key).value == b"x" * size


# Garbage in the log


def test_garbage_is_listed_and_a_later_version_stops_its_partition_alone(fault_store, fault_table):
    here, there = key_of(0), key_of(1)
    produce(
        fault_store.bootstrap,
        fault_table,
        [(here.encode(), b"good"), (None, b"x"), (there.encode(), b"lost")],
        partition=0,
    )
    produce(fault_store.bootstrap, fault_table, [(here.encode(), b"x")], 0, [("ls.nonsense", b"1")])
    produce(fault_store.bootstrap, fault_table, [(there.encode(), b"good")], partition=1)
    until("all is applied", lambda: [standing_of(fault_store, fault_table, p)["applied"] for p in (0, 1)] == [4, 1])
    _assert_quarantine_is_shown(fault_store, fault_table)
    produce(fault_store.bootstrap, fault_table, [(here.encode(), b"of the future")], 0, [("ls.v", b"\x02")])
    produce(fault_store.bootstrap, fault_table, [(here.encode(), b"later")], partition=0)
    produce(fault_store.bootstrap, fault_table, [(there.encode(), b"goes on")], partition=1)
    until("it stops", lambda: standing_of(fault_store, fault_table, 0)["state"] == "stopped")
    until("the other goes on", lambda: get(fault_store.url, f"/v1/tables/{fault_table}/rows/{there}").text == "goes on")
    _assert_stopped_everywhere(fault_store, fault_table, here, there)
    _assert_lag_of_a_stopped_partition_grows(fault_store, fault_table, here)
    refused = cli(
        "table",
        "repair",
        fault_table,
        "--partition",
        "0",
        "--skip",
        "4",
        "--yes",
        check=False,
        **addresses(fault_store),
    )
    assert (refused.returncode, "--force" in refused.stderr) == (2, True), refused.stderr
    cli("table", "repair", fault_table, "--partition", "0", "--skip", "4", "--force", "--yes", **addresses(fault_store))
    until("it goes on", lambda: get(fault_store.url, f"/v1/tables/{fault_table}/rows/{here}").text == "later")
    await_no_lag(fault_store, fault_table)


def _assert_quarantine_is_shown(store: Running, table: str) -> None:
    page = get(store.url, f"/v1/tables/{table}/quarantine").json()
    assert page["counts"] == {"null-key": 1, "wrong-partition": 1, "unknown-header": 1}
    assert [(r["partition"], r["offset"], r["reason"]) for r in page["records"]] == [
        (0, 1, "null-key"), (0, 2, "wrong-partition"), (0, 3, "unknown-header"),
    ]  # fmt: skip
    figure = f'logstore_quarantined_total{{partition="0",reason="null-key",table="{table}"}} 1.0'
    assert figure in get(store.url, "/metrics").text
    assert f"table {table}: 1 records are in quarantine (null-key)" in cli("status", **addresses(store)).stderr


def _assert_stopped_everywhere(store: Running, table: str, here: str, there: str) -> None:
    rows = f"{store.url}/v1/tables/{table}/rows"
    for answer in (
        httpx.get(f"{rows}/{here}", trust_env=False, timeout=60),
        httpx.get(rows, trust_env=False, timeout=60),
    ):
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:logstore:partition-stopped")
        assert "upgrade logstore" in answer.json()["detail"]
        assert f"table repair {table} --partition 0" in answer.json()["detail"]
    assert httpx.head(f"{rows}/{here}", trust_env=False, timeout=60).status_code == 503
    found = httpx.post(f"{rows}:get", json={"keys": [here, there]}, trust_env=False, timeout=60).json()
    assert found["unprocessed"] == [{"key": here, "reason": "partition-stopped"}]
    assert [(one["key"], one["value"]) for one in found["results"]] == [(there, "goes on")]
    assert "stopped" in cli("status", **addresses(store)).stdout


def _assert_lag_of_a_stopped_partition_grows(store: Running, table: str, here: str) -> None:
    def shown() -> tuple[int, int, int]:
        found = standing_of(store, table, 0)
        return found["applied"], found["end"], found["lag"]

    until("the end of what came with the stop is told", lambda: shown() == (4, 6, 2))
    produce(store.bootstrap, table, [(here.encode(), b"behind the stop")] * 3, partition=0)
    produce(store.bootstrap, table, [(here.encode(), b"later")], partition=0)
    until("the end goes on", lambda: shown() == (4, 10, 6))
    assert standing_of(store, table, 0)["state"] == "stopped"


def test_a_transactional_writers_marker_is_stepped_over_by_a_repair(fault_store, fault_table):
    key = key_of(0)
    writer = transactional(fault_store.bootstrap, fault_table)
    writer.begin_transaction()
    writer.produce(fault_table, b"committed", key.encode())
    writer.commit_transaction(30)
    until("it stops", lambda: standing_of(fault_store, fault_table, 0)["state"] == "stopped")
    assert "--skip 1..1" in standing_of(fault_store, fault_table, 0)["reason"]
    done = cli("table", "repair", fault_table, "--partition", "0", "--skip", "1..1", "--yes", **addresses(fault_store))
    assert "1..1" in done.stdout
    assert get(fault_store.url, f"/v1/tables/{fault_table}/rows/{key}").text == "committed"
    await_no_lag(fault_store, fault_table)
