"""A replica of a real store: its reads are held to the contract of every store, and go on while workers are killed."""

import itertools
import os
import signal
import threading

import pytest
from click.testing import CliRunner
from support_contract import CONTRACT, DEADLINE_MS, Under
from support_wait import until

from logstore import NoSuchTable, NotYet, Replica, Store
from logstore.cli.main import cli

NUMBERS = itertools.count()


class ReadHere:
    """A store whose reads are those of a replica."""

    def __init__(self, store, replica):
        self._store = store
        self.get, self.get_many, self.scan = replica.get, replica.get_many, replica.scan

    def __getattr__(self, name):
        return getattr(self._store, name)


@pytest.fixture(scope="module")
def both(dev):
    with Store(dev.facts["bootstrap"], dev.facts["http"]) as store, Replica(dev.data) as replica:
        yield store, replica


@pytest.fixture
def under(dev, both):
    store, replica = both

    def knows(name):
        try:
            return replica.standing(name)
        except NoSuchTable:
            return None

    def make(*, partitions=4, max_value_bytes=1_000_000):
        name = f"replica-{next(NUMBERS)}"
        limits = "--partitions", str(partitions), "--max-value-bytes", str(max_value_bytes)
        made = CliRunner().invoke(cli, ["table", "create", name, "--bootstrap", dev.facts["bootstrap"], *limits])
        assert made.exit_code == 0, made.output
        until("the replica knows the table", lambda: knows(name))
        return name

    return Under(ReadHere(store, replica), make)


@pytest.mark.parametrize("rule", CONTRACT, ids=lambda rule: rule.__name__)
def test_its_reads_are_those_of_every_store(rule, under):
    rule(under)


@pytest.mark.slow
def test_reads_go_on_while_workers_are_killed_and_see_what_comes_after(under, both, dev):
    store, replica = both
    table, keys = under.make(), [f"k{n}" for n in range(50)]
    seen = store.put_many(table, [(key, key) for key in keys])
    assert all(replica.get_many(table, keys, after=seen, deadline_ms=DEADLINE_MS))
    wrong, done = [], threading.Event()

    def covers(position):
        try:
            return replica.get(table, "k0", after=position)
        except NotYet:
            return None

    def look():
        while not done.is_set():
            found = [replica.get(table, key) for key in keys]
            wrong.extend(key for key, row in zip(keys, found, strict=True) if row is None or row.value != key.encode())
            done.wait(0.01)

    reading = threading.Thread(target=look)
    reading.start()
    try:
        (worker,) = dev.pids()["workers"]
        os.kill(worker, signal.SIGKILL)
        until("another one is there", lambda: dev.pids()["workers"] not in ([worker], []))
        last = store.put(table, "k0", "k0")
        until("it applies that", lambda: covers(last))
        assert replica.get(table, "k0", after=last, deadline_ms=30_000).version == last.offset
    finally:
        done.set()
        reading.join(60)
    assert wrong == []
