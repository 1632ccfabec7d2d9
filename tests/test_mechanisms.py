"""Every way to prove who one is, at one real broker, for both of the store's clients: librdkafka, Faust's aiokafka."""

import asyncio
import base64
import json
import socket
import time
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from aiokafka import AIOKafkaConsumer
from cryptography.hazmat.primitives import serialization
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from support_secured import PASSWORD, user

from logstore.broker.embedded import EmbeddedKafka
from logstore.broker.security import ADMIN, BrokerSecurity
from logstore.log import topics
from logstore.log.connect.acl import Acl
from logstore.log.connect.cluster import Cluster
from logstore.log.connect.sources import properties_in
from logstore.log.kafka import clients
from logstore.model.errors import AuthenticationFailed, UsageError
from streaming.credentials import ClientCredentials, credentials, tls

SECRET = "canary-of-a-client"
BY_PASSWORD = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_MODULE = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"


class EveryWay(BrokerSecurity):
    """The listeners of a secured broker, tokens that nobody signed (Kafka's own, for tests), and one without TLS."""

    def prepare(self, identity):
        super().prepare(identity)
        self.identity = identity
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.open_port = free.getsockname()[1]

    def broker_settings(self):
        ways, at = super().broker_settings(), "127.0.0.1"
        ways = ways.replace("SCRAM-SHA-512\n", "SCRAM-SHA-512,OAUTHBEARER\n")
        module = f'{_MODULE} required unsecuredLoginStringClaim_sub="x";'
        ways += f"listener.name.clients.oauthbearer.sasl.jaas.config={module}\n"
        public = (
            f"CLIENTS://{at}:{self.identity.port},OPEN://{at}:{self.open_port},"
            f"CERTIFICATES://{at}:{self.identity.certificates_port}"
        )
        return (
            f"{ways}{ways.replace('name.clients', 'name.open')}"
            f"listeners={public},CONTROLLER://{at}:{self.identity.controller_port}\nadvertised.listeners={public}\n"
            "listener.security.protocol.map=CLIENTS:SASL_SSL,OPEN:SASL_PLAINTEXT,CERTIFICATES:SSL,CONTROLLER:SSL\n"
        )


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    own = EmbeddedKafka(tmp_path_factory.mktemp("ways"), heap_mb=256, secure=True)
    own.security = EveryWay(own.data_dir)
    with own:
        yield own


@pytest.fixture(scope="module")
def topic(broker):
    name = f"t-{uuid.uuid4().hex[:8]}"
    assert topics.create(clients.admin(broker.bootstrap), name, 1, 1, {})
    return name


@contextmanager
def token_endpoint():
    """A token endpoint for one client (RFC 6749, 4.4), whose tokens carry no signature."""

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self):
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            proof = base64.b64encode(f"{ADMIN}:{SECRET}".encode()).decode()
            known = self.headers["Authorization"] == f"Basic {proof}" and "grant_type=client_credentials" in form
            answer = {"access_token": _token(ADMIN), "token_type": "Bearer", "expires_in": 3600}
            body = json.dumps(answer if known else {"error": "invalid_client"}).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/token"
        finally:
            server.shutdown()


def _token(subject):
    now = int(time.time())
    parts = ({"alg": "none"}, {"sub": subject, "iat": now, "exp": now + 3600})
    return ".".join([*(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts), ""])


def by_token(broker, endpoint, protocol="SASL_SSL", secret=SECRET):
    found = {
        "security.protocol": protocol, "sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": ADMIN, "sasl.oauthbearer.client.secret": secret,
        "sasl.oauthbearer.token.endpoint.url": endpoint,
    }  # fmt: skip
    return at(broker, protocol, found)


def by_password(broker, mechanism, protocol):
    return at(broker, protocol, broker.bootstrap.properties | {"sasl.mechanism": mechanism})


def at(broker, protocol, found):
    """The listener of a protocol, with what TLS needs where there is TLS."""
    found = {**found, "security.protocol": protocol}
    if protocol == "SASL_SSL":
        return Cluster(broker.bootstrap, found | {"ssl.ca.location": broker.bootstrap.properties["ssl.ca.location"]})
    return Cluster(f"127.0.0.1:{broker.security.open_port}", {k: v for k, v in found.items() if k != "ssl.ca.location"})


def librdkafka_sees(cluster, topic):
    return topic in topics.names(clients.admin(cluster))


