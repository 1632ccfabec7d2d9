"""A worker at a broker that asks for proof: a refusal is said at once, what one table lacks holds up that table."""

import asyncio
import ssl
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Thread

import pytest
import trustme
from support_secured import PASSWORD, properties_file, take_away, user
from support_worker import WorkerProcess, make_table

from logstore import Store
from logstore.log import acls
from logstore.log.connect.acl import Acl
from logstore.log.connect.cluster import Cluster
from logstore.log.connect.roles import acls_of
from logstore.log.kafka import clients
from logstore.log.tables.registry import Registry
from logstore.model.errors import AuthenticationFailed
from logstore.process.heartbeat import HOPELESS
from logstore.view.feed.log_records import EndsKey, EndsRecord
from logstore.view.feed.table_records import TablesKey, TablesRecord
from logstore.view.feed.view_records import ViewKey
from streaming.transport import check_transport

PATIENCE_S = 100


def ended(worker):
    """What a worker said last, which ended by itself as one that nobody should start again."""
    assert worker.process.wait(PATIENCE_S) == HOPELESS, worker.log()
    assert "Traceback" not in worker.log()
    assert PASSWORD not in worker.log()
    return worker.log().splitlines()[-1]


@contextmanager
def started(tmp_path, cluster):
    config = properties_file(tmp_path / "kafka.properties", cluster)
    environ = {"LOGSTORE_KAFKA_CONFIG": str(config)}
    worker = WorkerProcess(str(cluster), tmp_path / "data", group=f"g-{tmp_path.parent.name}", environ=environ)
    try:
        yield worker.start()
    finally:
        worker.kill()
        print(worker.log())


