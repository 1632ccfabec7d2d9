"""Access: what Kafka refuses a client: its proof, as librdkafka tells its callback, or a call, for lack of an ACL."""

import logging
import time
from typing import Any

from confluent_kafka import KafkaError

from logstore.log.connect.acl import CLUSTER, Acl
from logstore.log.connect.cluster import Cluster
from logstore.model.errors import AccessDenied, AuthenticationFailed

FRESH_S = 15.0  # a client that goes on being refused is told so every second
_REFUSED = {
    KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM, KafkaError.ILLEGAL_SASL_STATE,
}  # fmt: skip
_STEP = {
    KafkaError._SSL: "look at ssl.ca.location, and at when the certificates of both sides end",
    KafkaError.UNSUPPORTED_SASL_MECHANISM: "give a sasl.mechanism that the listener has",
}

_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "cluster",
}

log = logging.getLogger(__name__)  # clients have no structlog to load


class Access:
    """The last refusal that a client of `cluster` has met; librdkafka calls it with every error of its connections."""

    def __init__(self, cluster: Cluster, group: str | None = None) -> None:
        """`group`: the consumer group of a client that has one."""
        self.cluster, self._group = cluster, group
        self._refusal, self._at_s = "", float("-inf")
        self._writes_denied_s = float("-inf")

    def __call__(self, error: Any) -> None:
        """Take note of a KafkaError; said in the log once while it goes on."""
        if error.code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED and error.fatal():
            self._writes_denied_s = time.monotonic()  # Kafka gives this producer no id: it may write to no topic
        if error.code() not in _REFUSED:
            return
        step = _STEP.get(error.code(), "look at the user's name, password and mechanism")
        refusal = f"Kafka at {self.cluster} refuses {self.cluster.identity}: {_without_times(error.str())}; {step}"
        if refusal != self._refusal or time.monotonic() - self._at_s > FRESH_S:
            log.warning("%s", refusal)
        self._refusal, self._at_s = refusal, time.monotonic()

    def check(self) -> None:
        """Raise AuthenticationFailed when it was refused just now."""
        if time.monotonic() - self._at_s < FRESH_S:
            raise AuthenticationFailed(self._refusal)

    def granted(self) -> None:
        """Note that Kafka has answered."""
        self._at_s = float("-inf")

    @property
    def denies_writes(self) -> bool:
        """True when Kafka has just refused a producer its id, for lack of WRITE on any topic (KIP-679)."""
        return time.monotonic() - self._writes_denied_s < FRESH_S

    def succeed(self, ended: "Access") -> None:
        """Know what the client that went before was denied: its reports come when it is gone."""
        self._writes_denied_s = ended._writes_denied_s

    @property
    def without_proof(self) -> str:
        """Advice for who is not answered and has nothing to prove who he is: librdkafka does not tell that apart."""
        return "" if self.cluster.properties else "; one that asks for TLS or passwords does not answer without them"

    def lacks(self, code: int, needed: Acl | None) -> Acl | None:
        """The ACL that lacks where Kafka answers with `code` a call that needs `needed`; None: `code` is no denial."""
        resource = _DENIED.get(code)
        if needed is not None and resource == needed.resource:
            return needed
        if resource == "cluster" and needed is not None and needed.operation == "WRITE":
            return needed  # an idempotent producer is known to the cluster by WRITE on any topic (KIP-679)
        unsaid = {"topic": "of the call", "group": self._group or "of the call", "cluster": CLUSTER}
        return None if resource is None else Acl("DESCRIBE", resource, unsaid[resource])

    def denial(self, what: str, acl: Acl) -> str:
        """Words for what is denied: listener, principal, mechanism, and the ACL that lacks."""
        cluster = self.cluster
        return (
            f"{what}: Kafka at {cluster} grants {cluster.principal} no {acl}{_implied(acl)} ({cluster.identity}); "
            "`logstore acl` prints what each role needs"
        )

    def denied(self, what: str, acl: Acl) -> AccessDenied:
        """The error for an ACL that lacks."""
        return AccessDenied(self.denial(what, acl))


def _implied(acl: Acl) -> str:
    return ", which READ and WRITE imply" if (acl.operation, acl.resource) == ("DESCRIBE", "topic") else ""


def _without_times(text: str) -> str:
    """Words of librdkafka without the milliseconds in which it came to them: the same twice is said once."""
    return text.partition(" (after ")[0].rstrip(": ")
