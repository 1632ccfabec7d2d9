"""ACL: what Kafka's authorizer has to allow a principal, by Kafka's own words.

`operation` on a `resource` of a name: READ on topic logstore.tables; a prefixed name stands for all that begin with it.
"""

from typing import NamedTuple

LITERAL, PREFIXED = "LITERAL", "PREFIXED"
CLUSTER = "kafka-cluster"  # the one name of the resource "cluster"


class Acl(NamedTuple):
    """One ACL, whoever it is for. `resource`: topic, group or cluster."""

    operation: str
    resource: str
    name: str
    pattern: str = LITERAL

    def __str__(self) -> str:
        if self.resource == "cluster":
            return f"{self.operation} on the cluster"
        return f"{self.operation} on {self.resource} {self.name}{'*' if self.pattern == PREFIXED else ''}"


def topic(operation: str, name: str) -> Acl:
    """An ACL on a topic."""
    return Acl(operation, "topic", name)
