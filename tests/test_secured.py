"""A broker that asks for proof: bare clients get in with it, ours do, and what is refused is said at once."""

import asyncio
import contextlib
import socket
import ssl
import stat
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from support_secured import user
from support_wait import until

from logstore import Store
from logstore.broker.embedded import running
from logstore.log import topics
from logstore.log.connect.acl import Acl
from logstore.log.connect.cluster import Cluster
from logstore.log.connect.sources import properties_in
from logstore.log.kafka import clients, offsets
from logstore.log.tables.registry import Registry
from logstore.log.write.delivery import delivery_error
from logstore.log.write.producer import Producer
from logstore.model.errors import AccessDenied, AuthenticationFailed, LogUnreachable, WriteDenied
from logstore.model.table import TABLES_TOPIC
from streaming.credentials import tls


def bare(cluster, **more):
    return {**cluster.properties, "bootstrap.servers": str(cluster), **more}


def by_certificate(secured):
    return properties_in(secured.security.certificate_settings)


def topic(secured):
    name = f"t-{uuid.uuid4().hex[:8]}"
    assert topics.create(clients.admin(secured.bootstrap), name, 1, 1, {})
    return name


def cluster_id(settings):
    return AdminClient(settings).list_topics(timeout=90).cluster_id


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_bare_client_gets_in_by_password(secured, mechanism):
    assert cluster_id(bare(secured.bootstrap, **{"sasl.mechanism": mechanism})) is not None


def test_a_bare_client_gets_in_by_certificate(secured):
    assert cluster_id(by_certificate(secured)) == cluster_id(bare(secured.bootstrap))


def test_nobody_gets_in_without_proof(secured):
    for settings in (
        {"bootstrap.servers": str(secured.bootstrap)},
        {k: v for k, v in by_certificate(secured).items() if not k.startswith(("ssl.certificate", "ssl.key"))},
        bare(secured.bootstrap, **{"sasl.password": "wrong"}),
    ):
        with pytest.raises(KafkaException):
            AdminClient(settings | {"log_level": 0}).list_topics(timeout=2)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", None])
def test_bare_aiokafka_gets_in(secured, mechanism):
    name, found = topic(secured), by_certificate(secured) if mechanism is None else secured.bootstrap.properties
    proof = {"security_protocol": "SSL", "bootstrap_servers": found.get("bootstrap.servers")}
    if mechanism:
        proof = {
            "security_protocol": "SASL_SSL", "bootstrap_servers": str(secured.bootstrap), "sasl_mechanism": mechanism,
            "sasl_plain_username": found["sasl.username"], "sasl_plain_password": found["sasl.password"],
        }  # fmt: skip

    async def partitions():
        async with AIOKafkaConsumer(name, ssl_context=tls(found), **proof) as consumer:
            return consumer.partitions_for_topic(name)

    assert asyncio.run(partitions()) == {0}


def test_files_of_the_broker_are_its_users_alone_and_its_password_is_nowhere_else(secured):
    files = [*(secured.data_dir / "secure").iterdir(), secured.data_dir / "server.properties"]
    password = secured.bootstrap.properties["sasl.password"].encode()
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in files if "ca.pem" not in path.name} == {0}
    assert password not in Path(f"/proc/{secured.pid}/cmdline").read_bytes()
    for path in (secured.data_dir / "kafka.log", secured.data_dir / "kafka.out", secured.data_dir / "broker.json"):
        assert password not in path.read_bytes()


@pytest.mark.slow
def test_users_and_certificates_outlive_a_restart(secured):
    before, somebody = secured.bootstrap, user(secured)
    secured.restart()
    assert secured.bootstrap == before == running(secured.data_dir).bootstrap
    assert clients.cluster_id(somebody, 30) == clients.cluster_id(before, 30) is not None


# our clients


def test_the_registry_makes_a_store_and_reads_it(secured):
    registry = Registry(secured.bootstrap)
    assert registry.ensure_store(4) == registry.slots()
    assert uuid.uuid4().hex not in registry.read().tables


@pytest.mark.parametrize("client", ["registry", "cluster_id", "store"])
@pytest.mark.parametrize("wrong", [{"sasl.password": "wrong"}, {"sasl.username": "nobody"}])
def test_a_wrong_password_is_said_at_once_with_listener_mechanism_and_user(secured, client, wrong, caplog):
    found = secured.bootstrap.properties | wrong
    cluster = Cluster(secured.bootstrap, found)
    call = {
        "registry": lambda: Registry(cluster).read(),
        "cluster_id": lambda: clients.cluster_id(cluster, 60),
        "store": lambda: _put(Store(str(cluster), kafka=found)),
    }[client]
    with pytest.raises(AuthenticationFailed, match=r"credentials.*SCRAM-SHA-512") as refused:
        call()
    said = str(refused.value) + caplog.text
    assert f"Kafka at {cluster} refuses SASL_SSL, SCRAM-SHA-512, as {found['sasl.username']}" in said
    assert secured.bootstrap.properties["sasl.password"] not in said
    assert not refused.value.retriable


