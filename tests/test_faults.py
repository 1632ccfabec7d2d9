"""Faults, end to end, on a real store.

Kafka gone or stuck, a full disk, topics deleted, killed readers.
"""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from support_faults import addresses, await_no_lag, create, get, key_of, standing_of
from support_log import until
from support_store import LOGSTORE, Running, cli, running
from support_worker import Watch, make_table

from logstore import Store
from logstore.broker.embedded import EmbeddedKafka
from logstore.log import topics
from logstore.log.kafka.clients import admin
from logstore.model.errors import Unknown, WriteFailed
from logstore.model.position import Position
from logstore.model.table import TABLES_TOPIC
from logstore.process.heartbeat import HOPELESS
from logstore.view.reader import ViewReader

PAUSE_S = 8.0


# Kafka is gone, or does not answer


class Reads(threading.Thread):
    """Eventual reads of one row, one after the other, as a client that tries another connection when one breaks."""

    def __init__(self, url: str, table: str, key: str, value: str) -> None:
        super().__init__(daemon=True)
        self._path, self._value = f"{url}/v1/tables/{table}/rows/{key}", value
        self.running, self.count, self.wrong, self.longest_s = True, 0, [], 0.0

    def run(self) -> None:
        with httpx.Client(trust_env=False, timeout=60, transport=httpx.HTTPTransport(retries=3)) as client:
            while self.running:
                began_s = time.monotonic()
                answer = client.get(self._path)
                self.longest_s = max(self.longest_s, time.monotonic() - began_s)
                self.count += 1
                if (answer.status_code, answer.text) != (200, self._value):
                    self.wrong.append(f"{answer.status_code} {answer.text[:200]}")


@contextmanager
def _reading(store: Running, table: str, key: str, value: str) -> Iterator[Reads]:
    reads = Reads(store.url, table, key, value)
    reads.start()
    try:
        yield reads
        until("reads have gone on", lambda: reads.count > 100 or not reads.is_alive())
    finally:
        reads.running = False
        reads.join(90)
    assert reads.wrong == []
    assert reads.count > 100
    print(f"{reads.count} reads, the longest {reads.longest_s:.3f} s")


def _kafka_pid(store: Running) -> int:
    pid: Any = store.pids("kafka")
    return int(pid)


def _assert_levels_hold(store: Running, table: str, first: Position) -> None:
    """While nothing comes from Kafka.

    What is applied is served; what is not is refused in time, and never answered by less.
    """
    path = f"/v1/tables/{table}/rows/k"
    assert get(store.url, path, token=first.token).text == "before"
    head, _, following = first.token.rpartition("-")
    began_s = time.monotonic()
    refused = get(store.url, path, token=f"{head}-{int(following) + 1000}", deadline_ms=700)
    assert time.monotonic() - began_s < 25  # without its deadline: 30 s
    if refused.status_code == 503:  # the reader has heard by then that the log does not answer
        assert refused.json()["type"] == "urn:logstore:log-unreachable", refused.text
    else:
        assert (refused.status_code, "after 700 ms" in refused.text) == (504, True), refused.text


def _put_over_http(store: Running, table: str, key: str, deadline_ms: int = 500) -> httpx.Response:
    """A write of the time without Kafka: refused, or unknown, in time; never answered as if it were in the log."""
    answer = httpx.put(
        f"{store.url}/v1/tables/{table}/rows/{key}", content=b"v", params={"deadline_ms": deadline_ms},
        trust_env=False, timeout=40,
    )  # fmt: skip
    if answer.status_code == 503:
        assert answer.json()["type"] == "urn:logstore:log-unreachable", answer.text
    elif answer.status_code == 202:
        assert (answer.json()["outcome"], answer.json()["offset"]) == ("unknown", None), answer.text
    else:
        assert (deadline_ms, answer.status_code) == (30_000, 200), answer.text
    return answer


