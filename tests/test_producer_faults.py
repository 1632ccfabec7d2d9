"""A producer whose broker is slow, silent, killed or not there: what is certain, what is unknown."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import KafkaError
from support_producer import Fixed, make_table, read_log, where
from support_wait import until

from logstore import AsyncStore, Store
from logstore.broker.embedded import EmbeddedKafka
from logstore.client.write.level import WRITE_LEVELS
from logstore.client.write.pending import Pending, Shared
from logstore.log.connect.access import Access
from logstore.log.connect.cluster import Cluster
from logstore.log.kafka import clients, offsets
from logstore.log.tables import ddl
from logstore.log.tables.registry import Registry
from logstore.log.write import producer
from logstore.log.write.delivery import delivery_error
from logstore.log.write.producer import Producer
from logstore.model.errors import (
    BatchUnknown,
    LogUnreachable,
    Overloaded,
    StillPending,
    Unknown,
    WriteDenied,
    WriteFailed,
)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A broker that may be killed."""
    with EmbeddedKafka(tmp_path_factory.mktemp("own"), heap_mb=256) as broker:
        yield broker


@pytest.mark.slow
def test_a_full_queue_refuses_or_waits_as_the_caller_chose_and_close_says_what_is_unknown(own):
    table = make_table(own.bootstrap, 1)
    refusing = Store(own.bootstrap, definitions=Fixed(table), on_full="error", queue_records=100)
    waiting = Store(own.bootstrap, definitions=Fixed(table), on_full="wait", queue_records=100)
    for store in (refusing, waiting):
        store.put(table.name, "warm", "")
    own.kill()
    try:
        pipe = refusing.pipeline(table.name)
        pendings = []
        with pytest.raises(Overloaded):
            pendings.extend(pipe.put("k", "v") for _ in range(1000))
        assert len(pendings) == 100
        with pytest.raises(Overloaded):
            refusing.put_many(table.name, [("k", "v")])
        with pytest.raises(StillPending):
            pendings[0].result(0.05)
        with pytest.raises(Unknown, match="100 writes"):
            refusing.close(0.1)
        assert all(pending.done() for pending in pendings)
        assert {type(pending.exception()) for pending in pendings} <= {WriteFailed, Unknown}

        finished = threading.Event()
        thread = threading.Thread(
            target=lambda: (waiting.put_many(table.name, [(b"k", b"%d" % i) for i in range(500)]), finished.set())
        )
        thread.start()
        assert not finished.wait(0.3), "it waits for room"
    finally:
        own.restart()
    assert finished.wait(60)
    thread.join()
    waiting.close()
    assert [value for _, value in read_log(own.bootstrap, table).values()][-500:] == [b"%d" % i for i in range(500)]


@pytest.mark.slow
def test_a_write_whose_broker_is_gone_is_unknown_at_every_level(own):
    table = make_table(own.bootstrap, 1)
    with Store(own.bootstrap, "http://127.0.0.1:1", definitions=Fixed(table), delivery_timeout_s=2) as store:
        for level in ("all", "one"):
            until("a write is acknowledged", lambda level=level: _try_put(store, table, level))  # warm
        own.kill()
        try:
            for level in WRITE_LEVELS:
                with pytest.raises(Unknown):
                    store.put(table.name, "k", "v", level=level)
        finally:
            own.restart()


@pytest.mark.slow
def test_writes_without_an_answer_are_unknown_not_failed(own):
    table = make_table(own.bootstrap, 1)
    with Store(own.bootstrap, definitions=Fixed(table), delivery_timeout_s=1) as store:
        until("a write is acknowledged", lambda: _try_put(store, table))  # warm
        store.put_many(table.name, [("k", "v")])
        own.kill()
        try:
            with pytest.raises(Unknown):
                store.put(table.name, "k", "v")
            with pytest.raises(BatchUnknown) as caught:
                store.put_many(table.name, [("k", "v")] * 1200)
            assert caught.value.unknown == 1200
            assert sum(map(len, caught.value.unknown_places)) == 1200
            pipe = store.pipeline(table.name)
            for _ in range(7):
                pipe.put("k", "v")
            with pytest.raises(BatchUnknown, match="of 7 writes 7"):
                pipe.flush()
        finally:
            own.restart()
        until("a write is acknowledged", lambda: _try_put(store, table))


