import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import pytest
from support_wait import until

from logstore.broker.embedded import EmbeddedKafka
from logstore.client.store import Store
from logstore.log.tables.ddl import create
from logstore.log.tables.registry import Registry
from logstore.model.errors import EpochChanged, LogTruncated, SetupError
from logstore.node.found_store import FoundStore
from logstore.node.node_dir import NodeDir
from logstore.node.port import Reservation
from logstore.settings import Address, Settings

LOOPBACK = Address("127.0.0.1", 0)

# A node whose children are small: they beat, and at SIGTERM they write down that they end, and when.
NODE = """
import sys
from pathlib import Path
from logstore.node.found_store import FoundStore
from logstore.node.node import Node
from logstore.settings import Settings, Address
from logstore.node.supervisor import Spec

child = '''
import os, signal, sys, time
def end(*_):
    print(sys.argv[3], file=open(sys.argv[2], "a"), flush=True)
    time.sleep(float(sys.argv[4]))
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print(sys.argv[3], file=open(sys.argv[2] + "-up", "a"), flush=True)
while True:
    os.write(int(sys.argv[1]), b".")
    time.sleep(0.02)
'''
data, bootstrap, linger = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def children(node):
    def spec(name):
        return Spec(name, lambda fd: [sys.executable, "-c", child, str(fd), str(data / "ended"), name, linger])
    return [spec("worker-0"), spec("reader-0"), spec("reader-1")]
settings = Settings(data_dir=data, bootstrap=bootstrap, http=Address("127.0.0.1", 0), drain_s=20)
Node(settings, commands=children).run(print)
"""


@pytest.fixture
def run() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts processes, and ends those that are left."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*argv: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate(timeout=90)


def recorded(data: Path, children: int = 3) -> dict[str, Any] | None:
    """What a node wrote of itself, once all its children run."""
    path = data / "run" / "node.json"
    found: dict[str, Any] | None = orjson.loads(path.read_bytes()) if path.exists() else None
    return found if found and len(found["workers"]) + len(found["readers"]) == children else None


def small_node(
    run: Any, data: Path, kafka: EmbeddedKafka, linger_s: float = 0
) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    process = run("-c", NODE, str(data), kafka.bootstrap, str(linger_s))
    up = data / "ended-up"
    until("children can be ended in order", lambda: up.exists() and len(up.read_text().split()) == 3)
    up.unlink()
    return process, until("children are recorded", lambda: recorded(data))


# The port


def test_a_port_is_known_at_once_and_shared_by_readers_only():
    reservation = Reservation(LOOPBACK)
    assert reservation.address.port > 0
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reader.bind(reservation.address)
        reader.listen()
        with socket.create_connection(reservation.address, 60):
            reader.accept()[0].close()
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(reservation.address)
    reservation.close()


@pytest.mark.parametrize("share", [False, True])
def test_a_port_that_is_taken_names_itself_and_who_has_it(share, monkeypatch):
    monkeypatch.setattr("logstore.node.port.PATIENCE_S", 0.2)
    with socket.socket() as other:
        if share:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(LOOPBACK)
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            SetupError, match=rf"port {port} of 127.0.0.1 is taken by the process {os.getpid()}.*--http"
        ):
            Reservation(Address("127.0.0.1", port))


def test_an_address_that_is_none_of_ours_says_what_to_give():
    with pytest.raises(SetupError, match=r"cannot serve on 192\.0\.2\.1:0.*--http"):
        Reservation(Address("192.0.2.1", 0))


# The directory


def test_a_data_directory_has_one_node_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("logstore.process.dir_lock.WAIT_S", 0.1)
    with NodeDir(tmp_path).lock():
        with pytest.raises(SetupError, match=rf"already \(process {os.getpid()}\)"), NodeDir(tmp_path).lock():
            pass
        assert NodeDir(tmp_path).running() is None  # it has not said anything yet
        NodeDir(tmp_path).record({"node": 1})
        assert NodeDir(tmp_path).running() == {"node": 1}
    assert NodeDir(tmp_path).running() is None  # what a dead node left behind is not believed
    with NodeDir(tmp_path).lock():
        assert NodeDir(tmp_path).running() is None