def _outcomes(pending: list[Any]) -> dict[int, Position]:
    """The writes that were acknowledged; all others must say that they failed, or that it is not known."""
    acknowledged = {}
    for number, one in enumerate(pending):
        try:
            acknowledged[number] = one.result(60)
        except (WriteFailed, Unknown) as error:
            print(f"write {number}: {error!r}")
    return acknowledged


@pytest.mark.parametrize("fault", ["killed", "paused"])
def test_kafka_is_gone_for_a_while_and_reads_go_on(fault_store, fault_table, fault):
    with Store(fault_store.bootstrap, fault_store.url, delivery_timeout_s=60) as client:
        first = client.put(fault_table, "k", "before")
        until("it is read", lambda: client.get(fault_table, "k", after=first, deadline_ms=30_000).value == b"before")
        with _reading(fault_store, fault_table, "k", "before"):
            pid, ends_s = _kafka_pid(fault_store), time.monotonic() + PAUSE_S
            os.kill(pid, signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
            try:
                pipe = client.pipeline(fault_table)
                pending = [pipe.put(f"n{n}", str(n)) for n in range(20)]
                _assert_levels_hold(fault_store, fault_table, first)
                over_http = [_put_over_http(fault_store, fault_table, f"h{n}") for n in range(3)]
                until("the fault has lasted", lambda: fault == "killed" or time.monotonic() > ends_s)
            finally:
                if fault == "paused":
                    os.kill(pid, signal.SIGCONT)
            acknowledged = _outcomes(pending)
            print(f"{len(acknowledged)} of {len(pending)} writes of the time without Kafka are acknowledged")
            last = client.put(fault_table, "last", "after")
            until("it is read", lambda: client.get(fault_table, "last", after=last, deadline_ms=30_000))
            await_no_lag(fault_store, fault_table)
            assert _put_over_http(fault_store, fault_table, "h", deadline_ms=30_000).status_code == 200
        for n, answer in enumerate(over_http):  # refused ones are certainly not there
            unwritten = client.get(fault_table, f"h{n}", consistency="latest", deadline_ms=30_000) is None
            assert unwritten or answer.status_code == 202, answer.text
        for number, position in acknowledged.items():
            assert client.get(fault_table, f"n{number}", after=position).value == b"%d" % number


def test_processes_that_are_killed_while_kafka_is_away_serve_what_they_have(tmp_path):
    with _apart(tmp_path) as (kafka, node):
        table = create(node, "t")
        with Store(kafka.bootstrap, node.url) as client:
            first = client.put(table, "k", "v")
            until("it is read", lambda: client.get(table, "k", after=first, deadline_ms=30_000).value == b"v")
        kafka.kill()
        node.kill_one("readers")
        until("the new reader answers", lambda: _answer(node.url, table) == (200, "v"))
        os.kill(node.pids("workers")[0], signal.SIGKILL)
        for _ in range(50):
            assert _answer(node.url, table) == (200, "v")
        node.kill_one("readers")
        until("a reader answers without a worker", lambda: _answer(node.url, table) == (200, "v"))
        kafka.restart()
        with Store(kafka.bootstrap, node.url) as client:
            last = client.put(table, "k", "w")
            until("it is read", lambda: _answer(node.url, table, last) == (200, "w"))
        await_no_lag(node, table)


@contextmanager
def _apart(directory: Path) -> Iterator[tuple[EmbeddedKafka, Running]]:
    """A broker that nobody starts again, and a node that follows it."""
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedKafka(directory / "kafka", heap_mb=256))
        options = ("--bootstrap", broker.bootstrap, "--http", "127.0.0.1:0", "--readers", "1")
        yield broker, stack.enter_context(running("node", directory / "node", *options))


def _answer(url: str, table: str, after: Position | None = None) -> tuple[int, str] | None:
    try:
        answer = get(
            url, f"/v1/tables/{table}/rows/k", **({"token": after.token, "deadline_ms": 1000} if after else {})
        )
    except httpx.TransportError:
        return None
    return answer.status_code, answer.text


