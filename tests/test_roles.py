"""Roles: each does its work with exactly its ACLs, and each ACL that lacks is named by a typed error."""

import re
import uuid
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner
from support_secured import granted_to, take_away, user
from support_wait import until

from logstore import Store
from logstore.cli.main import cli
from logstore.log import acls, control, topics
from logstore.log.connect.acl import Acl
from logstore.log.connect.roles import EVERY, ROLES, acls_of
from logstore.log.kafka import clients, offsets
from logstore.log.kafka.records import read_records
from logstore.log.membership.live_workers import LiveWorkers
from logstore.log.membership.permissions import check_worker
from logstore.log.read.tail import End, Tail, Trouble
from logstore.log.tables import ddl, repairs
from logstore.log.tables.registry import Registry
from logstore.model.errors import AccessDenied, BadDefinition, NoSuchTable, UsageError, WriteDenied

PAGE = Path(__file__).parents[1] / "docs" / "security.md"
_IMPLIES = {"READ", "WRITE", "DELETE", "ALTER_CONFIGS"}  # DESCRIBE, which Kafka asks for first


@pytest.fixture(scope="module")
def table(secured):
    """A table on the broker, made by its superuser."""
    registry = Registry(secured.bootstrap)
    registry.ensure_store(4)
    return ddl.create(registry, f"t{uuid.uuid4().hex[:8]}", partitions=1).table


def writes(cluster, name):
    with Store(str(cluster), kafka=cluster.properties) as store:
        store.put(name, "ada", "1")


def reads(cluster, name):
    table = Registry(cluster).table(name)
    end = offsets.bounds(clients.admin(cluster), table.topic, [0])[0].end
    list(read_records(cluster, table.topic, 0, 0, end))


def starts_a_node(cluster, _):
    registry = Registry(cluster)
    registry.ensure_store(4)
    registry.read()
    registry.write_storage("file:///tmp/logstore")
    check_worker(cluster, "logstore.default")


def follows(cluster, name):
    table, tail = Registry(cluster).table(name), Tail(cluster, group="logstore.default.applied")
    try:
        tail.follow(table.topic, 0, 0)
        last = until("the end", lambda: next((e for e in tail.take(1) if isinstance(e, (End, Trouble))), None))
    finally:
        tail.close()
    if isinstance(last, Trouble):
        raise AccessDenied(last.detail)


def cuts(cluster, name):
    control.append_control(cluster, Registry(cluster).table(name), "cut", {"job": "test"})


def looks_at_nodes(cluster, _):
    with LiveWorkers(cluster) as live_workers:
        live_workers.look()


def trims(cluster, name):
    topics.truncate(clients.admin(cluster), Registry(cluster).table(name).topic, {0: 0})


def rules_a_table_twice(cluster, name):
    registry = Registry(cluster)
    registry.slots()
    for _ in range(2):
        table = ddl.create(registry, name, partitions=1).table
        ddl.alter(registry, name, topic_config={"segment.ms": "600000"})
        control.append_control(cluster, table, "fence", {})
        repairs.examine(registry, table, 0)
        kafka_log = read_records(cluster, table.topic, 0, 0, 1)
        assert len(list(kafka_log)) == 1
        assert ddl.delete_topic(registry, ddl.drop(registry, name).table)


WORK = {
    "writer": [writes],
    "reader": [reads],
    "node": [starts_a_node, follows, cuts],
    "batch": [reads, cuts, looks_at_nodes, trims],
    "admin": [looks_at_nodes, rules_a_table_twice],
}
EACH = [(role, acl) for role, needed in ROLES.items() for acl in needed]


def new_name():
    return f"t{uuid.uuid4().hex[:8]}"


def does(role, cluster, name):
    for work in WORK[role]:
        work(cluster, name)


def place(role, table):
    return new_name() if role == "admin" else table.name


@pytest.mark.parametrize("role", ROLES)
def test_a_role_does_its_work_with_its_acls_alone(secured, table, role):
    name = place(role, table)
    cluster = user(secured, acls_of(role, name))
    does(role, cluster, name)


@pytest.mark.parametrize(("role", "lacking"), EACH, ids=[f"{role}: {acl}" for role, acl in EACH])
@pytest.mark.slow
def test_an_acl_that_lacks_is_named(secured, table, role, lacking):
    name = place(role, table)
    lacking = next(a for a, general in zip(acls_of(role, name), ROLES[role], strict=True) if general == lacking)
    cluster = user(secured, [acl for acl in acls_of(role, name) if acl != lacking])
    with pytest.raises(AccessDenied) as refused:
        does(role, cluster, name)
    assert _names(lacking, str(refused.value)), refused.value
    assert f"User:{cluster.properties['sasl.username']} no " in str(refused.value)
    assert not refused.value.retriable


def _names(lacking, text):
    operation, resource, name = re.search(r" no ([A-Z_]+) on (topic|group) ([\w.-]+)", text).groups()
    same = name.startswith(lacking.name) if lacking.pattern == "PREFIXED" else name == lacking.name
    implied = operation == "DESCRIBE" and lacking.operation in _IMPLIES
    if operation == "DESCRIBE_CONFIGS":
        implied = lacking.operation == "ALTER_CONFIGS"
    return resource == lacking.resource and same and (operation == lacking.operation or implied)


