"""A disk that goes bad under a node.

What it damaged is brought or built again by itself while the node goes on serving.
"""

import json
import shutil
import threading
from contextlib import contextmanager

import httpx
from support_log import until
from support_store import cli, running
from support_view import truncate, used_bytes, zero_root

from logstore import Store
from logstore.model.partitioner import partition_of

ROWS = 3_000
# One for all: a context of its own for every question takes longer than the answer.
_client = httpx.Client(trust_env=False, timeout=60)


def test_a_snapshot_that_a_reader_finds_damaged_is_brought_again(tmp_path):
    with running("dev", tmp_path, "--http", "127.0.0.1:0", "--readers", "2") as node:
        cli("table", "create", "t", "--partitions", "1", "--compression", "none", LOGSTORE_DATA_DIR=str(tmp_path))
        with Store(node.bootstrap, node.url) as store:
            store.put_many("t", [(f"k{n:05}", f"value {n:05} " * 20) for n in range(ROWS)])
            made = cli("batch", "compact", "t", "--wait", "60", "--json", LOGSTORE_DATA_DIR=str(tmp_path))
            assert json.loads(made.stdout)["entries"] == ROWS
        damaged = _damage(tmp_path)
        inode = _inode(damaged)
        seen = set()

        def ask(number):
            answer = httpx.get(f"{node.url}/v1/tables/t/rows/k{number:05}", trust_env=False, timeout=60)
            if answer.status_code == 200:
                assert answer.text == f"value {number:05} " * 20  # never a wrong byte
            else:
                seen.add(answer.json()["type"])
            return answer.status_code == 200

        def every():
            return all(ask(number) for number in range(0, ROWS, 40))

        until("somebody has come upon the damage", lambda: not every() or _inode(damaged) not in (None, inode))
        if not seen:  # the worker was first: it looks once after it has adopted
            _damage(tmp_path)
            until("a reader has come upon the damage", lambda: not every())
        until("every row is served again", every, timeout_s=150)
        until(
            "the worker says so", lambda: [(row["partition"], row["state"]) for row in _shown(node)] == [(0, "adopted")]
        )
        assert "urn:logstore:partition-stopped" in seen
        assert seen <= {"urn:logstore:partition-stopped", "urn:logstore:starting"}  # while its files are exchanged


def test_a_view_that_is_damaged_is_built_again_and_the_other_partition_answers_all_along(tmp_path):
    with running("dev", tmp_path, "--http", "127.0.0.1:0", "--readers", "2") as node:
        rows = _two_partitions(tmp_path, node)
        other = [key for key in rows if partition_of(key.encode(), 2) == 0]
        with _asking(node, other) as failed:
            zero_root(_view(tmp_path, 1))
            until(
                "readers have come upon the damage",
                lambda: _get(node, next(key for key in rows if key not in other)) is None,
            )
            node.kill_one("workers")
            until("every row is served again", lambda: all(_get(node, key) == rows[key] for key in rows))
        assert failed == []
        assert "is damaged" in (tmp_path / "logs" / "worker-0.log").read_text()


def test_a_view_that_was_cut_short_while_the_node_was_down_is_built_again(tmp_path):
    with running("dev", tmp_path, "--http", "127.0.0.1:0", "--readers", "2") as node:
        rows = _two_partitions(tmp_path, node)
        assert node.stop() == 0
    truncate(_view(tmp_path, 1), used_bytes(_view(tmp_path, 1)) // 2)
    with running("dev", tmp_path, "--http", "127.0.0.1:0", "--readers", "2") as node:
        readers = node.pids("readers")
        until("every row is served again", lambda: all(_get(node, key) == rows[key] for key in rows))
        assert node.pids("readers") == readers


def _two_partitions(data_dir, node):
    cli("table", "create", "t", "--partitions", "2", LOGSTORE_DATA_DIR=str(data_dir))
    rows = {f"k{n:04}": f"value {n:04} " * 20 for n in range(500)}
    with Store(node.bootstrap, node.url) as store:
        store.put_many("t", list(rows.items()))
    until("every row is served", lambda: all(_get(node, key) == rows[key] for key in rows))
    return rows


def _get(node, key):
    """The value; None when it is not answered now, or the view that is built again has not come so far."""
    answer = _answer(node, key)
    assert answer.status_code in (200, 404, 503), answer.text
    return answer.text if answer.status_code == 200 else None


def _answer(node, key):
    return _client.get(f"{node.url}/v1/tables/t/rows/{key}")


@contextmanager
def _asking(node, keys):
    """Ask for these rows all the while; what is not answered is listed."""
    failed, done = [], threading.Event()

    def ask():
        while not done.is_set():
            failed.extend(answer.text for key in keys[:20] if (answer := _answer(node, key)).status_code != 200)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield failed
    finally:
        done.set()
        thread.join(90)


def _view(data_dir, partition):
    (found,) = (data_dir / "views").glob(f"t/*/{partition}/1")
    return found


def _shown(node):
    return httpx.get(f"{node.url}/v1/snapshots", trust_env=False, timeout=60).json()["snapshots"]


def _damage(data_dir):
    """Change bytes in the middle of the node's file in place, as a disk does.

    The storage keeps a sound copy. Returns the node's file.
    """
    (local,) = (data_dir / "snapshots").glob("t/*/0/*.files/*.sst")
    (stored,) = (data_dir / "storage").glob("t/*/snapshots/*/*.sst")
    sound = stored.with_suffix(".sound")
    shutil.copyfile(stored, sound)
    sound.replace(stored)  # no link to the node's any more
    with local.open("r+b") as file:
        file.seek(local.stat().st_size // 4)
        file.write(bytes(local.stat().st_size // 2))
    return local


def _inode(path):
    """Which file it is; None while there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
