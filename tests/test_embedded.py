import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from support_wait import until

from logstore.broker import embedded
from logstore.broker.class_archive import ENDED_IN_GOOD_ORDER, ClassArchive
from logstore.broker.data_dir import BrokerDataDir, _bindable, _free_port
from logstore.broker.embedded import EmbeddedKafka, halt, running
from logstore.broker.jars import VERSION, kafka_jars
from logstore.broker.java import Java, find_java
from logstore.cli.running.kafka import kafka as command
from logstore.model.errors import SetupError
from logstore.process import child

SMALL = 256  # MB of heap


def write(kafka, topic, value, **settings):
    failures = []
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "acks": "all", **settings})
    if "transactional.id" in settings:
        producer.init_transactions(30)
        producer.begin_transaction()
    producer.produce(topic, value=value, partition=0, on_delivery=lambda error, _: failures.append(error))
    assert producer.flush(30) == 0
    if "transactional.id" in settings:
        producer.commit_transaction(30)
    assert failures == [None]


def read(kafka, topic, count):
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "reader", "auto.offset.reset": "error"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        return [message.value() for message in consumer.consume(count, timeout=90)]
    finally:
        consumer.close()


def new_topic(kafka, **settings):
    name = f"t-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})  # its name keeps it alive while the call is under way
    admin.create_topics([NewTopic(name, 1, 1, config=settings)])[name].result(30)
    return name


