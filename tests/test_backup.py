"""Back-up, and the way back when everything but the copies is lost (docs/operations.md)."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pytest
from support_dev import Dev, call
from support_log import until

from logstore import Store
from logstore.log import topics
from logstore.log.kafka import clients
from logstore.log.tables.registry import Registry

ROWS = {f"k{number:03d}": f"value {number}" for number in range(200)}


def test_definitions_are_written_again_as_they_were(kafka, scheduled, tmp_path):
    table = scheduled(2, mutations=7, description="kept")
    where, file = {"LOGSTORE_BOOTSTRAP": kafka.bootstrap}, tmp_path / "tables.jsonl"
    lines = call("table", "export", **where).stdout.splitlines()
    (line,) = [line for line in lines if orjson.loads(line)["name"] == table.name]
    file.write_bytes(line + b"\n")
    assert b"already" in call("table", "import", str(file), "--yes", **where).stderr
    registry = Registry(kafka.bootstrap)
    _drop(registry, table)
    done = call("table", "import", str(file), "--yes", **where)
    assert done.stdout.decode() == f"table {table.name}: defined; its topic is there\n", done.stderr
    again = registry.table(table.name)
    assert (again.to_json(), again.schedule["every_mutations"]) == (table.to_json(), 7)
    _drop(registry, table)
    assert topics.delete(clients.admin(kafka.bootstrap), table.topic)
    said = until("the topic is gone", lambda: _imported(registry, table, file, where))
    assert f"logstore batch restore {table.name} --at TIME --as {table.name}_back" in said
    _drop(registry, table)


def _drop(registry, table):
    """As `table drop` does last."""
    registry.write(replace(registry.read().tables[table.name], dropped=True))


def _imported(registry, table, file, where):
    """What import says once the topic is gone for whoever asks."""
    said = call("table", "import", str(file), "--yes", **where).stdout.decode()
    if "is gone" not in said:
        _drop(registry, table)
        return None
    return said


@pytest.mark.parametrize("content", [b"", b"{}\n", b"no\n", b"[]\n", b"\xff\n"])
def test_what_is_no_definition_is_refused_and_nothing_is_written(kafka, tmp_path, content):
    Registry(kafka.bootstrap).ensure_store()
    (tmp_path / "x").write_bytes(content)
    done = call("table", "import", str(tmp_path / "x"), "--yes", LOGSTORE_BOOTSTRAP=kafka.bootstrap)
    assert done.returncode == 1
    assert b"line 1" in done.stderr or b"is empty" in done.stderr


@pytest.mark.long
def test_everything_comes_back_from_definitions_archive_and_snapshots(tmp_path):
    """Kafka and the node's data directory are deleted; what is left are the storage and the exported definitions."""
    storage = f"file://{tmp_path / 'storage'}"
    store = Dev(tmp_path / "one", "--storage", storage)
    try:
        store("table", "create", "kept", "--partitions", "2")
        with Store(store.facts["bootstrap"], url=store.facts["http"]) as client:
            for key, value in ROWS.items():
                client.put("kept", key, value)
        store("batch", "archive", "kept")
        store("batch", "compact", "kept", "--wait", "120")
        store("put", "kept", "k000", "newer")
        store("batch", "archive", "kept")
        exported = tmp_path / "tables.jsonl"
        exported.write_bytes(store("table", "export").stdout)
    finally:
        store.end()
    shutil.rmtree(store.data)
    store = Dev(tmp_path / "two", "--storage", storage)
    try:
        assert b"is gone" in store("table", "import", str(exported), "--yes").stdout
        at = datetime.now(UTC).isoformat()
        store("batch", "restore", "kept", "--at", at, "--as", "kept_back", "--wait", "120")
        store("table", "promote", "kept_back", "--over", "kept")
        rows = store("scan", "kept", "--json").stdout.splitlines()
        found = {row["key"]: row["value"] for row in map(orjson.loads, rows)}
        assert found == {**ROWS, "k000": "newer"}
        token = store.json("put", "kept", "after", "all")["token"]
        assert store("get", "kept", "after", "--token", token).stdout == b"all"
        assert store("get", "kept", "k001").stdout == b"value 1"
    finally:
        store.end()