def test_a_nodes_name_is_made_once(tmp_path):
    first = NodeDir(tmp_path).node_id()
    assert len(first) == 12
    assert NodeDir(tmp_path).node_id() == first


@pytest.mark.parametrize("damaged", [b"", b"\n", b"0123456789a", b"\0" * 12, b"\xff" * 12, b"0123456789abcdef"])
def test_a_name_that_is_damaged_is_made_anew(tmp_path, damaged, caplog):
    (tmp_path / "node_id").write_bytes(damaged)
    made = NodeDir(tmp_path).node_id()
    assert len(made) == 12
    assert NodeDir(tmp_path).node_id() == made
    assert caplog.text.count("is damaged") == 1


def test_a_directory_that_cannot_be_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SetupError, match=r"cannot use the data directory .*--data-dir"),
        NodeDir(tmp_path / "file").lock(),
    ):
        pass


def test_a_store_that_lost_its_definitions_is_refused(tmp_path, kafka):
    registry, home = Registry(kafka.bootstrap), NodeDir(tmp_path)
    registry.ensure_store()
    home.check_store(registry)
    home.check_store(registry)
    sound = orjson.loads((tmp_path / "store.json").read_bytes())

    (tmp_path / "store.json").write_bytes(orjson.dumps({**sound, "topic_id": "0" * 32}))
    with pytest.raises(EpochChanged, match="was created again, or this is another Kafka"):
        home.check_store(registry)

    (tmp_path / "store.json").write_bytes(orjson.dumps({**sound, "revision": 10**6}))
    with pytest.raises(LogTruncated, match=r"ends at .* read up to 1,000,000"):
        home.check_store(registry)

    (tmp_path / "store.json").write_bytes(orjson.dumps(sound))
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "0.json").write_bytes(orjson.dumps({"tables": {**sound, "revision": 10**6}}))
    with pytest.raises(LogTruncated):  # a worker has read on since
        home.check_store(registry)

    for damaged in (
        b"",
        b"{",
        b"[]",
        b'{"views":[]}',
        b'{"tables":{"topic_id":"x"}}',
        b"\0" * 512,
    ):  # a power cut, without fsync
        (tmp_path / "workers" / "0.json").write_bytes(damaged)
        (tmp_path / "store.json").write_bytes(orjson.dumps(sound))
        home.check_store(registry)

    (tmp_path / "store.json").write_text("{")
    with pytest.raises(SetupError, match=r"store.json is damaged"):
        home.check_store(registry)


# The process


def test_workers_end_before_readers_so_that_no_read_fails(run, tmp_path, kafka):
    process, _ = small_node(run, tmp_path, kafka, linger_s=0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(90) == 0
    ended = (tmp_path / "ended").read_text().split()
    assert ended[0] == "worker-0"
    assert sorted(ended[1:]) == ["reader-0", "reader-1"]
    assert not (tmp_path / "run" / "node.json").exists()


def test_a_second_signal_does_not_wait(run, tmp_path, kafka):
    process, facts = small_node(run, tmp_path, kafka, linger_s=600)
    process.send_signal(signal.SIGINT)
    until("the first signal arrives", (tmp_path / "ended").exists)
    process.send_signal(signal.SIGINT)
    assert process.wait(90) == 0
    assert not any(psutil.pid_exists(pid) for pid in (*facts["workers"], *facts["readers"]))


def test_a_killed_child_is_replaced_and_the_record_says_so(run, tmp_path, kafka):
    process, before = small_node(run, tmp_path, kafka)
    os.kill(before["readers"][0], signal.SIGKILL)
    after = until(
        "another reader", lambda: (found := recorded(tmp_path)) and found["readers"] != before["readers"] and found
    )
    assert after["workers"] == before["workers"]
    assert after["readers"][1] == before["readers"][1]
    assert process.poll() is None


def test_a_killed_node_leaves_nothing_and_its_directory_is_free_at_once(run, tmp_path, kafka):
    process, facts = small_node(run, tmp_path, kafka)
    children = [psutil.Process(pid) for pid in (*facts["workers"], *facts["readers"])]
    process.kill()
    process.wait(90)
    again, facts_again = small_node(run, tmp_path, kafka)
    assert facts_again["node_id"] == facts["node_id"]
    assert facts_again["node"] == again.pid
    assert psutil.wait_procs(children, timeout=60)[1] == []


@pytest.mark.slow
def test_a_fresh_node_without_kafka_says_so_and_waits_until_it_is_told_to_end(run, tmp_path):
    process = run(
        "-m",
        "logstore.cli.main",
        "node",
        "--bootstrap",
        "127.0.0.1:1",
        "--data-dir",
        str(tmp_path),
        "--http",
        "127.0.0.1:0",
    )
    for _ in range(2):  # said again while it goes on asking
        assert b"Kafka does not answer at 127.0.0.1:1; is the broker running" in process.stderr.readline()
    assert process.poll() is None
    process.terminate()
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, b"")