def exited(handle, timeout_s=20):
    """True when the process behind a pidfd has ended within `timeout_s`."""
    try:
        return bool(select.select([handle], [], [], timeout_s)[0])
    finally:
        os.close(handle)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A broker that tests may kill; it runs again when they are done."""
    with EmbeddedKafka(tmp_path_factory.mktemp("own") / "dätä, with a comma", heap_mb=SMALL) as broker:
        yield broker


def test_a_record_goes_round(kafka):
    topic = new_topic(kafka)
    write(kafka, topic, b"hello")
    assert read(kafka, topic, 1) == [b"hello"]


def test_a_topic_may_allow_values_of_a_hundred_megabytes(kafka):
    topic = new_topic(kafka, **{"max.message.bytes": "1200000"})
    write(kafka, topic, b"x" * 1_190_000, **{"message.max.bytes": 1_200_000})
    large = new_topic(kafka, **{"max.message.bytes": "105000000"})
    write(kafka, large, b"x" * 30_000_000, **{"message.max.bytes": 105_000_000})


def test_transactions_work(kafka):
    topic = new_topic(kafka)
    write(kafka, topic, b"in a transaction", **{"transactional.id": "tx"})
    assert read(kafka, topic, 1) == [b"in a transaction"]


def test_it_listens_on_loopback_only(kafka):
    port = int(kafka.bootstrap.split(":")[1])
    with socket.socket() as other:
        other.bind(("127.0.0.2", port))  # would be in use if the broker listened on every address


@pytest.mark.slow
def test_killed_it_starts_again_with_its_data_and_port(own):
    topic, bootstrap, killed = new_topic(own), own.bootstrap, own.pid
    write(own, topic, b"before")
    own.kill()
    assert not own.alive()
    assert running(own.data_dir) is None
    own.restart()
    assert own.alive()
    assert (own.bootstrap, own.pid == killed) == (bootstrap, False)
    write(own, topic, b"after")
    assert read(own, topic, 2) == [b"before", b"after"]


def test_stop_and_start_may_be_called_twice(own):
    pid = own.pid
    assert own.start().pid == pid
    own.stop()
    own.stop()
    assert not own.alive()
    own.start()
    assert own.alive()


def test_a_data_directory_has_one_broker(own):
    with pytest.raises(SetupError, match=rf"in use by the process {own.pid}; .*--data-dir"):
        EmbeddedKafka(own.data_dir).start()
    assert own.alive()


def test_started_in_a_thread_it_outlives_the_thread(own):
    own.stop()
    thread = threading.Thread(target=own.start)
    thread.start()
    thread.join(60)
    write(own, new_topic(own), b"still there")
    assert own.alive()


def test_a_start_that_does_nothing_ends_and_leaves_nothing(own):
    own.stop()
    with ThreadPoolExecutor(1) as starting:
        started = starting.submit(own.start, 3.0)
        pid = until("it is started", lambda: own.pid)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(SetupError, match=r"does not answer .* and has done nothing for 3 s"):
            started.result(120)
    assert not own.alive()
    own.start()


def test_a_taken_port_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SetupError, match=rf"port {port} of 127.0.0.1 is taken; .*--port"):
            EmbeddedKafka(tmp_path, port=port).start()
    assert BrokerDataDir(tmp_path).holder() is None


def test_storage_is_on_the_disk_before_it_is_called_formatted(tmp_path, monkeypatch):
    directory = BrokerDataDir(tmp_path / "kafka")
    flushed = []
    real = os.fsync

    def flush(descriptor):
        real(descriptor)
        flushed.append((os.readlink(f"/proc/self/fd/{descriptor}"), directory.identity().formatted))

    with directory.lock():
        identity = directory.claim(VERSION, None)
        (directory.path / "log" / "topic-0").mkdir(parents=True)
        files = [directory.path / "log" / name for name in ("bootstrap.checkpoint", "topic-0/0.log")]
        for file in files:
            file.write_text("x")
        monkeypatch.setattr(os, "fsync", flush)
        directory.formatted(identity)
    assert {str(path) for path in (*files, directory.path / "log", directory.path / "log" / "topic-0")} <= {
        path for path, formatted in flushed if not formatted
    }
    assert directory.identity().formatted


def test_data_of_another_version_are_left_alone(tmp_path):
    for version in ("3.9.1", "4.0.0", "5.0.0"):
        text = json.dumps(
            {"kafka": version, "cluster_id": "x", "port": 20_000, "controller_port": 20_001, "formatted": True}
        )
        (tmp_path / "broker.json").write_text(text)
        with pytest.raises(SetupError, match=f"holds data of Kafka {version}, this is Kafka 4.1"):
            EmbeddedKafka(tmp_path).start()
        assert (tmp_path / "broker.json").read_text() == text


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(SetupError, match=r"not empty \(thesis.txt\)"):
        EmbeddedKafka(tmp_path).start()
    (tmp_path / "thesis.txt").rename(tmp_path / "broker.json")
    with pytest.raises(SetupError, match=r"broker.json is damaged"):
        EmbeddedKafka(tmp_path).start()
    with pytest.raises(SetupError, match=r"cannot use the data directory"):
        EmbeddedKafka(tmp_path / "broker.json" / "below").start()


def test_a_broker_that_cannot_start_shows_the_end_of_its_log(tmp_path):
    with pytest.raises(SetupError, match=r"(?s)Kafka cannot format its storage|Kafka ended while it started:.*heap"):
        EmbeddedKafka(tmp_path, heap_mb=1).start()
    assert running(tmp_path) is None


@pytest.mark.slow
def test_damaged_storage_ends_the_start_with_the_reason(tmp_path):
    kafka = EmbeddedKafka(tmp_path, heap_mb=SMALL)
    directory = BrokerDataDir(tmp_path)
    with directory.lock():
        directory.save(directory.claim(embedded.VERSION, None)._replace(formatted=True))
    with pytest.raises(SetupError, match=r"(?s)Kafka ended while it started:.*meta.properties.*kafka.log has more"):
        kafka.start()
    assert not kafka.alive()
    directory.save(directory.identity()._replace(formatted=False))  # as after a first start that was interrupted
    with kafka.start():
        assert kafka.alive()


def test_ports_are_not_those_of_outgoing_connections():
    lowest = int(embedded.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = [_free_port() for _ in range(20)]
    assert max(ports) < lowest
    assert len(set(ports)) > 10
    assert all(map(_bindable, ports))


def test_the_first_start_takes_its_first_choice_where_that_is_free_and_later_ones_keep_it(tmp_path):
    choice = _free_port()
    with _held(tmp_path / "one") as one:
        assert one.claim(embedded.VERSION, None, choice).port == choice
        assert one.claim(embedded.VERSION, None, _free_port()).port == choice
    with socket.socket() as other, _held(tmp_path / "two") as two:
        other.bind(("127.0.0.1", choice))
        other.listen()
        assert two.claim(embedded.VERSION, None, choice).port != choice
        with pytest.raises(SetupError, match=f"port {choice} .* is taken; choose another"):
            two.claim(embedded.VERSION, choice)


@contextlib.contextmanager
def _held(path):
    directory = BrokerDataDir(path)
    with directory.lock():
        yield directory


@pytest.mark.slow
def test_the_broker_ends_when_its_parent_is_killed(tmp_path):
    code = (
        "import sys; from pathlib import Path; from logstore.broker.embedded import EmbeddedKafka\n"
        f"kafka = EmbeddedKafka(Path(sys.argv[1]), heap_mb={SMALL}).start()\n"
        "print(kafka.pid, kafka.bootstrap, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        pid, bootstrap = parent.stdout.readline().split()
        broker = os.pidfd_open(int(pid))
        parent.kill()
        assert exited(broker)
    with EmbeddedKafka(tmp_path, heap_mb=SMALL) as kafka:  # nothing stale is in the way
        assert kafka.bootstrap == bootstrap


def test_a_class_archive_is_kept_only_when_it_was_written_to_its_end(tmp_path):
    cache, data = tmp_path / "cache", tmp_path / "data"
    cache.mkdir()
    data.mkdir()
    archive = ClassArchive(Java(tmp_path / "java", 17), cache, data)
    assert archive.use() == []
    assert archive.use_or_write() == ["-XX:ArchiveClassesAtExit=classes.jsa"]
    for status, kept in ((-signal.SIGKILL, False), (1, False), (ENDED_IN_GOOD_ORDER, True)):
        (data / "classes.jsa").write_bytes(b"classes")
        archive.share(status)
        assert bool(archive.use()) == kept
    assert archive.use_or_write() == archive.use()
    assert [path.read_bytes() for path in cache.iterdir()] == [b"classes"]


def test_a_broker_that_ends_in_good_order_leaves_an_archive_for_the_next(own):
    own.stop()
    java = find_java()
    base = list(java.path.resolve().parent.parent.glob("lib/server/classes.jsa"))
    assert bool(ClassArchive(java, kafka_jars(), own.data_dir).use()) == bool(
        base
    )  # Java writes one only on top of its own
    assert not (own.data_dir / "classes.jsa").exists()
    own.start()
    assert "error" not in (own.data_dir / "kafka.out").read_text().lower()


def test_a_leash_delivers_the_signal_that_was_asked_for():
    code = (
        "import signal, subprocess, sys; from logstore.process import child\n"
        "one = child.spawn([sys.executable, '-c', sys.argv[1]], at_death=signal.SIGTERM, output=1)\n"
        "print(one.pid, flush=True); sys.stdin.read()"
    )
    child = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('asked to end', flush=True), sys.exit()))\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        first, second = sorted(parent.stdout.readline() for _ in range(2))
        handle = os.pidfd_open(int(first))
        assert second == "ready\n"
        parent.kill()
        assert exited(handle)
        assert parent.stdout.read() == "asked to end\n"


def test_a_leash_says_what_cannot_be_executed(tmp_path):
    with (tmp_path / "out").open("wb") as out:
        assert child.spawn(["/nowhere/java"], output=out).wait(20) == 127
    assert (tmp_path / "out").read_text() == "/nowhere/java: No such file or directory\n"


def test_a_child_whose_parent_is_gone_already_does_not_run(tmp_path):
    argv = child.command(["touch", str(tmp_path / "ran")])
    argv[argv.index(str(os.getpid()))] = "1"  # as if this process were another than the one that asked
    assert subprocess.run(argv, check=False, timeout=20).returncode == 1
    assert not (tmp_path / "ran").exists()


def call(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_the_command_starts_shows_and_stops_a_broker(tmp_path):
    at = ("--data-dir", tmp_path / "broker")
    assert call("status", *at).exit_code == 1
    assert json.loads(call("status", *at, "--json").stdout) == {"running": False, "data_dir": str(tmp_path / "broker")}
    code = "import sys; from logstore.cli.running.kafka import kafka; kafka(sys.argv[1:])"
    argv = [
        sys.executable,
        "-c",
        code,
        "start",
        "--data-dir",
        str(tmp_path / "broker"),
        "--heap-mb",
        str(SMALL),
        "--port",
        "0",
        "--json",
    ]
    started = json.loads(subprocess.run(argv, capture_output=True, timeout=100, check=True).stdout)
    try:
        assert started["running"]
        assert started["version"] == "4.1.1"
        assert json.loads(call("status", *at, "--json").stdout) == started  # it outlives the command
        again = call("start", *at, "--json")
        assert (again.exit_code, json.loads(again.stdout)) == (0, started)
        assert call("start", *at, "--port", 1).exit_code == 2
        with pytest.raises(SetupError, match="in use by the process"):
            EmbeddedKafka(tmp_path / "broker").start()
        broker = os.pidfd_open(started["pid"])
        assert str(started["pid"]) in call("stop", *at).stdout
        assert exited(broker, 1)
    finally:
        halt(tmp_path / "broker")
    assert call("status", *at).exit_code == 1
    assert "no broker runs" in call("stop", *at).stdout


def test_a_broker_that_is_only_being_started_is_not_taken_for_a_running_one(tmp_path):
    with BrokerDataDir(tmp_path).lock(), pytest.raises(SetupError, match=f"being started by the process {os.getpid()}"):
        running(tmp_path)
    assert running(tmp_path) is None


def test_a_broker_that_hangs_is_ended_by_force(own):
    os.kill(own.pid, signal.SIGSTOP)
    began = time.monotonic()
    own.stop(timeout_s=0.5)
    assert not own.alive()
    assert time.monotonic() - began < 19  # the usual patience is 20 s
    own.start()
    os.kill(own.pid, signal.SIGSTOP)
    halt(own.data_dir, timeout_s=0.5)
    assert not own.alive()


@pytest.mark.parametrize("secure", [False, True])
def test_a_broker_stays_secured_or_open_as_it_was_made(tmp_path, secure):
    directory = BrokerDataDir(tmp_path)
    with directory.lock():
        assert directory.claim(VERSION, 0, secure=secure).secure is secure
        assert directory.claim(VERSION, 0, secure=secure) == directory.identity()
        with pytest.raises(SetupError, match=f"was made {'with' if secure else 'without'} --secure"):
            directory.claim(VERSION, 0, secure=not secure)
