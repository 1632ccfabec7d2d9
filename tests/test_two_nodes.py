"""Two nodes on one Kafka share the slots, and hand over without a failed read."""

import asyncio
import random
import shutil
import subprocess
import threading
from functools import partial

import httpx
import orjson
import pytest
from support_changes import Poller
from support_log import until
from support_store import LOGSTORE, Running, cli, running

from logstore import AsyncStore, Position, Store
from logstore.broker.embedded import EmbeddedKafka

ROWS = 500


class Reads(threading.Thread):
    """Session reads through our client, one after the other; every one must succeed and be right."""

    def __init__(self, bootstrap, url, position):
        super().__init__(daemon=True)
        self._where, self._position = (bootstrap, url), position
        self.running, self.count, self.failed = True, 0, []

    def run(self):
        rng = random.Random(7)
        with Store(*self._where) as store:
            while self.running:
                number = rng.randrange(ROWS)
                try:
                    row = store.get("t", f"k{number:04d}", after=self._position, deadline_ms=20_000)
                    if row is None or row.value != b"v%d" % number:
                        self.failed.append(f"k{number}: {row}")
                except Exception as error:
                    self.failed.append(f"k{number}: {error!r}")
                self.count += 1


class Consumer(threading.Thread):
    """A consumer of the change feed through one node, with a copy of the rows; it ends with the row `end`."""

    def __init__(self, bootstrap, url):
        super().__init__(daemon=True)
        self.where, self.copy, self.failed = (bootstrap, url), {}, []

    def run(self):
        try:
            self.consume()
        except Exception as error:
            self.failed.append(repr(error))

    def consume(self):
        with Store(*self.where) as store:
            for event in store.changes("t", since="beginning"):
                if self.is_end(event.key, event.version, event.value):
                    return

    def is_end(self, key, version, value):
        if version >= self.copy.get(key, (-1, None))[0]:
            self.copy[key] = version, value
        return key == b"end"


class AsyncConsumer(Consumer):
    """The same by an asynchronous iterator."""

    def consume(self):
        asyncio.run(self._consume())

    async def _consume(self):
        async with AsyncStore(*self.where) as store:
            async for event in store.changes("t", since="beginning"):
                if self.is_end(event.key, event.version, event.value):
                    return


class Command(Consumer):
    """The same by `logstore changes -f`, which nobody starts again."""

    def consume(self):
        argv = [LOGSTORE, "changes", "t", "-f", "--json", "--url", self.where[1]]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as command:
            for line in command.stdout:
                event = orjson.loads(line)
                value = None if event["value"] is None else event["value"].encode()
                if self.is_end(event["key"].encode(), event["version"], value):
                    command.terminate()
                    return
            raise AssertionError(f"it ended with {command.wait()}")


def owners(url: str) -> list[tuple[int, int]]:
    """How many slots each node has, and how many of them it serves."""
    nodes = httpx.get(f"{url}/v1/cluster", trust_env=False, timeout=60).json()["nodes"]
    return sorted((len(node["slots"]), len(node["live"])) for node in nodes)


def test_joining_and_leaving_fails_no_read_and_scans_see_everything(tmp_path):
    with EmbeddedKafka(tmp_path / "kafka", heap_mb=256) as kafka:  # of its own: a node opens every table of its Kafka
        _join_and_leave(kafka, tmp_path)


@pytest.mark.timeout(600)
def test_two_fresh_nodes_wait_for_a_kafka_that_is_fresh_too(tmp_path):
    """Neither has anything to serve, both make the store's own topics at the same moment."""
    with EmbeddedKafka(tmp_path / "kafka", heap_mb=256) as kafka:
        port, bootstrap = int(kafka.bootstrap.rpartition(":")[2]), kafka.bootstrap
    shutil.rmtree(tmp_path / "kafka")
    options = ("--bootstrap", bootstrap, "--http", "127.0.0.1:0", "--readers", "1")
    nodes = [Running("node", tmp_path / name, *options) for name in ("first", "second")]
    try:
        for node in nodes:
            says = f"Kafka does not answer at {bootstrap}; is the broker running"
            until("it has asked for longer than once", lambda node=node, says=says: node.log().count(says) >= 2)
        assert [node.process.poll() for node in nodes] == [None, None]
        with EmbeddedKafka(tmp_path / "kafka", port=port, heap_mb=256):
            for node in nodes:
                node.ready()
            cli("table", "create", "t", "--partitions", "2", LOGSTORE_BOOTSTRAP=bootstrap)
            until("the slots are shared", lambda: owners(nodes[0].url) == [(8, 8)] * 2)
            with Store(bootstrap, nodes[0].url) as writer, Store(bootstrap, nodes[1].url) as reader:
                position = writer.put_many("t", [(f"k{n}", f"v{n}") for n in range(50)])
                rows = reader.scan("t", after=position, deadline_ms=20_000)
                assert {row.key: row.value for row in rows} == {b"k%d" % n: b"v%d" % n for n in range(50)}
            assert [node.stop() for node in nodes] == [0, 0]
    finally:
        for node in nodes:
            node.kill()


