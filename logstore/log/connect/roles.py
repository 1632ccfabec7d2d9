"""Roles: the least ACLs of a principal by what it does with a store; docs/security.md shows the same table.

    writer   writes rows: `Store.put`, `logstore load`
    reader   reads the log itself: Spark's data source; who reads over HTTP needs nothing of Kafka
    node     follows tables and serves them, with its schedule of compactions; its first start makes the store
    batch    archives, compacts, audits and trims
    admin    makes, alters, repairs, promotes and drops tables

TOPIC stands for the topic of a table, and for all of them where none is named. An admin's table is a name instead: it
has no topic yet, and gets `NAME.2` when it is made again (`tables.topic_names`).
"""

from collections.abc import Mapping

from logstore.log.connect.acl import LITERAL, PREFIXED, Acl
from logstore.model.errors import UsageError
from logstore.model.table import NODES_TOPIC, SLOTS_TOPIC, TABLES_TOPIC

TOPIC, EVERY = "TOPIC", "*"
_GENERATIONS = f"{TOPIC}."
_GROUP = "logstore"  # of consumers without a group of their own; those of nodes begin with it


def _topics(operations: str, *names: str, pattern: str = LITERAL) -> tuple[Acl, ...]:
    return tuple(Acl(operation, "topic", name, pattern) for name in names for operation in operations.split())


_READS_DEFINITIONS = (*_topics("READ", TABLES_TOPIC), Acl("DESCRIBE", "group", _GROUP))
_SEES_WORKERS = _topics("READ WRITE", NODES_TOPIC)  # it asks by a record of its own
_OWNS = "READ WRITE CREATE DELETE ALTER_CONFIGS"  # the last one implies DESCRIBE_CONFIGS

ROLES: Mapping[str, tuple[Acl, ...]] = {
    "writer": (*_READS_DEFINITIONS, *_topics("WRITE", TOPIC)),
    "reader": (*_READS_DEFINITIONS, *_topics("READ", TOPIC)),
    "node": (
        *_topics("READ WRITE CREATE DESCRIBE_CONFIGS", TABLES_TOPIC, NODES_TOPIC),
        *_topics("READ CREATE DESCRIBE_CONFIGS", SLOTS_TOPIC),
        Acl("READ", "group", _GROUP, PREFIXED),
        *_topics("READ WRITE", TOPIC),
    ),
    "batch": (*_READS_DEFINITIONS, *_SEES_WORKERS, *_topics("READ WRITE DELETE", TOPIC)),
    "admin": (
        *_READS_DEFINITIONS, *_topics("WRITE", TABLES_TOPIC), *_SEES_WORKERS, *_topics("DESCRIBE", SLOTS_TOPIC),
        *_topics(_OWNS, TOPIC), *_topics(_OWNS, _GENERATIONS, pattern=PREFIXED),
    ),
}  # fmt: skip


def acls_of(role: str, topic: str = EVERY) -> list[Acl]:
    """The ACLs of a role on one topic, of an admin on a table's name, or on every topic. Raises UsageError."""
    if role not in ROLES:
        raise UsageError(f"there is no role {role!r}; there are {', '.join(ROLES)}")
    if topic == EVERY:
        return _on_every_topic(ROLES[role])
    return [acl._replace(name=acl.name.replace(TOPIC, topic)) for acl in ROLES[role]]


def _on_every_topic(acls: tuple[Acl, ...]) -> list[Acl]:
    """ACLs on the topic `*`, and those that they do not cover."""
    every = {acl.operation for acl in acls if acl.name == TOPIC}
    covered = every | {"DESCRIBE"}  # which READ and WRITE imply
    others = [acl for acl in acls if acl.resource != "topic" or not (TOPIC in acl.name or acl.operation in covered)]
    return [*others, *(acl._replace(name=EVERY) for acl in acls if acl.name == TOPIC)]
