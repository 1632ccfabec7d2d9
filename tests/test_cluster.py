"""Properties of Kafka's clients: one value that holds them, three sources, one place that makes clients of them."""

import ast
import json
import os
import pickle
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials

from logstore import Store, settings
from logstore.log.connect.cluster import RELIED_ON, Cluster
from logstore.log.connect.sources import PREFIX, process_bootstrap, process_properties, properties_in
from logstore.log.kafka import clients
from logstore.log.kafka.clients import admin, consumer, producer
from logstore.log.tables.registry import Registry
from logstore.log.write.producer import Producer
from logstore.model.errors import UsageError
from streaming.credentials import credentials

ROOT = Path(__file__).parents[1]
SECRET = "canary-4711"
SCRAM = {
    "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "ada", "sasl.password": SECRET,
}  # fmt: skip
OIDC = {
    "security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc",
    "sasl.oauthbearer.client.id": "ada", "sasl.oauthbearer.client.secret": SECRET,
    "sasl.oauthbearer.token.endpoint.url": "https://tokens.test/",
}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder without a configuration of anybody's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    for name in [name for name in os.environ if name.startswith((PREFIX, "LOGSTORE_CONFIG"))]:
        monkeypatch.delenv(name)
    return tmp_path


# sources


def test_what_kubernetes_says_of_a_service_is_no_property(here, monkeypatch):
    service = {
        "SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "9092", "SERVICE_PORT_CLIENTS": "9092", "PORT": "tcp://10.0.0.1:9092",
        "PORT_9092_TCP": "tcp://10.0.0.1:9092", "PORT_9092_TCP_PROTO": "tcp", "PORT_9092_TCP_PORT": "9092",
        "PORT_9092_TCP_ADDR": "10.0.0.1", "BOOTSTRAP_SERVICE_HOST": "10.0.0.2", "BOOTSTRAP_PORT": "tcp://10.0.0.2:9092",
    }  # fmt: skip
    for name, text in service.items():
        monkeypatch.setenv(PREFIX + name, text)
    monkeypatch.setenv("LOGSTORE_KAFKA_CLIENT_ID", "ada")
    assert process_properties() == {"client.id": "ada"}
    assert settings.load().kafka_port is None


def test_who_asks_for_another_cluster_does_not_wait_for_the_proof_of_one(monkeypatch):
    asked, answered = Event(), Event()
    monkeypatch.setattr(clients, "metadata", lambda *_: (asked.set(), answered.wait(60)))
    with ThreadPoolExecutor(2) as pool:
        mute = pool.submit(clients.admin, Cluster("127.0.0.1:2", SCRAM))
        try:
            assert asked.wait(60)
            assert (
                pool.submit(clients.admin, Cluster("127.0.0.1:1")).result(60) is not None
            )  # one has a length: 0 is false
            assert not mute.done()
        finally:
            answered.set()
        assert mute.result(60)


# the value


@pytest.mark.parametrize("shown", [str, repr, "{}".format, json.dumps, lambda c: repr(pickle.dumps(c))])
def test_a_cluster_shows_no_secret(shown):
    cluster = Cluster("a:1", SCRAM)
    assert "a:1" in shown(cluster)
    assert SECRET not in shown(cluster)


def test_a_store_shows_no_secret():
    with Store("a:1", "http://b:1", kafka=SCRAM) as store:
        assert SECRET not in repr(store)
    assert SECRET not in repr(Store(Cluster("a:1", SCRAM)))


def test_clusters_are_equal_when_address_and_properties_are():
    assert {Cluster("a:1", SCRAM), Cluster("a:1", dict(SCRAM)), Cluster("a:1"), "a:1", Cluster("b:1", SCRAM)} == {
        Cluster("a:1", SCRAM), Cluster("a:1"), Cluster("b:1", SCRAM),
    }  # fmt: skip
    assert Cluster("a:1", SCRAM) != "a:1"
    assert Cluster("a:1", SCRAM) != Cluster("a:1", SCRAM | {"sasl.username": "bob"})


def test_another_process_gets_the_address_alone():
    assert type(pickle.loads(pickle.dumps(Cluster("a:1", SCRAM)))) is str


def test_the_cluster_has_the_last_word_on_how_to_connect_and_the_client_on_its_work():
    made = Cluster("a:1", SCRAM | {"reconnect.backoff.ms": 7}).configuration(
        {"reconnect.backoff.ms": 50, "acks": "all"}
    )
    assert made == SCRAM | {"reconnect.backoff.ms": 7, "acks": "all", "bootstrap.servers": "a:1"}


