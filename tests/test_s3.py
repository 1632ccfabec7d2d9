"""Both paths with archive and snapshots on S3 instead of a disk: compact, adopt, begin an empty node, restore."""

import json

from support_batch import commands
from support_s3 import BUCKET, s3_server
from support_store import cli, running

from logstore import Store

ROWS = 500


def test_a_store_keeps_its_snapshots_in_s3(tmp_path):
    url = f"s3://{BUCKET}/store"
    with (
        s3_server(),
        running("dev", tmp_path / "one", "--http", "127.0.0.1:0", "--storage", url, "--readers", "1") as node,
        commands(tmp_path / "one", "one", "spark") as batch,
    ):
        cli("table", "create", "t", "--partitions", "2", LOGSTORE_DATA_DIR=str(tmp_path / "one"))
        with Store(node.bootstrap, node.url) as store:
            position = store.put_many("t", [(f"k{n:04}", f"v{n}") for n in range(ROWS)])
            made = batch.json("compact", "t", "--wait", "100")
            assert store.get("t", "k0007", after=position, deadline_ms=20_000).source == "snapshot"
            store.put_many("t", [("k0001", "new"), ("k0002", None)])
            newer = batch.json("compact", "t", "--wait", "100")  # reads the one before from S3
            assert batch.json("archive", "t", "--verify")["records"] >= ROWS
            assert (
                batch.json("restore", "t", "--at", position.token, "--as", "then", "--wait", "100")["entries"] == ROWS
            )
            assert store.get("then", "k0002", deadline_ms=20_000).value == b"v2"
        assert not (tmp_path / "one" / "storage").exists()
        listed = json.loads(cli("snapshot", "list", "t", "--json", LOGSTORE_DATA_DIR=str(tmp_path / "one")).stdout)
        assert [one["name"] for one in listed["snapshots"]] == [made["snapshot"], newer["snapshot"]]
        options = ("--bootstrap", node.bootstrap, "--group", "other", "--http", "127.0.0.1:0", "--fetch-mb-s", "50")
        with running("node", tmp_path / "two", *options) as fresh, Store(node.bootstrap, fresh.url) as store:
            assert store.get("t", "k0007", deadline_ms=20_000).source == "snapshot"
            assert store.get("t", "k0001", deadline_ms=20_000).value == b"new"
            assert len(list(store.scan("t", deadline_ms=20_000))) == ROWS - 1
