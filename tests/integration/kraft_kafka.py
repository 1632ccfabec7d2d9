"""A real Kafka broker in a container, for pytest.

Every listener has the same port inside and outside the container, chosen before it starts: the advertised address is
known up front, stays the same over kill and restart, and one configuration serves a bridge network (the usual case) and
host networking (an engine without one).
"""

import time
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from support_free_port import free_port
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

IMAGE = "apache/kafka:4.1.0"
ALIAS = "kafka"


class KRaftKafkaContainer(DockerContainer):
    """One broker that is its own controller, on `network`; None: on the machine's own."""

    def __init__(self, network: Network | None, image: str = IMAGE) -> None:
        super().__init__(image)
        self.port, self._inner_port, quorum_port = free_port(), free_port(), free_port()
        if network is None:
            self._inner_host = bind = "127.0.0.1"
            self.with_kwargs(network_mode="host")
        else:
            self._inner_host, bind = ALIAS, ""
            self.with_bind_ports(self.port, self.port)
            self.with_network(network).with_network_aliases(ALIAS)
        ports = {"HOST": self.port, "INNER": self._inner_port, "CONTROLLER": quorum_port}
        self.with_envs(
            KAFKA_NODE_ID="1",
            KAFKA_PROCESS_ROLES="broker,controller",
            KAFKA_CONTROLLER_QUORUM_VOTERS=f"1@{self._inner_host}:{quorum_port}",
            KAFKA_LISTENERS=",".join(f"{name}://{bind}:{port}" for name, port in ports.items()),
            KAFKA_ADVERTISED_LISTENERS=f"HOST://{self.bootstrap_servers},INNER://{self.inner_servers}",
            KAFKA_LISTENER_SECURITY_PROTOCOL_MAP="HOST:PLAINTEXT,INNER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            KAFKA_INTER_BROKER_LISTENER_NAME="INNER",
            KAFKA_CONTROLLER_LISTENER_NAMES="CONTROLLER",
            KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR="1",
            KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR="1",
            KAFKA_TRANSACTION_STATE_LOG_MIN_ISR="1",
            KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS="0",
            KAFKA_BROKER_SESSION_TIMEOUT_MS="3000",  # a killed broker may come back sooner
            KAFKA_BROKER_HEARTBEAT_INTERVAL_MS="500",
            KAFKA_HEAP_OPTS="-Xms256m -Xmx512m",
        )

    @property
    def bootstrap_servers(self) -> str:
        """Its address from this machine."""
        return f"{self._docker.host()}:{self.port}"

    @property
    def inner_servers(self) -> str:
        """Its address from a container of the same network."""
        return f"{self._inner_host}:{self._inner_port}"

    def start(self) -> Self:
        """Start it and wait until it answers."""
        super().start()
        return self.wait_ready()

    def wait_ready(self, timeout_s: float = 90) -> Self:
        """Wait until it answers: by asking, not from its log, so that it serves after a restart too."""
        deadline, admin = (
            time.monotonic() + timeout_s,
            AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0}),
        )
        while not _answers(admin):
            if time.monotonic() > deadline:
                raise TimeoutError(self.get_wrapped_container().logs(tail=30).decode())
            time.sleep(0.1)
        return self

    def kill(self) -> None:
        """SIGKILL; the log on its disk stays."""
        self.get_wrapped_container().kill("KILL")
        self.get_wrapped_container().wait(timeout=30)

    def revive(self) -> None:
        """Start it again on the same log, at the same address."""
        self.get_wrapped_container().start()
        self.wait_ready()


def _answers(admin: AdminClient) -> bool:
    try:
        return bool(admin.list_topics(timeout=1).brokers)
    except KafkaException:
        return False