@pytest.mark.parametrize("name", sorted(RELIED_ON))
def test_what_the_store_relies_on_is_not_for_properties(name):
    with pytest.raises(UsageError, match="the store's own"):
        Store("a:1", kafka={name: "1"})


def test_all_that_the_producer_relies_on_is_guarded():
    tuning = {
        "request.timeout.ms", "topic.metadata.propagation.max.ms", "topic.metadata.refresh.interval.ms",
        "reconnect.backoff.ms", "reconnect.backoff.max.ms", "log_level",
    }  # fmt: skip
    assert set(Producer.settings(queue_records=1, queue_bytes=1)) - tuning <= RELIED_ON


@pytest.mark.parametrize(
    ("properties", "says"),
    [
        ({"security.protocol": "TLS"}, "one of PLAINTEXT, SSL"),
        ({"sasl.username": "ada"}, "no effect with security.protocol=PLAINTEXT"),
        ({"ssl.ca.location": "/"}, "no effect with security.protocol=PLAINTEXT"),
        (SCRAM | {"security.protocol": "SASL_PLAINTEXT", "ssl.ca.location": "/"}, "no effect"),
        (SCRAM | {"security.protocol": "SSL"}, "no effect with security.protocol=SSL"),
        ({"security.protocol": "SASL_SSL"}, "sasl.mechanism is one of"),
        (SCRAM | {"sasl.mechanism": "GSSAPI"}, "sasl.mechanism is one of"),
        (SCRAM | {"sasl.mechanisms": "PLAIN"}, "given twice"),
        (SCRAM | {"sasl.password": ""}, "wants Kafka's sasl.password"),
        ({k: v for k, v in SCRAM.items() if k != "sasl.username"}, "wants Kafka's sasl.username"),
        (OIDC | {"sasl.oauthbearer.method": "default"}, "method=oidc"),
        ({k: v for k, v in OIDC.items() if "secret" not in k}, "client.secret"),
        ({"security.protocol": "SSL", "ssl.ca.location": "/no/such"}, "no such file"),
        ({"security.protocol": "SSL", "ssl.certificate.location": "/"}, "go together"),
        ({"security.protocol": "SSL", "ssl.keystore.location": "/x"}, "in PEM"),
        ({"bootstrap.servers": "b:1"}, "address"),
        ({"sasl.username": ["ada"]}, "not list"),
    ],
)
def test_contradictions_are_refused_at_once_and_name_no_secret(properties, says):
    with pytest.raises(UsageError, match=says) as refused:
        Store("a:1", kafka=properties)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("client", [admin, consumer, producer])
def test_a_property_that_librdkafka_does_not_know_is_refused(client):
    with pytest.raises(UsageError, match=r"refuses a property.*sasl\.pasword"):
        client(Cluster("127.0.0.1:1", {**SCRAM, "sasl.pasword": SECRET}))


def test_a_command_refuses_properties_before_it_looks_for_a_store(here, monkeypatch):
    monkeypatch.setenv("LOGSTORE_KAFKA_ACKS", "0")
    with pytest.raises(UsageError, match="acks is the store's own"):
        Registry("127.0.0.1:1").read()


# the sources


def test_a_file_comes_before_the_environment_and_that_before_the_configuration(here, monkeypatch):
    (here / "logstore.toml").write_text(
        'workers = 2\n[kafka]\nsecurity.protocol = "SSL"\n"client.id" = "toml"\nclient.rack = "r"\n'
    )
    assert process_properties() == {"security.protocol": "SSL", "client.id": "toml", "client.rack": "r"}
    monkeypatch.setenv("LOGSTORE_KAFKA_CLIENT_ID", "environment")
    monkeypatch.setenv("LOGSTORE_KAFKA_LOG_LEVEL", "3")
    monkeypatch.setenv("LOGSTORE_KAFKA_DEBUG", "")
    monkeypatch.setenv("LOGSTORE_KAFKA_HEAP_MB", "256")
    assert process_properties() == {
        "security.protocol": "SSL", "client.id": "environment", "client.rack": "r", "log_level": "3",
    }  # fmt: skip
    (here / "k.properties").write_text("# mine\nbootstrap.servers = b:1\nclient.id=file=1\n\n")
    monkeypatch.setenv("LOGSTORE_KAFKA_CONFIG", "k.properties")
    assert process_properties()["client.id"] == "file=1"
    assert process_bootstrap() == "b:1"