def _try_put(store, table, level="all"):
    try:
        return store.put(table.name, "again", "v", level=level)
    except (Unknown, WriteFailed):
        return None


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_the_broker_is_killed(own):
    table = make_table(own.bootstrap, 4)
    acknowledged = {}
    with Store(own.bootstrap, definitions=Fixed(table)) as store:
        stop = threading.Event()

        def write():
            i = 0
            while not stop.is_set():
                with store.pipeline(table.name) as pipe:
                    some = {j: pipe.put(b"%d" % j, b"v%d" % j) for j in range(i, i + 500)}
                acknowledged.update({where(pending.result()): (b"%d" % j, b"v%d" % j) for j, pending in some.items()})
                i += 500

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            for _ in range(2):
                before = len(acknowledged)
                until("more are acknowledged", lambda before=before: len(acknowledged) > before + 1000)
                own.kill()
                own.restart()
            stop.set()
            writing.result(90)
    log = read_log(own.bootstrap, table)
    assert {at: log.get(at) for at in acknowledged} == acknowledged
    assert len(log) == len(acknowledged), "the idempotent producer writes nothing twice"


def test_kafka_that_cannot_be_reached_is_said_at_once(monkeypatch):
    monkeypatch.setattr(producer, "_START_S", 0.3)
    with pytest.raises(LogUnreachable, match=r"127\.0\.0\.1:1"):
        Producer("127.0.0.1:1")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, WriteFailed),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, WriteDenied),
        (KafkaError._PURGE_QUEUE, Unknown),
        (KafkaError._PURGE_INFLIGHT, Unknown),
        (KafkaError._MSG_TIMED_OUT, Unknown),
        (KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND, Unknown),
        (KafkaError.REQUEST_TIMED_OUT, Unknown),
        (KafkaError._FATAL, Unknown),
        (KafkaError._QUEUE_FULL, Overloaded),
    ],
)
def test_only_what_proves_absence_is_called_failed(code, kind):
    assert type(delivery_error(KafkaError(code), "users", Access(Cluster("127.0.0.1:1")))) is kind


def test_the_event_loop_goes_on_while_a_thousand_writes_are_awaited(own):
    table = make_table(own.bootstrap, 4)

    async def run():
        async with AsyncStore(own.bootstrap, definitions=Fixed(table)) as store:
            await store.put(table.name, "warm", "")
            os.kill(own.pid, signal.SIGSTOP)
            try:
                writes = asyncio.gather(*(store.put(table.name, b"%d" % i, b"v") for i in range(1000)))
                for _ in range(100):
                    await asyncio.sleep(0)
                assert not writes.done(), "nothing was acknowledged meanwhile"
            finally:
                os.kill(own.pid, signal.SIGCONT)  # a loop that waited for the acknowledgements would not come this far
            return await writes

    assert len(set(map(where, asyncio.run(run())))) == 1000


IMPATIENT_LOAD = """
import sys
from logstore.log.write import limits
limits.DELIVERY_TIMEOUT_S = 2.0  # before any client takes its default from it
from logstore.cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_load_error_paths_end_without_sigabrt_also_when_the_broker_is_gone(own):
    name = f"loaded-{uuid.uuid4().hex[:12]}"
    environ = {"LOGSTORE_BOOTSTRAP": own.bootstrap}
    registry = Registry(own.bootstrap)
    registry.ensure_store()
    ddl.create(registry, name, partitions=1)
    argv = ["load", name, "-", "--format", "csv", "--key", "{id}", "--batch", "10"]
    rows = [b"%d,x\n" % i for i in range(60)]
    with subprocess.Popen(
        [sys.executable, "-c", IMPATIENT_LOAD, *argv], stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | environ,
    ) as load:  # fmt: skip
        load.stdin.write(b"id,v\n" + b"".join(rows[:35]))
        load.stdin.flush()  # and more comes, so that the last five are no batch yet
        client = clients.admin(own.bootstrap)
        until("three batches are in", lambda: offsets.bounds(client, name, [0])[0].end == 30, timeout_s=60)
        own.kill()
        try:
            _, said = load.communicate(b"".join(rows[35:]), timeout=60)
        finally:
            own.restart()
    assert load.returncode == 1, (load.returncode, said)
    assert re.fullmatch(rb"logstore: [^\n]*(20|30) rows are in; to run it again is safe: [^\n]*\n", said), said


class Report:
    """What librdkafka's binding hands over for a write that it takes for acknowledged because a later one was."""

    def partition(self):
        return 0

    def offset(self):
        return None


def test_what_is_reported_without_an_offset_is_unknown(kafka):
    table = make_table(kafka.bootstrap, 1)
    with Store(kafka.bootstrap, definitions=Fixed(table)) as store:
        shared = Shared(table.epoch, store.producer)
        pending = Pending.of(shared)
        pending(None, Report())
        assert pending.done()
        with pytest.raises(Unknown, match="acknowledged a later write"):
            pending.result(1)
        assert shared.unknown == 1