def _put(store):
    with store:
        store.put("users", "ada", "1")


def test_an_authority_that_is_not_trusted_is_said_at_once(secured):
    found = {name: value for name, value in secured.bootstrap.properties.items() if name != "ssl.ca.location"}
    with pytest.raises(AuthenticationFailed, match=r"certificate verify failed.*ssl\.ca\.location"):
        clients.cluster_id(Cluster(secured.bootstrap, found), 60)


@pytest.mark.slow
def test_a_broker_that_is_away_is_no_refusal(secured):
    nobody = Cluster("127.0.0.1:1", secured.bootstrap.properties)
    assert clients.cluster_id(nobody, 1) is None
    with pytest.raises(LogUnreachable) as missed:
        topics.names(clients.admin(nobody))
    assert not isinstance(missed.value, AccessDenied)


READ = (
    lambda admin, name: topics.partition_count(admin, name),
    lambda admin, name: topics.settings_of(admin, name),
    lambda admin, name: topics.epoch_of(admin, name),
    lambda admin, name: offsets.bounds(admin, name, [0]),
    lambda admin, name: offsets.ends(admin, [(name, 0)]),
    lambda admin, name: topics.set_settings(admin, name, {"retention.ms": "1"}),
    lambda admin, name: topics.create(admin, name + "-2", 1, 1, {}),
    lambda admin, name: topics.delete(admin, name),
    lambda admin, name: topics.truncate(admin, name, {0: 0}),
    lambda admin, name: topics.add_partitions(admin, name, 2),
)


@pytest.mark.parametrize("call", READ)
def test_a_lacking_acl_is_said_with_user_and_topic(secured, call):
    somebody, name = user(secured), topic(secured)
    with pytest.raises(AccessDenied) as refused:
        call(clients.admin(somebody), name)
    assert not isinstance(refused.value, AuthenticationFailed)
    assert name in str(refused.value)
    assert somebody.properties["sasl.username"] in str(refused.value)


def test_a_read_and_a_write_without_their_acls_are_refused(secured):
    Registry(secured.bootstrap).ensure_store(4)
    somebody = user(secured, [Acl("DESCRIBE", "topic", TABLES_TOPIC), Acl("READ", "group", "logstore")])
    principal = f"User:{somebody.properties['sasl.username']}"
    with pytest.raises(AccessDenied, match=f"grants {principal} no READ on topic {TABLES_TOPIC} .SASL_SSL, SCRAM"):
        Registry(somebody).read()
    with pytest.raises(
        AccessDenied, match=f"write a table definition: .* {principal} no WRITE on topic {TABLES_TOPIC}"
    ):
        Registry(somebody).forget("nothing")


def test_an_expired_certificate_is_said_at_once(tmp_path):
    """A listener with a certificate of the past: openssl's own server, since no broker starts with one."""
    from datetime import UTC, datetime  # noqa: PLC0415 - for this test only

    import trustme  # noqa: PLC0415 - this test alone makes certificates

    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=UTC))
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem")

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        serving = pool.submit(_shake_hands, listener, context)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        cluster = Cluster(address, {"security.protocol": "SSL", "ssl.ca.location": str(tmp_path / "ca.pem")})
        try:
            assert "when the certificates" in _refusal(cluster)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
        serving.result(60)


def _shake_hands(listener, context):
    """With everybody who comes, until nobody is listened to; every connection is closed here."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.settimeout(60)
        with connection, contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True):
            pass


def _refusal(cluster):
    with pytest.raises(AuthenticationFailed) as refused:
        clients.cluster_id(cluster, 60)
    return str(refused.value)


def test_a_producer_that_kafka_gives_no_id_says_at_once_which_acl_lacks(secured):
    """As of one whose WRITE is taken away while it lives, and whose id has to be had again."""
    name = topic(secured)
    somebody = user(secured, [Acl("DESCRIBE", "topic", name)])
    lacking = f"grants {somebody.principal} no WRITE on topic {name} (SASL_SSL, SCRAM-SHA-512"
    producer = Producer(somebody, delivery_timeout_s=300)
    reported = []
    try:
        with contextlib.suppress(WriteDenied):  # Kafka may have said it before the first write
            producer.send(name, b"k", b"v", lambda error, _: reported.append(error), 0)
            until("the record is reported long before its time is over", lambda: reported)
            until("it is known why", lambda: lacking in str(delivery_error(reported[0], name, producer.access)))
        with pytest.raises(WriteDenied) as refused:
            until("a write is refused", lambda: producer.send(name, b"k", b"v", lambda *_: None, 0))
        assert lacking in str(refused.value)
    finally:
        producer.close(1.0)
