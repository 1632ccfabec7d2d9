"""Faults, end to end on a real store: Kafka gone or stuck, a full disk, topics deleted, killed readers, and keys and values at every limit."""

import base64
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx
import psutil
import pytest
from support_log import produce, transactional, until
from support_store import Running, cli, running

from logstore import Store
from logstore.log import topics
from logstore.log.embedded import EmbeddedKafka
from logstore.log.kafka import admin
from logstore.model.errors import BadKey, LogStoreError, NotYet, Unknown, ValueTooLarge
from logstore.model.partitioner import partition_of
from logstore.model.position import Position
from logstore.model.table import TABLES_TOPIC

DEV = ("--http", "127.0.0.1:0", "--kafka-heap-mb", "256")
QUIET_S = 5  # how long a fault lasts


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One `logstore dev` for the faults that it survives; each test has a table of its own."""
    with running("dev", tmp_path_factory.mktemp("faults") / "store", *DEV) as dev:
        yield dev


@pytest.fixture
def table(store: Running, request: pytest.FixtureRequest) -> str:
    return _table(store, f"t{abs(hash(request.node.name)) % 10**9}")


def _table(store: Running, name: str, *more: str, partitions: int = 2) -> str:
    cli("table", "create", name, "--partitions", str(partitions), *more, **_where(store))
    return name


def _where(store: Running) -> dict[str, str]:
    return {"LOGSTORE_BOOTSTRAP": store.bootstrap, "LOGSTORE_URL": store.url}


def _get(url: str, path: str, **params: Any) -> httpx.Response:
    return httpx.get(url + path, params=params, trust_env=False, timeout=15)


def _key_of(partition: int, partitions: int = 2) -> str:
    return next(key for key in map(str, range(1000)) if partition_of(key.encode(), partitions) == partition)


def _partition(store: Running, table: str, partition: int) -> dict[str, Any]:
    rows = _get(store.url, "/v1/partitions").json()["partitions"]
    return next(row for row in rows if (row["table"], row["partition"]) == (table, partition))


def _await_no_lag(store: Running, table: str) -> None:
    rows = lambda: [row for row in _get(store.url, "/v1/partitions").json()["partitions"] if row["table"] == table]  # noqa: E731
    until("no lag", lambda: all((row["state"], row["lag"], row["reason"]) == ("live", 0, "") for row in rows()), 40)


# Kafka is gone, or does not answer


class Reads(threading.Thread):
    """Eventual reads of one row, one after the other, as a client that tries another connection when one breaks."""

    def __init__(self, url: str, table: str, key: str, value: str) -> None:
        super().__init__(daemon=True)
        self._path, self._value = f"{url}/v1/tables/{table}/rows/{key}", value
        self.running, self.count, self.wrong, self.longest_s = True, 0, [], 0.0

    def run(self) -> None:
        with httpx.Client(trust_env=False, timeout=5, transport=httpx.HTTPTransport(retries=3)) as client:
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
    finally:
        reads.running = False
        reads.join(20)
    assert reads.wrong == []
    assert reads.count > 100
    print(f"{reads.count} reads, the longest {reads.longest_s:.3f} s")


def _kafka_pid(store: Running) -> int:
    pid: Any = store.pids("kafka")
    return int(pid)


def _kill_kafka(store: Running) -> Callable[[], None]:
    """Kill it; it stays away until the returned function is called, because the one that starts it again is held up."""
    os.kill(_kafka_pid(store), signal.SIGKILL)
    return lambda: None


@pytest.mark.parametrize("fault", ["killed", "paused"])
def test_kafka_is_gone_for_a_while_and_reads_go_on(store, table, fault):
    with Store(store.bootstrap, store.url, delivery_timeout_s=60) as client:
        first = client.put(table, "k", "before")
        assert client.get(table, "k", after=first, deadline_ms=10_000).value == b"before"
        with _reading(store, table, "k", "before"):
            pid = _kafka_pid(store)
            os.kill(pid, signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
            try:
                pending = [client.put_async(table, f"n{n}", str(n)) for n in range(20)]
                _assert_levels_hold(store, client, table, first)
                pause_until = time.monotonic() + QUIET_S
                until("the fault has lasted", lambda: time.monotonic() > pause_until)
            finally:
                if fault == "paused":
                    os.kill(pid, signal.SIGCONT)
            acknowledged = _outcomes(pending)
            print(f"{len(acknowledged)} of {len(pending)} writes of the time without Kafka are acknowledged")
            last = client.put(table, "last", "after")
            until("it is read", lambda: client.get(table, "last", after=last, deadline_ms=10_000))
            _await_no_lag(store, table)
        for number, position in acknowledged.items():
            assert client.get(table, f"n{number}", after=position).value == b"%d" % number
