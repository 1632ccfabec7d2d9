"""`logstore worker` and `logstore reader`: the processes of a node, each looked after by somebody else."""

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner
from support_free_port import free_port
from support_store import LOGSTORE
from support_wait import until
from support_worker import make_table

from logstore import Store
from logstore.cli.main import cli
from logstore.model.errors import SetupError
from logstore.node import port
from logstore.node.node_dir import NodeDir
from logstore.process import child
from logstore.process.dir_lock import DirLock
from logstore.process.heartbeat import Heartbeat
from logstore.settings import Address


class Single:
    """One of the two commands, in a process of its own."""

    def __init__(self, what: str, data: Path, *options: str) -> None:
        self._err = data.with_suffix(f".{what}.err")
        with self._err.open("ab") as err:
            argv = [LOGSTORE, what, "--data-dir", str(data), *options]
            self.process = subprocess.Popen(child.command(argv), stdout=subprocess.PIPE, stderr=err)

    def ready(self) -> dict:
        """What it prints when it is ready."""
        line = self.process.stdout.readline()
        assert line, self.said()
        return orjson.loads(line)

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.ended()

    def ended(self) -> int:
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self.process.stdout.close()

    def said(self) -> str:
        return self._err.read_text()


@pytest.fixture
def single():
    started = []

    def start(*argv):
        started.append(Single(*argv))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait(90)
        one.process.stdout.close()
        print(one.said())


@pytest.mark.slow
def test_a_worker_and_a_reader_are_a_node_and_each_may_be_killed(kafka, tmp_path, single):
    data, address = tmp_path / "data", f"127.0.0.1:{free_port()}"
    both = ("--http", address, "--readers", "1")
    to_kafka = ("--bootstrap", kafka.bootstrap, "--group", f"single-{os.getpid()}-{data.parent.name}")
    table = make_table(kafka.bootstrap)
    worker, reader = single("worker", data, *both, *to_kafka), single("reader", data, *both)
    said = worker.ready()
    assert (said["worker"], said["http"], len(said["slots"])) == (0, f"http://{address}", 16)
    assert reader.ready()["node_id"] == said["node_id"]
    with Store(kafka.bootstrap, f"http://{address}") as store:

        def reads(key):
            position = store.put(table.name, key, b"of " + key)
            return store.get(table.name, key, after=position, deadline_ms=30_000).value == b"of " + key

        assert reads(b"first")
        reader.end(signal.SIGKILL)
        reader = single("reader", data, *both)
        reader.ready()
        worker.end(signal.SIGKILL)
        assert store.get(table.name, b"first").value == b"of first"  # nobody asked the worker
        worker = single("worker", data, *both, *to_kafka)
        worker.ready()
        assert reads(b"second")
    assert [worker.end(signal.SIGTERM), reader.end(signal.SIGTERM)] == [0, 0]
    with NodeDir(data).lock():
        pass  # nobody holds on to it


@pytest.mark.slow
def test_processes_of_one_name_and_nodes_beside_them_are_refused(kafka, tmp_path, single):
    data, address = tmp_path / "data", f"127.0.0.1:{free_port()}"
    with NodeDir(data).lock():
        beside_a_node = single("reader", data, "--http", address)
        assert beside_a_node.ended() == 1
    assert f"a node runs on {data} already (process {os.getpid()})" in beside_a_node.said()
    with NodeDir(data).share("reader-0", lambda: None):
        again, other = (
            single("reader", data, "--http", address),
            single("reader", data, "--http", address, "--index", "1"),
        )
        assert again.ended() == 1
        assert f"reader-0 runs on {data} already (process {os.getpid()})" in again.said()
        until("the other one listens", lambda: other.process.pid in port._listeners(int(address.split(":")[1])))
        with pytest.raises(SetupError, match="a worker or reader of its own runs"), NodeDir(data).lock():
            pass
        assert other.end(signal.SIGTERM) == 0


def test_a_signal_ends_a_worker_that_waits_for_kafka(tmp_path, single):
    worker = single("worker", tmp_path / "data", "--bootstrap", f"127.0.0.1:{free_port()}")
    until("it waits", lambda: "Kafka does not answer" in worker.said())
    assert worker.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["worker", "--index", "1", "--bootstrap", "127.0.0.1:1"], "this node has 1 workers, --index is 0 to 0"),
        (["reader", "--index", "2"], "this node has 2 readers, --index is 0 to 1"),
        (["worker"], "a worker needs Kafka's address: --bootstrap"),
        (["reader", "--http", "127.0.0.1:0"], "give --http HOST:PORT, and no port 0"),
        (["reader", "--http", "0.0.0.0:8480"], "--insecure"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(argv, said, tmp_path):
    done = CliRunner().invoke(cli, [*argv, "--data-dir", str(tmp_path / "data")])
    assert said in str(done.exception)
    assert not (tmp_path / "data").exists()


def test_processes_that_see_other_process_ids_are_refused(tmp_path):
    lock = DirLock(tmp_path / "node.lock")
    with (
        lock.share("shared 1", str, lambda: None),
        pytest.raises(SetupError, match="namespace of process ids"),
        NodeDir(tmp_path).share("reader-0", lambda: None),
    ):
        pass


def test_the_first_of_those_who_share_a_lock_begins_alone(tmp_path):
    lock, begun = DirLock(tmp_path / "x.lock"), []
    with contextlib.ExitStack() as stack:
        for name in ("a", "b", "c"):
            stack.enter_context(lock.share("same", str, lambda name=name: begun.append(name)))
        assert (begun, lock.holder()) == (["a"], None)
    with lock.hold(str) as fd:
        lock.write(fd, "17 alone")
        assert lock.holder() == "17 alone"
    with lock.share("other", str, lambda: begun.append("d")):
        assert begun == ["a", "d"]


def test_a_stranger_on_the_port_is_named():
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(SetupError, match=f"is taken by the process {os.getpid()}"):
            port.check_shared(address, set)
        port.check_shared(address, lambda: {os.getpid()})


def test_systemd_hears_that_a_process_runs_and_progresses(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        heartbeat = Heartbeat(None)
        assert "NOTIFY_SOCKET" not in os.environ  # a child is not the service
        assert heartbeat.environ == {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        for _ in range(3):
            heartbeat.beat()
        assert [manager.recv(64) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    (tmp_path / "notify").unlink()
    heartbeat.beat()  # nobody hears it, and nothing happens
    Heartbeat(None).beat()
