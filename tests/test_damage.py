"""A disk that goes bad under a running node: the damaged snapshot is brought again while the node goes on serving."""

import json
import shutil

import httpx
import pytest
from support_log import until
from support_store import cli, running

from logstore import Store

pytestmark = pytest.mark.integration
ROWS = 3_000


@pytest.mark.timeout(300)
def test_a_snapshot_that_a_reader_finds_damaged_is_brought_again(tmp_path):
    with running("dev", tmp_path, "--http", "127.0.0.1:0", "--readers", "2") as node:
        cli("table", "create", "t", "--partitions", "1", "--compression", "none", LOGSTORE_DATA_DIR=str(tmp_path))
        with Store(node.bootstrap, node.url) as store:
            store.put_many("t", [(f"k{n:05}", f"value {n:05} " * 20) for n in range(ROWS)])
            made = cli("batch", "compact", "t", "--wait", "60", "--json", LOGSTORE_DATA_DIR=str(tmp_path))
            assert json.loads(made.stdout)["entries"] == ROWS
        _damage(tmp_path)
        seen = set()

        def ask(number):
            answer = httpx.get(f"{node.url}/v1/tables/t/rows/k{number:05}", trust_env=False)
            if answer.status_code == 200:
                assert answer.text == f"value {number:05} " * 20  # never a wrong byte
            else:
                assert answer.json()["type"] == "urn:logstore:partition-stopped"
                seen.add(answer.status_code)
            return answer.status_code == 200

        def every():
            return all(ask(number) for number in range(0, ROWS, 40))

        until("a reader has come upon the damage", lambda: not every())
        until("every row is served again", every)
        until("the worker says so", lambda: [(row["partition"], row["state"]) for row in _shown(node)] == [(0, "adopted")])
        assert seen


def _shown(node):
    return httpx.get(f"{node.url}/v1/snapshots", trust_env=False).json()["snapshots"]


def _damage(data_dir):
    """Change bytes in the middle of the node's file in place, as a disk does; the storage keeps a sound copy."""
    (local,) = (data_dir / "snapshots").glob("t/*/0/*.files/*.sst")
    (stored,) = (data_dir / "storage").glob("t/*/snapshots/*/*.sst")
    sound = stored.with_suffix(".sound")
    shutil.copyfile(stored, sound)
    sound.replace(stored)  # no link to the node's any more
    with local.open("r+b") as file:
        file.seek(local.stat().st_size // 4)
        file.write(bytes(local.stat().st_size // 2))
