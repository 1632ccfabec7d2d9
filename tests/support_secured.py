"""Users of a broker that keeps ACLs."""

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from support_wait import until

from logstore.log import acls
from logstore.log.connect.acl import Acl
from logstore.log.connect.cluster import Cluster
from logstore.log.kafka import clients
from logstore.model.errors import AuthenticationFailed

PASSWORD = "canary-of-a-user"


def user(secured, granted: Iterable[Acl] = (), *, mechanism: str = "SCRAM-SHA-512") -> Cluster:
    """A new user, whom the broker knows, with these ACLs, as a cluster of its own."""
    return user_of(secured.bootstrap, granted, mechanism=mechanism)


def user_of(bootstrap: Cluster, granted: Iterable[Acl] = (), *, mechanism: str = "SCRAM-SHA-512") -> Cluster:
    """A new user of the broker of which `bootstrap` is the admin."""
    name, admin = f"u{uuid.uuid4().hex[:8]}", clients.admin(bootstrap)
    allowed = list(granted)
    if allowed:
        acls.allow(admin, f"User:{name}", allowed)
    info = ScramCredentialInfo(ScramMechanism[mechanism.replace("-", "_")], 4096)
    admin.alter_user_scram_credentials([UserScramCredentialUpsertion(name, info, PASSWORD.encode())])[name].result(30)
    found = {"sasl.username": name, "sasl.password": PASSWORD, "sasl.mechanism": mechanism}
    cluster = Cluster(bootstrap, bootstrap.properties | found)
    until(f"the broker knows {name}", lambda: _is_known(cluster))
    until(f"the broker knows what {name} may do", lambda: len(granted_to(admin, f"User:{name}")) == len(allowed))
    return cluster


def properties_file(path: Path, cluster: Cluster) -> Path:
    """A file of the cluster's properties, as `--kafka-config` wants it."""
    path.write_text("".join(f"{name}={value}\n" for name, value in cluster.properties.items()))
    return path


def take_away(bootstrap: Cluster, principal: str, topic: str, operation: str = "ANY") -> None:
    """Take a principal's ACLs on a topic away, which the store itself never does."""
    chosen = AclBindingFilter(
        ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, principal, "*", AclOperation[operation],
        AclPermissionType.ALLOW,
    )  # fmt: skip
    assert clients.admin(bootstrap).delete_acls([chosen])[chosen].result(30)


def granted_to(admin: Any, principal: str) -> list[Any]:
    """ACLs of a principal, as the broker's authorizer has them."""
    every = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, principal, None, AclOperation.ANY, AclPermissionType.ANY
    )
    return list(admin.describe_acls(every).result(30))


def _is_known(cluster: Cluster) -> bool:
    """The broker takes the user: it learns of one a moment after its controller has answered."""
    try:
        return clients.cluster_id(cluster, 30) is not None
    except AuthenticationFailed:
        return False