# The disk is full


SMALL_DISK = (
    'mount -t tmpfs -o size=40m tmpfs "$0" && exec "$@"'  # in a mount namespace of the node's own: gone with it
)


@contextmanager
def _on_small_disk(store: Running, disk: Path, bootstrap: str) -> Iterator[tuple[Running, Path]]:
    """A node whose data directory is a disk of 40 MB, and that directory as it is seen from outside."""
    disk.mkdir()
    options = (
        "--bootstrap",
        bootstrap,
        "--http",
        "127.0.0.1:0",
        "--group",
        f"disk-{random.SystemRandom().randrange(1 << 32):x}",
    )
    within = ("unshare", "--map-root-user", "--mount", "sh", "-c", SMALL_DISK, str(disk))
    with running("node", disk / "data", *options, within=within) as node:
        node.data_dir = Path(f"/proc/{node.process.pid}/root{node.data_dir}")
        yield node, node.data_dir.parent


def _fill(balloon: Path) -> None:
    with balloon.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_a_full_disk_holds_the_views_up_and_nothing_else(fault_store, fault_table, tmp_path):
    values = {f"big{n}": random.Random(n).randbytes(100_000) for n in range(40)}
    with (
        Store(fault_store.bootstrap) as writer,
        _on_small_disk(fault_store, tmp_path / "disk", fault_store.bootstrap) as (node, disk),
    ):
        first = writer.put(fault_table, "k", "v")
        until("it is read", lambda: _answer(node.url, fault_table, first) == (200, "v"))
        children = node.pids("workers") + node.pids("readers")
        with _reading(node, fault_table, "k", "v"):
            _fill(disk / "balloon")
            position = writer.put_many(fault_table, values.items())
            until(
                "a reason is shown",
                lambda: any("disk is full" in standing_of(node, fault_table, p)["reason"] for p in (0, 1)),
            )
            until("lag is shown", lambda: sum(standing_of(node, fault_table, p)["lag"] or 0 for p in (0, 1)) > 0)
            shown = cli("status", LOGSTORE_URL=node.url)
            assert "disk is full" in " ".join(shown.stdout.split()), shown.stdout
            refused = get(node.url, f"/v1/tables/{fault_table}/rows/k", token=position.token, deadline_ms=500)
            assert refused.status_code == 504
            new = make_table(fault_store.bootstrap)
            with closing(Watch(node.data_dir)) as watch:
                assert "disk is full" in watch.state(new, 0, "catching-up").reason
        assert node.pids("workers") + node.pids("readers") == children
        _kill_on_full_disk(node, fault_table)
        (disk / "balloon").unlink()
        for name in (fault_table, new.name):
            await_no_lag(node, name)
        with Store(fault_store.bootstrap, node.url) as client:
            for key, value in values.items():
                assert client.get(fault_table, key, after=position, deadline_ms=10_000).value == value
        assert "SIGBUS" not in node.log()


def _kill_on_full_disk(node: Running, table: str) -> None:
    """What is there is served by the processes that come after, too."""
    killed = [psutil.Process(pid) for pid in node.pids("workers") + node.pids("readers")]
    for process in killed:
        process.kill()
    psutil.wait_procs(killed, timeout=60)
    until("the next ones serve it", lambda: _answer(node.url, table) == (200, "v"))
    until(
        "they say why they wait", lambda: any("disk is full" in standing_of(node, table, p)["reason"] for p in (0, 1))
    )