def test_aliases_of_two_sources_are_one_property(here, monkeypatch):
    (here / "logstore.toml").write_text('[kafka]\nsasl.mechanisms = "PLAIN"\n')
    monkeypatch.setenv("LOGSTORE_KAFKA_SASL_MECHANISM", "scram-sha-256")
    assert process_properties() == {"sasl.mechanism": "SCRAM-SHA-256"}


def test_secrets_lie_in_files_of_their_own(here, monkeypatch):
    (here / "password").write_text(SECRET + "\n")
    monkeypatch.setenv("LOGSTORE_KAFKA_SASL_PASSWORD_FILE", "password")
    assert process_properties() == {"sasl.password": SECRET}
    monkeypatch.setenv("LOGSTORE_KAFKA_SASL_PASSWORD", "x")
    with pytest.raises(UsageError, match="given twice"):
        process_properties()


def test_an_address_of_its_own_may_have_properties_of_its_own(here, monkeypatch):
    monkeypatch.setenv("LOGSTORE_KAFKA_CLIENT_ID", "all")
    assert Cluster.of("a:1").properties == {"client.id": "all"}
    assert Cluster.of(Cluster("a:1", {"client.rack": "r"})).properties == {"client.rack": "r"}


@pytest.mark.parametrize(("text", "says"), [("client.id", "line 1: wants NAME=VALUE"), ("a=1\na=2", "line 2.*twice")])
def test_a_file_that_is_none_is_an_error_with_its_line(tmp_path, text, says):
    (tmp_path / "f").write_text(text)
    with pytest.raises(UsageError, match=says):
        properties_in(tmp_path / "f")


def test_a_file_that_is_not_there_is_an_error(here, monkeypatch):
    monkeypatch.setenv("LOGSTORE_KAFKA_CONFIG", str(here / "gone"))
    with pytest.raises(UsageError, match="gone: No such file"):
        process_properties()


# the other client


@pytest.mark.parametrize(
    ("properties", "kind"),
    [
        ({}, type(None)),
        ({"security.protocol": "SSL"}, SSLCredentials),
        (SCRAM, SASLCredentials),
        (SCRAM | {"sasl.mechanism": "PLAIN", "security.protocol": "SASL_PLAINTEXT"}, SASLCredentials),
        (OIDC, OAuthCredentials),
    ],
)
def test_fausts_transport_has_the_same_credentials(properties, kind):
    found = credentials(Cluster("a:1", properties))
    assert isinstance(found, kind)
    assert SECRET not in repr(found)
    if kind is SASLCredentials:
        assert (found.protocol.value, found.mechanism.value) == (
            properties["security.protocol"],
            properties["sasl.mechanism"],
        )
        assert (found.username, found.password) == ("ada", SECRET)


@pytest.mark.parametrize(
    ("properties", "hostname", "mode"),
    [
        ({}, True, ssl.CERT_REQUIRED),
        ({"ssl.endpoint.identification.algorithm": "none"}, False, ssl.CERT_REQUIRED),
        ({"enable.ssl.certificate.verification": "false"}, False, ssl.CERT_NONE),
    ],
)
def test_fausts_transport_checks_certificates_as_librdkafka_does(properties, hostname, mode):
    context = credentials(Cluster("a:1", {"security.protocol": "SSL", **properties})).context
    assert (context.check_hostname, context.verify_mode) == (hostname, mode)


# the door


def _makers(tree: ast.AST) -> set[str]:
    """What a file takes of Kafka's libraries to make clients of."""
    clients = {"Producer", "Consumer", "AdminClient", "AIOKafkaProducer", "AIOKafkaConsumer", "AIOKafkaAdminClient"}
    imported = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        and (node.module or "").split(".")[0] in ("confluent_kafka", "aiokafka") for alias in node.names
    }  # fmt: skip
    through = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name) and node.value.id in ("confluent_kafka", "aiokafka")
    }  # fmt: skip
    return (imported | through) & clients


def test_no_other_place_makes_a_client_or_its_configuration():
    files = [file for package in ("logstore", "streaming", "batch") for file in (ROOT / package).rglob("*.py")]
    makers = {str(file.relative_to(ROOT)) for file in files if _makers(ast.parse(file.read_text()))}
    assert makers == {"logstore/log/kafka/clients.py"}
    named = {str(file.relative_to(ROOT)) for file in files if '"bootstrap.servers"' in file.read_text()}
    assert {str(Path(file).parent) for file in named} == {"logstore/log/connect"}