@contextmanager
def expired(tmp_path):
    """A listener with a certificate of the past: openssl's own server, since no broker starts with one."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=UTC))
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem")
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(_hang_up, "127.0.0.1", 0, ssl=context))
    thread = Thread(target=loop.run_forever)
    thread.start()
    found = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "ada"}
    proof = found | {"sasl.password": PASSWORD, "ssl.ca.location": str(tmp_path / "ca.pem")}
    try:
        yield Cluster(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", proof)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.run_until_complete(server.wait_closed())
        loop.close()


async def _hang_up(_, writer):
    writer.close()


def other_authority(tmp_path, cluster):
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    return Cluster(cluster, cluster.properties | {"ssl.ca.location": str(tmp_path / "other.pem")})


def with_password(cluster, password):
    return Cluster(cluster, cluster.properties | {"sasl.password": password})


def test_fausts_own_transport_says_as_the_others_what_refuses_it(secured, tmp_path):
    somebody = user(secured)
    check_transport(somebody)
    for cluster, said in (
        (with_password(somebody, "canary-wrong"), "credentials"),
        (other_authority(tmp_path, somebody), r"certificate verify failed.*ssl\.ca\.location"),
        (Cluster(somebody, somebody.properties | {"sasl.mechanism": "PLAIN"}), "PLAIN"),
    ):
        with pytest.raises(AuthenticationFailed, match=said) as refused:
            check_transport(cluster)
        assert f"Kafka at {cluster} refuses {cluster.identity}" in str(refused.value)
        assert "canary" not in str(refused.value)


def test_an_expired_certificate_ends_a_worker_at_once_and_its_transport_says_so_too(tmp_path):
    with expired(tmp_path) as cluster:
        with pytest.raises(AuthenticationFailed, match=r"expired.*when the certificates"):
            check_transport(cluster)
        with started(tmp_path, cluster) as worker:
            assert f"Kafka at {cluster} refuses SASL_SSL, PLAIN, as ada" in ended(worker)


@pytest.mark.parametrize("wrong", ["password", "authority"])
def test_who_is_refused_ends_at_once(secured, tmp_path, wrong):
    somebody = user(secured, acls_of("node"))
    made = {"password": with_password(somebody, "canary-wrong"), "authority": other_authority(tmp_path, somebody)}
    with started(tmp_path, made[wrong]) as worker:
        assert f"refuses SASL_SSL, SCRAM-SHA-512, as {somebody.properties['sasl.username']}" in ended(worker)
        assert "canary" not in worker.log()


def test_a_lacking_acl_ends_a_worker_and_is_named(secured, tmp_path):
    lacking = Acl("READ", "topic", "logstore.nodes")
    somebody = user(secured, [acl for acl in acls_of("node", "users") if acl != lacking])
    with started(tmp_path, somebody) as worker:
        assert f"grants {somebody.principal} no READ on topic logstore.nodes (SASL_SSL, SCRAM-SHA-512" in ended(worker)


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_a_table_that_may_not_be_seen_holds_up_itself_alone(secured, tmp_path):
    Registry(secured.bootstrap).ensure_store(4)
    stays, goes, never = (make_table(secured.bootstrap, 1) for _ in range(3))
    somebody = user(secured, [*acls_of("node", stays.topic), *_rows(goes)])
    with started(tmp_path, somebody) as worker, writer(secured) as put:
        watch = worker.watch
        watch.position(stays, 0, put(stays) + 1)
        watch.position(goes, 0, put(goes) + 1)
        shown = watch.state(never, 0, "stopped")
        assert f"no DESCRIBE on topic {never.topic}" in shown.reason

        take_away(secured.bootstrap, somebody.principal, goes.topic)
        watch.until("the table says what it lacks", lambda values: goes.topic in _reason(values, goes))
        watch.until("nothing is known of its end", lambda values: (goes.epoch, 0, -1) in _ends(values).silent)
        behind = put(goes)
        later = make_table(secured.bootstrap, 1)  # which the others have to hear of all the same
        acls.allow(clients.admin(secured.bootstrap), somebody.principal, _rows(later))
        watch.position(later, 0, put(later) + 1)
        watch.until("readers are told", lambda values: _tables(values).revision >= later.revision)
        watch.position(stays, 0, put(stays) + 1)
        assert _at(watch.values, goes) <= behind

        for table in (goes, never):
            acls.allow(clients.admin(secured.bootstrap), somebody.principal, _rows(table))
        watch.position(goes, 0, behind + 1)
        watch.state(never, 0, "live")
        watch.until("its end is known", lambda values: (goes.epoch, 0, -1) not in _ends(values).silent)


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_a_worker_that_comes_back_to_a_table_it_may_not_see_any_more_serves_what_it_has(secured, tmp_path):
    Registry(secured.bootstrap).ensure_store(4)
    stays, goes = make_table(secured.bootstrap, 1), make_table(secured.bootstrap, 1)
    somebody = user(secured, [*acls_of("node", stays.topic), *_rows(goes)])
    with started(tmp_path, somebody) as worker, writer(secured) as put:
        worker.watch.position(stays, 0, put(stays) + 1)
        worker.watch.position(goes, 0, put(goes) + 1)
        assert worker.stop() == 0
        take_away(secured.bootstrap, somebody.principal, goes.topic)
        worker.start()
        worker.watch.until("the table says what it lacks", lambda values: goes.topic in _reason(values, goes))
        assert _view(worker.watch.values, goes).path
        worker.watch.position(stays, 0, put(stays) + 1)


def _rows(table):
    return [acl for acl in acls_of("node", table.topic) if acl.name == table.topic]


@contextmanager
def writer(secured):
    with Store(str(secured.bootstrap), kafka=secured.bootstrap.properties) as store:
        yield lambda table: store.put(table.name, "k", "v").offset


def _view(values, table):
    return next((value for key, value in values.items() if isinstance(key, ViewKey) and key.table == table.name), None)


def _reason(values, table):
    return getattr(_view(values, table), "reason", "")


def _ends(values):
    return values.get(EndsKey(), EndsRecord())


def _tables(values):
    return values.get(TablesKey(), TablesRecord())


def _at(values, table):
    return next(v.next_offset for k, v in values.items() if type(k).__name__ == "AppliedKey" and k.epoch == table.epoch)
