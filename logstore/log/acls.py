"""ACLs of the cluster, set through the admin client."""

import re
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from logstore.log.connect.acl import CLUSTER, Acl
from logstore.log.kafka.clients import CHANGE_S
from logstore.log.kafka.errors import code, translate
from logstore.model.errors import UsageError

_PRINCIPAL = re.compile(r"[A-Za-z]+:[^\s*]\S*( \S+)*")  # Type:name, as Kafka's principal builders make them
_TYPES = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "cluster": ResourceType.BROKER}


def check_principal(principal: str) -> None:
    """Raise UsageError for what is no principal, or everybody."""
    if not _PRINCIPAL.fullmatch(principal):
        raise UsageError(f"a principal is Kafka's word for one user, such as User:ada, not {principal[:80]!r}")


def allow(client: Any, principal: str, acls: Sequence[Acl]) -> None:
    """Allow a principal what the ACLs say, from any host; those that stand already are no error.

    Raises AccessDenied (ALTER on the cluster), UsageError where Kafka keeps no ACLs, LogUnreachable.
    """
    check_principal(principal)
    bindings = [_binding(principal, acl) for acl in acls]
    for future in client.create_acls(bindings, request_timeout=CHANGE_S).values():
        try:
            future.result(CHANGE_S + 5)
        except KafkaException as error:
            if code(error) == KafkaError.SECURITY_DISABLED:
                here = client.access.cluster
                raise UsageError(f"Kafka at {here} keeps no ACLs: its brokers have no authorizer.class.name") from error
            needed = Acl("ALTER", "cluster", CLUSTER)
            raise translate(error.args[0], f"set ACLs of {principal}", client, needed) from error


def _binding(principal: str, acl: Acl) -> AclBinding:
    return AclBinding(
        _TYPES[acl.resource], acl.name, ResourcePatternType[acl.pattern], principal, "*", AclOperation[acl.operation],
        AclPermissionType.ALLOW,
    )  # fmt: skip
