"""`logstore dev --secure`: the fast path through a Kafka that asks for proof, and its password nowhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from confluent_kafka import TopicPartition
from support_dev import Dev, Node, call
from support_secured import PASSWORD, properties_file, user_of

from logstore import Store
from logstore.log import topics
from logstore.log.connect.acl import Acl
from logstore.log.connect.cluster import Cluster
from logstore.log.connect.roles import acls_of
from logstore.log.connect.sources import properties_in
from logstore.log.kafka import clients, offsets
from logstore.log.kafka.records import take
from logstore.process.heartbeat import HOPELESS

PATIENCE_S = 400  # of a command that starts Spark, on a machine whose cores are all taken


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    running = Dev(tmp_path_factory.mktemp("secured") / "data", "--secure", "--workers", "1", "--readers", "1")
    yield running
    running.end()


def run(store, *argv, status=0, **environ):
    done = call(*argv, LOGSTORE_DATA_DIR=str(store.data), LOGSTORE_DEADLINE_MS="30000", **environ)
    assert done.returncode == status, (argv, done.stderr.decode())
    return done.stdout.decode()


def cluster(store):
    return Cluster(store.facts["bootstrap"], properties_in(Path(store.facts["kafka_config"])))


def secret(store):
    return cluster(store).properties["sasl.password"].encode()


def test_rows_go_through_the_fast_path(store):
    run(store, "table", "create", "users", "--partitions", "2")
    run(store, "put", "users", "ada", "Ada Lovelace")
    assert run(store, "get", "users", "ada") == "Ada Lovelace"
    with Store(kafka={**cluster(store).properties}, bootstrap=str(cluster(store)), url=store.facts["http"]) as mine:
        position = mine.put("users", "bob", "Bob")
        assert [row.key for row in mine.scan("users", after=position)] == [b"ada", b"bob"]


def test_a_command_that_is_told_the_address_needs_the_properties_too(store):
    told = {"LOGSTORE_BOOTSTRAP": store.facts["bootstrap"], "LOGSTORE_URL": store.facts["http"]}
    named = call("table", "list", "--kafka-config", store.facts["kafka_config"], **told)
    assert named.returncode == 0, named.stderr
    wrong = call("table", "list", "--kafka-config", store.facts["kafka_config"], **told, LOGSTORE_KAFKA_ACKS="0")
    assert (wrong.returncode, b"acks is the store's own" in wrong.stderr) == (2, True)


def test_a_wrong_password_ends_commands_and_nodes_at_once(store, tmp_path):
    found = {**cluster(store).properties, "sasl.password": "wrong"}
    config = tmp_path / "wrong.properties"
    config.write_text("".join(f"{name}={value}\n" for name, value in found.items()))
    for status, argv in (
        (1, ["table", "list"]),
        (HOPELESS, ["node", "--http", "127.0.0.1:0", "--data-dir", str(tmp_path / "node")]),
        (HOPELESS, ["worker", "--http", "127.0.0.1:1", "--data-dir", str(tmp_path / "worker")]),
        (1, ["batch", "compact", "users"]),
    ):
        done = call(*argv, "--bootstrap", store.facts["bootstrap"], "--kafka-config", str(config))
        assert done.returncode == status
        assert b"refuses SASL_SSL, SCRAM-SHA-512, as admin" in done.stderr
        assert b"Traceback" not in done.stderr


def test_the_password_is_nowhere_but_in_its_own_files(store):
    run(store, "table", "create", "canary", "--partitions", "1")
    run(store, "put", "canary", "a", "1")
    asked = (["table", "describe", "canary"], ["status"], ["config", "show"], ["config", "show", "--json"])
    shown = [run(store, *argv) for argv in asked]
    shown += _said("doctor", LOGSTORE_DATA_DIR=str(store.data))
    shown += _said("table", "describe", "none", LOGSTORE_DATA_DIR=str(store.data), LOGSTORE_DEBUG="1")
    pages = ("/metrics", "/readyz", "/v1/status", "/v1/cluster", "/v1/tables", "/v1/snapshots", "/none")
    shown += [httpx.get(store.facts["http"] + page, trust_env=False, timeout=60).text for page in pages]
    shown.append(store.stderr + json.dumps(store.facts))
    assert not [text for text in shown if secret(store).decode() in text]
    running = [psutil.Process(store.process.pid), *psutil.Process(store.process.pid).children(recursive=True)]
    assert len(running) >= 4
    assert not [each for each in running if secret(store).decode() in " ".join(each.cmdline())]
    own = {store.data / "kafka" / "secure", store.data / "kafka" / "server.properties"}
    files = [Path(folder, name) for folder, _, names in os.walk(store.data) for name in names]
    others = [file for file in files if not own & {file, file.parent} and file.is_file()]
    assert any("logs" in str(file) for file in others)
    assert not [file for file in others if secret(store) in file.read_bytes()]


def _said(*argv, **environ):
    done = call(*argv, **environ)
    return [done.stdout.decode(), done.stderr.decode()]


SPARK = """
import json, sys, urllib.request
from pathlib import Path
from batch.session import session
from logstore.spark import register
spark = session("local[1]", **{"spark.ui.enabled": "true", "spark.ui.port": "0", "spark.driver.memory": "512m"})
register(spark)
rows = spark.read.format("logstore").options(table=sys.argv[1], bootstrap=sys.argv[2], as_of="latest").load().collect()
pages = [f"{spark.sparkContext.uiWebUrl}/{page}/" for page in ("environment", "jobs", "SQL", "executors")]
shown = [urllib.request.urlopen(page).read().decode() for page in pages] + [str(spark.sparkContext.getConf().getAll())]
running = [file.read_bytes().decode(errors="replace") for file in Path("/proc").glob("[0-9]*/cmdline")]
rows = sorted((bytes(row.key).decode(), bytes(row.value).decode()) for row in rows)
print(json.dumps({"rows": rows, "shown": shown, "running": running}))
spark.stop()
"""


def test_the_accurate_path_goes_through_with_the_acls_of_its_role(store, tmp_path):
    run(store, "table", "create", "proved", "--partitions", "2")
    run(store, "put", "proved", "ada", "Ada Lovelace")
    batch, reader = (
        properties_file(tmp_path / role, user_of(cluster(store), acls_of(role, "proved")))
        for role in ("batch", "reader")
    )
    for job in (  # executors of Spark read the log, processes of the local engine what was archived
        ["archive", "proved", "--master", "local[1]"],
        ["compact", "proved", "--wait", "300", "--engine", "local"],
    ):
        done = cli("batch", *job, data=store.data, config=batch)
        assert done.returncode == 0, done.stderr
    run(store, "put", "proved", "bob", "Bob")
    served = json.loads(run(store, "status", "--json", "--table", "proved"))["partitions"]
    assert [bool(partition["base"]) for partition in served] == [True, True], "--wait has said that it is adopted"
    argv = [sys.executable, "-c", SPARK, "proved", store.facts["bootstrap"]]
    environ = os.environ | {"LOGSTORE_KAFKA_CONFIG": str(reader), "LOGSTORE_DATA_DIR": str(store.data)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environ)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["rows"] == [["ada", "Ada Lovelace"], ["bob", "Bob"]]
    assert "spark.ui.port" in seen["shown"][0]
    assert any("org.apache.spark" in one for one in seen["running"])
    assert PASSWORD not in done.stdout + done.stderr


def test_a_node_serves_with_the_acls_of_its_role(store, tmp_path):
    run(store, "table", "create", "least", "--partitions", "1")
    run(store, "put", "least", "ada", "1")
    config = properties_file(tmp_path / "node", user_of(cluster(store), acls_of("node")))
    more = [
        "--bootstrap",
        store.facts["bootstrap"],
        "--kafka-config",
        str(config),
        "--group",
        "least",
        "--readers",
        "1",
    ]
    node = Node(tmp_path / "node-data", *more)
    try:
        assert run(store, "get", "least", "ada", LOGSTORE_URL=node.facts["http"]) == "1"
        assert PASSWORD not in node.stderr
    finally:
        node.end()


def test_a_node_without_one_of_its_acls_ends_and_names_it(store, tmp_path):
    lacking = Acl("READ", "group", "logstore", "PREFIXED")
    user = user_of(cluster(store), [acl for acl in acls_of("node") if acl != lacking])
    config = properties_file(tmp_path / "node", user)
    done = cli("node", "--http", "127.0.0.1:0", "--bootstrap", store.facts["bootstrap"], data=tmp_path, config=config)
    assert done.returncode == HOPELESS
    assert f"grants User:{user.properties['sasl.username']} no " in done.stderr
    assert "on group logstore" in done.stderr


def cli(*argv, data, config):
    """A command in a process of its own, as another user of Kafka; Spark's takes its time on a busy machine."""
    environ = os.environ | {"LOGSTORE_DATA_DIR": str(data), "LOGSTORE_KAFKA_CONFIG": str(config)}
    command = [sys.executable, "-m", "logstore.cli.main", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environ)


def test_the_password_is_in_no_topic(store):
    admin, reader = clients.admin(cluster(store)), clients.consumer(cluster(store), **{"enable.partition.eof": True})
    seen = 0
    try:
        for topic in sorted(topics.names(admin) - {"__consumer_offsets"}):
            for partition, bound in offsets.bounds(
                admin, topic, list(range(topics.partition_count(admin, topic)))
            ).items():
                reader.assign([TopicPartition(topic, partition, bound.start)])
                ended = False
                while not ended:
                    for record in take(reader, 1_000, 60):
                        ended = ended or record.error() is not None
                        seen += record.error() is None
                        text = repr((record.key(), record.value(), record.headers())) if not record.error() else ""
                        assert secret(store).decode() not in text
    finally:
        reader.close()
    assert seen > 0
