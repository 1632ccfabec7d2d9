"""Permissions of a worker, looked at before it begins: what it lacks later would only be seen as silence.

Kafka says with its descriptions what is allowed (KIP-430), so nothing is read, written or joined for it.
"""

from logstore.log.connect.cluster import Cluster
from logstore.log.kafka import clients
from logstore.log.kafka.descriptions import check_group, describe
from logstore.model.table import NODES_TOPIC, SLOTS_TOPIC, TABLES_TOPIC

_NEEDED = ((TABLES_TOPIC, "READ"), (NODES_TOPIC, "READ"), (NODES_TOPIC, "WRITE"), (SLOTS_TOPIC, "READ"))


def group_of(replica_group: str) -> str:
    """The consumer group of the workers of a replica group."""
    return f"logstore.{replica_group}"


def check_worker(bootstrap: str, group: str) -> None:
    """Raise AccessDenied for the first of a worker's permissions that lacks. Raises LogUnreachable.

    `group`: that of its slots; the group of its positions is `<group>.applied`. Who proves nothing to Kafka is not
    looked at: what keeps ACLs wants proof.
    """
    if not Cluster.of(bootstrap).properties:
        return
    client = clients.admin(bootstrap)
    for topic, operation in _NEEDED:
        describe(client, [topic], wanted=operation)
    for each in (group, f"{group}.applied"):
        check_group(client, each)