@pytest.mark.slow
def test_two_nodes_share_the_slots_and_hand_over_without_a_failed_read(run, tmp_path):
    with EmbeddedKafka(tmp_path / "kafka", heap_mb=256) as kafka:
        registry = Registry(kafka.bootstrap)
        registry.ensure_store()
        create(registry, "rows", partitions=4)

        def node(name: str) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
            process = run(
                "-m", "logstore.cli.main", "node", "--bootstrap", kafka.bootstrap, "--data-dir", str(tmp_path / name),
                "--http", "127.0.0.1:0", "--readers", "1", "--storage", "file:///somewhere",
            )  # fmt: skip
            assert process.stdout is not None
            return process, orjson.loads(process.stdout.readline())

        def slots(url: str) -> dict[str, list[int]]:
            return {
                n["node"]: n["live"]
                for n in httpx.get(f"{url}/v1/cluster", trust_env=False, timeout=60).json()["nodes"]
            }

        _, first = node("a")
        assert first["ready"]
        assert registry.read().storage == "file:///somewhere"
        with Store(kafka.bootstrap, first["http"]) as store:
            keys = [f"key-{i}" for i in range(200)]
            written = store.put_many("rows", [(key, key) for key in keys])
            assert all(store.get_many("rows", keys, after=written, deadline_ms=20_000))

            process, second = node("b")
            until("the slots are shared", lambda: sorted(len(live) for live in slots(first["http"]).values()) == [8, 8])
            both = slots(first["http"])
            assert sorted(both[first["node_id"]] + both[second["node_id"]]) == list(range(16))
            for key in keys:
                assert store.get("rows", key, deadline_ms=20_000).value == key.encode()

            process.send_signal(signal.SIGTERM)
            reads = 0
            while process.poll() is None or reads < 200:
                row = store.get("rows", keys[reads % 200], deadline_ms=20_000)
                assert row is not None
                assert row.value == keys[reads % 200].encode()
                reads += 1
            assert process.returncode == 0
            print(f"{reads} reads during the handover")
            until("all slots are back", lambda: slots(first["http"]).get(first["node_id"]) == list(range(16)))
            assert [
                row and row.value.decode() for row in store.get_many("rows", keys, after=written, deadline_ms=20_000)
            ] == keys


@pytest.mark.slow
def test_the_first_node_records_where_the_storage_lies_and_only_a_flag_moves_it(tmp_path):
    with EmbeddedKafka(tmp_path / "kafka", heap_mb=256) as kafka:
        registry = Registry(kafka.bootstrap)
        registry.ensure_store()
        said: list[str] = []
        for name, storage, recorded in (
            ("a", None, f"file://{tmp_path}/a/storage"),
            ("b", None, f"file://{tmp_path}/a/storage"),
            ("c", "s3://bucket/store", "s3://bucket/store"),
        ):
            settings = Settings(data_dir=tmp_path / name, storage=storage)
            FoundStore(kafka.bootstrap, settings, NodeDir(settings.data_dir), said.append)._settle_storage(registry)
            assert registry.read().storage == recorded
        (moved,) = said
        assert f"from file://{tmp_path}/a/storage to s3://bucket/store" in moved
