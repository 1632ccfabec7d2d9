"""Access: what Kafka refuses a client, as librdkafka's callback tells it; its calls themselves only time out."""

import logging
import time
from typing import Any

from confluent_kafka import KafkaError

from logstore.log.connect.cluster import Cluster
from logstore.model.errors import AuthenticationFailed

FRESH_S = 15.0  # a client that goes on being refused is told so every second
_REFUSED = {
    KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM, KafkaError.ILLEGAL_SASL_STATE,
}  # fmt: skip
_STEP = {
    KafkaError._SSL: "look at ssl.ca.location, and at when the certificates of both sides end",
    KafkaError.UNSUPPORTED_SASL_MECHANISM: "give a sasl.mechanism that the listener has",
}

log = logging.getLogger(__name__)  # clients have no structlog to load


class Access:
    """The last refusal that a client of `cluster` has met; librdkafka calls it with every error of its connections."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self._refusal, self._at_s = cluster, "", float("-inf")

    def __call__(self, error: Any) -> None:
        """Take note of a KafkaError; said in the log once while it goes on."""
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


def _without_times(text: str) -> str:
    """Words of librdkafka without the milliseconds in which it came to them: the same twice is said once."""
    return text.partition(" (after ")[0].rstrip(": ")