def test_a_writer_without_write_is_told_before_anything_is_sent(secured, table):
    cluster = user(secured, acls_of("reader", table.topic))
    with Store(str(cluster), kafka=cluster.properties) as store:
        for write in (
            lambda: store.put(table.name, "ada", "1"),
            lambda: store.put_many(table.name, [("ada", "1")]),
            lambda: store.pipeline(table.name),
        ):
            with pytest.raises(AccessDenied, match=f"no WRITE on topic {table.topic} .SASL_SSL, SCRAM-SHA-512, as u"):
                write()


def test_a_writer_whose_write_is_taken_away_is_told_by_its_writes(secured, table):
    cluster = user(secured, [*acls_of("writer", table.topic), Acl("WRITE", "topic", "another")])
    principal = f"User:{cluster.properties['sasl.username']}"
    with Store(str(cluster), kafka=cluster.properties) as store:
        store.put(table.name, "ada", "1")
        take_away(secured.bootstrap, principal, table.topic, "WRITE")

        def refusal():
            try:
                store.put(table.name, "ada", "2")
            except AccessDenied as error:
                return error
            return None

        error = until("a write is refused", refusal)
        assert f"{principal} no WRITE on topic {table.topic}" in str(error)
        assert isinstance(error, WriteDenied) or "before" not in str(error)


def run(*argv):
    return CliRunner().invoke(cli, ["acl", *argv], catch_exceptions=True)


@pytest.fixture
def as_admin(secured, monkeypatch):
    """Options of a command that the broker's superuser runs."""
    monkeypatch.delenv("LOGSTORE_KAFKA_CONFIG", raising=False)
    return "--bootstrap", str(secured.bootstrap), "--kafka-config", str(secured.security.client_settings)


def test_the_command_prints_and_sets_the_acls_of_a_role(secured, table, as_admin):
    name = new_name()
    words = ("--principal", f"User:{name}", "--role", "writer", "--table", table.name, *as_admin)
    printed = run(*words)
    assert [line.split("\t") for line in printed.stdout.splitlines()[1:]] == [
        [*acl, f"User:{name}"] for acl in acls_of("writer", table.topic)
    ]
    assert granted_to(clients.admin(secured.bootstrap), f"User:{name}") == []
    done = orjson.loads(run(*words, "--apply", "--json").stdout)
    assert done == {
        "principal": f"User:{name}", "role": "writer", "applied": True,
        "acls": [acl._asdict() for acl in acls_of("writer", table.topic)],
    }  # fmt: skip
    until("the broker has them", lambda: len(granted_to(clients.admin(secured.bootstrap), f"User:{name}")) == 3)
    assert run(*words, "--apply").exit_code == 0, "what stands already is no error"


def test_the_command_prints_calls_of_kafkas_own_tool():
    lines = run(
        "--principal", "User:ada b", "--role", "node", "--bootstrap", "kafka:9092", "--commands"
    ).stdout.splitlines()
    assert len(lines) == len(acls_of("node"))
    assert lines[-1] == (
        "kafka-acls.sh --bootstrap-server kafka:9092 --command-config admin.properties --add --allow-principal "
        "'User:ada b' --operation Write --topic '*' --resource-pattern-type literal"
    )
    assert any("--operation DescribeConfigs --topic logstore.slots" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (("--principal", "ada", "--role", "writer"), UsageError, "such as User:ada"),
        (("--principal", "User:*", "--role", "writer"), UsageError, "one user"),
        (("--principal", "User:ada", "--role", "king"), UsageError, "there are writer, reader, node, batch, admin"),
        (("--principal", "User:ada", "--role", "admin", "--table", "NO"), BadDefinition, "name"),
        (("--principal", "User:ada", "--role", "reader", "--table", "nothing"), NoSuchTable, "no table 'nothing'"),
    ],
)
def test_what_cannot_be_a_role_is_a_typed_error(secured, table, as_admin, words, kind, said):
    refused = run(*words, *as_admin).exception
    assert type(refused) is kind
    assert said in str(refused)


def test_who_may_not_set_acls_is_told_so(secured):
    cluster = user(secured)
    with pytest.raises(AccessDenied, match="no ALTER on the cluster"):
        acls.allow(clients.admin(cluster), "User:ada", acls_of("writer"))


def test_a_broker_without_acls_says_so(kafka):
    with pytest.raises(UsageError, match="keeps no ACLs"):
        acls.allow(clients.admin(kafka.bootstrap), "User:ada", acls_of("writer"))


def test_the_page_lists_the_roles_as_they_are():
    rows = re.findall(r"^\| (\w+) \| ((?:[A-Z_]+,? ?)+) \| (\w+) \| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)
    listed = [
        (role, Acl(operation, resource, name.removesuffix("*"), "PREFIXED" if name.endswith("*") else "LITERAL"))
        for role, operations, resource, name in rows
        for operation in operations.split(", ")
    ]
    assert sorted(listed) == sorted(EACH)


def test_every_topic_stands_for_those_of_the_store_too():
    assert acls_of("writer") == [
        Acl("READ", "topic", "logstore.tables"), Acl("DESCRIBE", "group", "logstore"), Acl("WRITE", "topic", EVERY)
    ]  # fmt: skip
    assert [str(acl) for acl in acls_of("reader")] == ["DESCRIBE on group logstore", "READ on topic *"]
