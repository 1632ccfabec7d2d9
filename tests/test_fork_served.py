"""A node serves a restored table, its writes, and the table that it was promoted over; with the commands a user has."""

import os
import signal

import httpx
import pytest
from support_audit import whole
from support_batch import commands
from support_jobs import token
from support_log import produce, until
from support_store import cli, running
from support_worker import make_table

from batch.cli import restore as cli_restore
from logstore import Store
from logstore.model.errors import EpochChanged, LogStoreError

ROWS = 200


@pytest.mark.parametrize("processes", ["one", pytest.param("each", marks=pytest.mark.long)])
def test_a_restored_table_is_served_written_compared_and_promoted(tmp_path, processes):
    with (
        running("dev", tmp_path, "--http", "127.0.0.1:0", "--readers", "1", "--workers", "1") as node,
        commands(tmp_path, processes) as batch,
    ):

        def run(*arguments):
            done = cli(*arguments, check=False, LOGSTORE_DATA_DIR=str(tmp_path))
            assert done.returncode == 0, done.stderr

        run("table", "create", "flights", "--partitions", "2", "--compression", "zstd", "--keep-snapshots", "2")
        with Store(node.bootstrap, node.url) as store:
            then = store.put_many("flights", [(f"k{n:03}", f"v{n}") for n in range(ROWS)])
            batch("compact", "flights", "--wait", "60")
            now = store.put_many("flights", [("k000", "changed"), ("k001", None), ("new", "row")])
            restored = batch.json("restore", "flights", "--at", then.token, "--as", "flights_then", "--wait", "60")
            assert restored["entries"] == ROWS
            assert [row.value for row in store.scan("flights_then", deadline_ms=20_000)] == [
                b"v%d" % n for n in range(ROWS)
            ]
            assert store.get("flights_then", "k001", deadline_ms=20_000).source == "snapshot"
            differing = batch.json("diff", "flights", "flights_then", status=1)
            assert {kind: differing[kind] for kind in ("only_left", "only_right", "different", "same")} == {
                "only_left": 1, "only_right": 1, "different": 1, "same": ROWS - 2,
            }  # fmt: skip
            assert "flights_then" in batch("diff", "flights@" + then.token, "flights_then")

            after = store.put_many("flights_then", [("k002", "fresh"), ("k003", None)])
            assert store.get("flights_then", "k002", after=after, deadline_ms=20_000).value == b"fresh"
            assert store.get("flights_then", "k003", after=after, deadline_ms=20_000) is None
            batch("compact", "flights_then", "--wait", "60")
            assert batch.json("audit", "flights_then")["verdict"] == "agree"

            refused = cli(
                "table", "promote", "flights_then", "--over", "flights", check=False, LOGSTORE_DATA_DIR=str(tmp_path)
            )
            assert (refused.returncode, "--discard-newer" in refused.stderr) == (2, True)
            assert store.get("flights", "new", after=now, deadline_ms=20_000).value == b"row"
            run("table", "promote", "flights_then", "--over", "flights", "--discard-newer")
            until("flights holds what the fork held", lambda: _value(store, "flights", "k002") == b"fresh")
            assert _value(store, "flights", "k003") is None
            assert _value(store, "flights", "new") is None
            assert _value(store, "flights_then", "new") == b"row"
            with pytest.raises(EpochChanged):
                store.get("flights", "new", after=now, deadline_ms=20_000)
        with Store(node.bootstrap, node.url) as store:  # knows the new definitions
            later = store.put("flights", "later", "written")
            assert store.get("flights", "later", after=later, deadline_ms=20_000).value == b"written"
            assert len(list(store.scan("flights", after=later, deadline_ms=20_000))) == ROWS
        batch("compact", "flights", "--wait", "60")
        run("table", "drop", "flights_then", "--yes")
        assert httpx.get(f"{node.url}/v1/tables/flights_then", trust_env=False, timeout=60).status_code == 404
        assert httpx.get(f"{node.url}/v1/tables/flights/rows/later", trust_env=False, timeout=60).text == "written"
        until("nothing is left of its views", lambda: not (tmp_path / "views" / "flights_then").exists())
        assert {row["state"] for row in _partitions(node)} == {"live"}


def test_a_table_whose_snapshot_is_lost_is_stopped_and_keeps_nobody_else_waiting(tmp_path):
    with running("dev", tmp_path, "--http", "127.0.0.1:0", "--readers", "1", "--workers", "1") as node:
        cli("table", "create", "whole", "--partitions", "1", LOGSTORE_DATA_DIR=str(tmp_path))
        make_table(node.bootstrap, name="lost", partitions=1, base={"snapshot": "00000000000001-deadbeef"})
        for pid in node.pids("workers"):
            os.kill(pid, signal.SIGKILL)
        until("it is said what is missing", lambda: any("deadbeef" in row["reason"] for row in _partitions(node)))
        states = {("whole", "live"), ("lost", "stopped")}
        until("the other is live", lambda: {(row["table"], row["state"]) for row in _partitions(node)} == states)
        until(
            "the node is ready all the same",
            lambda: httpx.get(f"{node.url}/readyz", trust_env=False, timeout=60).status_code == 200,
        )
        answer = httpx.get(f"{node.url}/v1/tables/lost/rows/k", trust_env=False, timeout=60)
        assert answer.json()["type"] == "urn:logstore:partition-stopped"
        assert "deadbeef" in answer.json()["detail"]


def _partitions(node):
    return httpx.get(f"{node.url}/v1/partitions", trust_env=False, timeout=60).json()["partitions"]


def _value(store, table, key):
    row = store.get(table, key, deadline_ms=20_000)
    return None if row is None else row.value


def test_a_restore_returns_when_readers_know_the_table_or_says_who_does_not(tmp_path, monkeypatch):
    with whole(tmp_path / "data") as store:
        table = store.create("source", "--partitions", "1")
        ctx = store.context()
        produce(ctx.bootstrap, table.topic, [(b"k", b"v")])
        position = token(table, {0: 1})
        stopped = [store.node.process.pid, *store.node.pids("readers")]  # the supervisor would start another reader
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            with monkeypatch.context() as impatient:
                impatient.setattr("batch.cli.restore.SERVED_S", 3.0)
                with pytest.raises(LogStoreError, match="not served by everybody after 3 s") as raised:
                    store.batch(impatient, cli_restore.restore, "source", "--at", position, "--as", "unheard", status=0)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        assert store.node.url in str(raised.value)
        until("the reader, which the supervisor may have started again, is well", lambda: _ready(store.node.url))
        for number in range(3):
            name = f"heard{number}"
            store.batch(monkeypatch, cli_restore.restore, "source", "--at", position, "--as", name, status=0)
            answer = httpx.get(f"{store.node.url}/v1/tables/{name}/rows/k", timeout=60)
            assert (answer.status_code, answer.content) == (200, b"v"), answer.text


def _ready(url):
    try:
        return httpx.get(f"{url}/readyz", timeout=60, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