def _join_and_leave(kafka, tmp_path):
    group = f"two-{random.SystemRandom().randrange(1 << 32):x}"
    options = ("--bootstrap", kafka.bootstrap, "--http", "127.0.0.1:0", "--group", group)
    name = "t"
    with running("node", tmp_path / "first", *options) as first:
        cli("table", "create", name, "--partitions", "4", LOGSTORE_BOOTSTRAP=kafka.bootstrap)
        with Store(kafka.bootstrap, first.url) as store:
            position = store.put_many(name, [(f"k{n:04d}", f"v{n}") for n in range(ROWS)])
            assert store.get(name, "k0000", after=position, deadline_ms=20_000) is not None
        reads = Reads(kafka.bootstrap, first.url, position)
        reads.start()
        consumers = [kind(kafka.bootstrap, first.url) for kind in (Consumer, AsyncConsumer, Command)]
        for consumer in consumers:
            consumer.start()
        second = Running("node", tmp_path / "second", *options).ready()
        until("the slots are shared", lambda: owners(first.url) == [(8, 8)] * 2)
        for url in (first.url, second.url):
            _assert_everything_is_seen(kafka.bootstrap, url, position)
        _assert_elsewhere_is_said(first.url, second.url)
        _assert_every_change_is_seen(kafka.bootstrap, first.url, second.url)
        before = reads.count
        assert second.stop() == 0
        until("the first has all slots again", lambda: owners(first.url) == [(16, 16)])
        until("reads went on", lambda: reads.count > max(300, before + 100))
        reads.running = False
        reads.join(90)
        _assert_the_copies_are_the_table(kafka.bootstrap, first.url, consumers)
    assert reads.failed == []


def _assert_everything_is_seen(bootstrap, url, position):
    """Any node answers for the whole table: scans and multi-gets are gathered from the owners."""
    with Store(bootstrap, url) as store:
        assert [row.value for row in store.scan("t", after=position, deadline_ms=20_000)] == [
            b"v%d" % n for n in range(ROWS)
        ]
        found = store.get_many("t", [f"k{n:04d}" for n in range(ROWS)], after=position, deadline_ms=20_000)
        assert [row and row.value for row in found] == [b"v%d" % n for n in range(ROWS)]


def _assert_every_change_is_seen(bootstrap, first, second):
    """Any node tells the changes of the whole table, as they come and from an id of the other node."""
    pollers = [Poller(url, "t", "now") for url in (first, second)]
    with Store(bootstrap, first) as store:
        assert [poller.poll() for poller in pollers] == [[], []]
        before, position = pollers[0].since, Position()
        for step in range(3):
            changed = {b"c%d" % n: b"%d" % step for n in range(20)}
            position |= store.put_many("t", changed)
            for poller in pollers:
                until("it has come there", lambda p=poller, c=changed: (p.poll(1_000), p.copy.state == c)[1])
        assert len(position.pieces) == 4, "in partitions of both nodes"
        again = Poller(second, "t", before)
        until("so it goes on there", lambda: (again.poll(1_000), again.copy.state == changed)[1])
        whole = Poller(second, "t")
        until("the rows are there", lambda: (whole.poll(), whole.live)[1])
        assert whole.copy.state == {row.key: row.value for row in store.scan("t", after=position)}
    here = {"LS-Forwarded": "1", "Accept": "application/msgpack"}
    asked = [httpx.get(f"{url}/v1/tables/t/changes?wait=0", headers=here, trust_env=False) for url in (first, second)]
    assert [answer.status_code for answer in asked] == [421, 421]
    assert [answer.headers["ls-owner"] for answer in asked] == [second, first]
    for poller in (*pollers, again, whole):
        poller.close()


def _assert_the_copies_are_the_table(bootstrap, url, consumers):
    with Store(bootstrap, url) as store:
        last = store.put_many("t", {b"k%04d" % n: None for n in range(0, ROWS, 7)})
        rows = {row.key: row.value for row in store.scan("t", after=last, deadline_ms=20_000)}
        for one in consumers:
            until(
                "the copy is the table",
                lambda one=one: (
                    {key: value for key, (_, value) in list(one.copy.items()) if value is not None} == rows
                    or one.failed
                ),
            )
        store.put("t", "end", "")
        for one in consumers:
            one.join(60)
            assert (one.is_alive(), one.failed) == (False, [])


def _assert_elsewhere_is_said(first, second):
    """A plain client is told whom to ask.

    Each key is answered by one node and referred to it by the other; by both while it moves.
    """

    def ask(number):
        return {
            url: httpx.get(f"{url}/v1/tables/t/rows/k{number:04d}", trust_env=False, timeout=60)
            for url in (first, second)
        }

    def handed_over(number):
        answers = ask(number)
        statuses = sorted(answer.status_code for answer in answers.values())
        assert statuses in ([200, 200], [200, 421])
        return answers if statuses == [200, 421] else None

    for number in range(20):
        answers = until(f"one node answers for k{number:04d}", partial(handed_over, number))
        by_status = {answer.status_code: answer for answer in answers.values()}
        assert by_status[421].json()["type"] == "urn:logstore:not-owner"
        assert answers[by_status[421].headers["ls-owner"]].status_code == 200
