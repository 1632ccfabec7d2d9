"""Cluster: Kafka's address, and how a client proves there who it is.

As text it is the address alone: what is printed, logged, sent to another process or kept in a file holds no secret.
Every client's configuration is made here, of the cluster's properties and of those that the client needs for its work.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from logstore.log.connect.checks import check, normal
from logstore.log.connect.sources import process_properties, properties_in
from logstore.model.errors import UsageError

# The store's promises rest on them, or other settings of ours say them.
RELIED_ON = frozenset(
    {
        "acks", "request.required.acks", "enable.idempotence", "enable.gapless.guarantee", "transactional.id",
        "partitioner", "partitioner_cb", "max.in.flight", "max.in.flight.requests.per.connection", "retries",
        "message.send.max.retries", "message.max.bytes", "allow.auto.create.topics", "topic.blacklist",
        "auto.offset.reset", "enable.auto.commit", "enable.auto.offset.store", "auto.commit.enable", "group.id",
        "group.protocol", "isolation.level", "check.crcs", "enable.partition.eof",
        "linger.ms", "queue.buffering.max.ms", "compression.type", "compression.codec", "delivery.timeout.ms",
        "message.timeout.ms", "queue.buffering.max.messages", "queue.buffering.max.kbytes",
        "error_cb", "on_delivery", "on_commit", "default.topic.config", "plugin.library.paths",
    }
)  # fmt: skip
_NOT_SECRET = ("security.protocol", "sasl.mechanism", "sasl.username")


class Cluster(str):
    """An address `host:port[,host:port]` with librdkafka properties; immutable, hashable, never pickled with secrets.

    Another process that it is sent to takes the properties from its own environment or files.
    """

    __slots__ = ("_properties",)
    _properties: tuple[tuple[str, Any], ...]

    def __new__(cls, address: str, properties: Mapping[str, Any] | None = None) -> Self:
        """Normalise and check the properties. Raises UsageError when they contradict each other, or the store."""
        found = normal(properties or {})
        for name in found:
            if name in RELIED_ON:
                raise UsageError(f"Kafka's property {name} is the store's own, which relies on it; leave it out")
            if name == "bootstrap.servers":
                raise UsageError("bootstrap.servers is not among Kafka's properties; the address is given as bootstrap")
        check(found)
        self = super().__new__(cls, address)
        self._properties = tuple(sorted(found.items(), key=lambda item: item[0]))
        return self

    @classmethod
    def of(cls, bootstrap: str) -> "Cluster":
        """The cluster at `bootstrap`: as it is, or with what this process's environment and files say of Kafka."""
        return bootstrap if isinstance(bootstrap, Cluster) else cls(bootstrap, process_properties())

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> "Cluster":
        """The cluster of a node that runs here, by its record (`process.running_node`)."""
        config = record.get("kafka_config")
        if config is None:
            return cls.of(str(record["bootstrap"]))
        found = properties_in(Path(config))
        return cls(str(record["bootstrap"]), {name: found[name] for name in found if name != "bootstrap.servers"})

    @property
    def properties(self) -> dict[str, Any]:
        """Properties of every client."""
        return dict(self._properties)

    def configuration(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration of a client that needs `own` for its work."""
        return {**own, **self.properties, "bootstrap.servers": str(self)}

    @property
    def identity(self) -> str:
        """Protocol, mechanism and user, for people."""
        found = self.properties
        protocol, mechanism = found.get("security.protocol", "PLAINTEXT"), found.get("sasl.mechanism")
        return f"{protocol}{f', {mechanism}' if mechanism else ''}, as {self._user or self._owner or 'anybody'}"

    @property
    def principal(self) -> str:
        """Kafka's word for the user, by which ACLs are kept; that of a certificate is the broker's to say."""
        return f"User:{self._user}" if self._user else self._owner or "User:ANONYMOUS"

    @property
    def _user(self) -> str | None:
        found = self.properties
        if found.get("sasl.mechanism") == "OAUTHBEARER":
            return found.get("sasl.oauthbearer.client.id")
        return found.get("sasl.username")

    @property
    def _owner(self) -> str | None:
        own = self.properties.get("ssl.certificate.location")
        return f"the owner of {own}" if own else None

    def __str__(self) -> str:
        return str.__str__(self)

    def __repr__(self) -> str:
        named = ", ".join(name for name, _ in self._properties if name not in _NOT_SECRET)
        return f"Cluster({str(self)!r}, {self.identity}{f'; with {named}' if named else ''})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, str):
            return NotImplemented
        return str.__eq__(self, other) and self._properties == getattr(other, "_properties", ())

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((str(self), self._properties)) if self._properties else str.__hash__(self)

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)