def test_a_node_that_can_write_nothing_says_so(tmp_path):
    argv = [
        "prlimit",
        "--fsize=0",
        LOGSTORE,
        "node",
        "--bootstrap",
        "127.0.0.1:1",
        "--http",
        "127.0.0.1:0",
        "--data-dir",
        str(tmp_path),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert re.search(r"cannot write .*node\.lock: File too large; .*--data-dir", done.stderr), done.stderr
    assert "Traceback" not in done.stderr


# Topics vanish


def test_a_deleted_topic_stops_its_table_and_no_other(fault_store, fault_table):
    other = create(fault_store, f"{fault_table}-other")
    with Store(fault_store.bootstrap, fault_store.url) as client:
        client.put(fault_table, "k", "v")
        topics.delete(admin(fault_store.bootstrap), fault_table)
        until("it stops", lambda: standing_of(fault_store, fault_table, 0)["state"] == "stopped")
        assert "logstore table drop" in standing_of(fault_store, fault_table, 0)["reason"]
        refused = get(fault_store.url, f"/v1/tables/{fault_table}/rows/k")
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:logstore:partition-stopped")
        assert client.get(other, "k", after=client.put(other, "k", "v"), deadline_ms=30_000).value == b"v"
    cli("table", "drop", fault_table, "--yes", **addresses(fault_store))
    until(
        "it is no table any more", lambda: get(fault_store.url, f"/v1/tables/{fault_table}/rows/k").status_code == 404
    )


@pytest.mark.parametrize("loss", ["deleted", "cut back"])
def test_a_node_whose_table_definitions_are_lost_ends_and_says_so(tmp_path, loss):
    with _apart(tmp_path) as (kafka, node):
        create(node, "t")
        if loss == "deleted":
            topics.delete(admin(kafka.bootstrap), TABLES_TOPIC)
        else:
            _cut_back(kafka, tmp_path / "kafka")
        assert node.ended(90) == HOPELESS
        assert any(line.startswith(f"logstore: {TABLES_TOPIC} was {loss}") for line in node.log().splitlines()), (
            node.log()
        )
        again = Running("node", tmp_path / "node", "--bootstrap", kafka.bootstrap, "--http", "127.0.0.1:0")
        assert again.ended(90) == HOPELESS  # a start refuses as well


def _cut_back(kafka: EmbeddedKafka, data_dir: Path) -> None:
    """The broker's disk loses the log of the definitions."""
    kafka.kill()
    lost = [
        path
        for folder in data_dir.rglob(f"{TABLES_TOPIC}-0")
        for path in folder.iterdir()
        if path.name != "partition.metadata"
    ]
    assert lost
    for path in lost:
        path.unlink()
    kafka.restart()


# Readers die with a view in their hands


HOLD = """
import sys
from pathlib import Path
from logstore.view.reader import ViewReader
with ViewReader.open(Path(sys.argv[1])).reading() as reading:
    print(reading.state.next_offset, flush=True)
    sys.stdin.read()
"""


def test_what_dead_readers_held_is_given_back(fault_store, fault_table):
    with Store(fault_store.bootstrap, fault_store.url) as client:
        position = client.put(fault_table, key_of(0), "v")
        until("it is read", lambda: client.get(fault_table, key_of(0), after=position, deadline_ms=30_000))
        view = next((fault_store.data_dir / "views" / fault_table).glob("*/0/[0-9]*"))
        with closing(ViewReader.open(view)) as reader:
            for _ in range(5):
                with subprocess.Popen(
                    [sys.executable, "-c", HOLD, str(view)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                ) as holder:
                    assert holder.stdout is not None
                    holder.stdout.readline()
                    assert holder.pid in reader.pids()
                    holder.kill()
            fault_store.kill_one("readers")
            until("the slots of the dead are free", lambda: all(map(psutil.pid_exists, reader.pids())))
        figure = next(
            line for line in get(fault_store.url, "/metrics").text.splitlines() if _is_slots(line, fault_table)
        )
        assert float(figure.split()[-1]) < 20


def _is_slots(line: str, table: str) -> bool:
    return line.startswith("logstore_view_reader_slots{") and f'table="{table}"' in line and 'partition="0"' in line
