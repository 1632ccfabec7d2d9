"""A change of definitions beside a node that hangs: it holds when everybody serves it, and says who does not."""

import os
import signal
import subprocess
from contextlib import contextmanager

import httpx
import pytest
from support_log import until
from support_store import LOGSTORE, cli, running

from logstore.log.membership.live_workers import LiveWorkers


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    data = tmp_path_factory.mktemp("hung") / "data"
    with running("dev", data, "--http", "127.0.0.1:0", "--kafka-heap-mb", "256", "--readers", "1") as made:
        yield made


@contextmanager
def stopped(node, kind):
    """Processes of a kind hang, and the supervisor, which would start others."""
    pids = [node.process.pid, *node.pids(kind)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


def served(node, name):
    return httpx.get(f"{node.url}/v1/tables/{name}/rows/k", timeout=60, trust_env=False)


def ready(node):
    try:
        return httpx.get(f"{node.url}/readyz", timeout=10, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def answered(node, name):
    """The status of the next answer; None while the supervisor, which hung too, starts readers again."""
    try:
        return served(node, name).status_code
    except httpx.TransportError:
        return None


def made(node, name):
    data = str(node.data_dir)
    until("whoever hung before is well again", lambda: ready(node))
    cli("table", "create", name, "--partitions", "1", "--data-dir", data)
    cli("put", name, "k", "v", "--data-dir", data)
    until("the row is served", lambda: answered(node, name) == 200)


@pytest.mark.parametrize(
    ("kind", "says"), [("readers", "serves revision"), ("workers", "and their worker says nothing: end that node")]
)
def test_a_drop_does_not_hold_while_readers_of_a_hung_node_serve_the_table(node, kind, says):
    made(node, kind)
    with stopped(node, kind):
        if kind == "workers":
            until("nobody counts on it any more", lambda: not looked(node))
            assert served(node, kind).content == b"v"
        done = cli("table", "drop", kind, "--yes", "--timeout", "3", "--data-dir", str(node.data_dir), check=False)
        assert done.returncode != 0
        assert "not served by everybody after 3 s" in done.stderr
        assert says in done.stderr
        assert node.url in done.stderr
    until("it is dropped there too", lambda: answered(node, kind) == 404)


def test_a_drop_waits_for_a_node_that_goes_on_in_time(node):
    made(node, "waits")
    with stopped(node, "workers"):
        until("nobody counts on it any more", lambda: not looked(node))
        argv = [LOGSTORE, "table", "drop", "waits", "--yes", "--timeout", "120", "--data-dir", str(node.data_dir)]
        dropping = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        until("the definition is written", lambda: "waits" not in listed(node))
        assert served(node, "waits").content == b"v"
        assert dropping.poll() is None
    said, _ = dropping.communicate(timeout=150)
    assert dropping.returncode == 0, said
    until("it is dropped there too", lambda: answered(node, "waits") == 404)


def looked(node):
    with LiveWorkers(node.bootstrap) as live_workers:
        return live_workers.look()


def listed(node):
    return cli("table", "list", "--data-dir", str(node.data_dir)).stdout