def faust_sees(cluster, topic):
    """As Faust's transport connects."""
    proof = credentials_to_aiokafka_auth(credentials(cluster))

    async def partitions():
        async with AIOKafkaConsumer(topic, bootstrap_servers=str(cluster), **proof) as consumer:
            return consumer.partitions_for_topic(topic)

    return asyncio.run(partitions()) == {0}


BOTH = pytest.mark.parametrize("sees", [librdkafka_sees, faust_sees])


@BOTH
@pytest.mark.parametrize("protocol", ["SASL_SSL", "SASL_PLAINTEXT"])
@pytest.mark.parametrize("mechanism", BY_PASSWORD)
def test_a_password_is_taken(broker, topic, sees, protocol, mechanism):
    assert sees(by_password(broker, mechanism, protocol), topic)


@BOTH
@pytest.mark.parametrize("protocol", ["SASL_SSL", "SASL_PLAINTEXT"])
def test_a_token_is_taken(broker, topic, sees, protocol):
    with token_endpoint() as endpoint:
        assert sees(by_token(broker, endpoint, protocol), topic)


@pytest.fixture
def encrypted(broker, tmp_path):
    """Properties of the client whose key lies encrypted."""
    found = properties_in(broker.security.certificate_settings)
    key, made = tmp_path / "key.pem", serialization.BestAvailableEncryption(SECRET.encode())
    with open(found["ssl.key.location"], "rb") as file:
        own = serialization.load_pem_private_key(file.read(), None)
    key.write_bytes(own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, made))
    address = found.pop("bootstrap.servers")
    return address, found | {"ssl.key.location": str(key), "ssl.key.password": SECRET}


@BOTH
def test_an_encrypted_key_is_taken(encrypted, topic, sees):
    assert sees(Cluster(*encrypted), topic)


def test_a_wrong_password_of_a_key_is_an_error_at_once_for_both(encrypted):
    address, found = encrypted
    found = found | {"ssl.key.password": "canary-wrong"}
    with pytest.raises(UsageError, match=r"ssl\.key\.location") as refused:
        clients.admin(Cluster(address, found))
    assert "canary" not in str(refused.value)
    with pytest.raises(UsageError, match=r"ssl\.key\.password") as refused:
        tls(found)
    assert "canary" not in str(refused.value)


def test_a_wrong_secret_of_a_client_is_said_at_once_for_both(broker, caplog):
    with token_endpoint() as endpoint:
        wrong = by_token(broker, endpoint, secret="canary-wrong")
        with pytest.raises(AuthenticationFailed, match="OAUTHBEARER, as admin") as refused:
            clients.cluster_id(wrong, 60)
        with pytest.raises(AuthenticationFailed, match="gives no token to the client admin") as by_faust:
            asyncio.run(ClientCredentials(wrong.properties).token())
    assert "canary" not in f"{refused.value} {by_faust.value} {caplog.text}"


def test_a_password_that_is_changed_lets_go_on_who_is_in_and_nobody_else(broker, topic):
    """Kafka proves a connection once: what runs goes on until it has to connect anew, and then the error is typed."""
    cluster = user(broker, [Acl("WRITE", "topic", topic)])
    producer = clients.producer(cluster)
    assert _written(producer, topic) == [None]  # over the connection to the leader, which stands from now on
    _change_password(broker, cluster.properties["sasl.username"])
    assert _written(producer, topic) == [None]
    with pytest.raises(AuthenticationFailed, match="credentials"):
        _until_refused(cluster)


def _written(producer, topic):
    """The error of one record's delivery, or None."""
    reports = []
    producer.produce(topic, b"x", on_delivery=lambda error, _: reports.append(error))
    assert producer.flush(60) == 0
    return reports


def _change_password(broker, name):
    from confluent_kafka.admin import (  # noqa: PLC0415 - for this test only
        ScramCredentialInfo,
        ScramMechanism,
        UserScramCredentialUpsertion,
    )

    change = UserScramCredentialUpsertion(name, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), b"another")
    clients.admin(broker.bootstrap).alter_user_scram_credentials([change])[name].result(30)
    assert PASSWORD != "another"


def _until_refused(cluster):
    deadline_s = time.monotonic() + 90
    while time.monotonic() < deadline_s:  # the broker learns of it a moment later
        clients.cluster_id(cluster, 60)
