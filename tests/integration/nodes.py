"""A node of this checkout, as a process of this machine or in a container of its own image.

The batch jobs run where it runs.
"""

from pathlib import Path
from typing import Any, Protocol, Self

import docker
import orjson
from docker.models.images import Image
from support_free_port import free_port
from support_log import until
from support_store import Running, cli
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

import logstore
from tests.integration.kraft_kafka import KRaftKafkaContainer

ALIAS = "node"


class Node(Protocol):
    """What a walk does with a node."""

    @property
    def url(self) -> str:
        """Where it answers."""

    def batch(self, *arguments: str) -> Any:
        """What `logstore batch ... --json` prints."""

    def kill(self) -> None:
        """SIGKILL, of all of it."""

    def revive(self) -> None:
        """Start it again on the same data."""

    def stop(self) -> int:
        """SIGTERM, and wait; returns the exit status."""

    def log(self) -> str:
        """What it said."""


class Process:
    """`logstore node` of this checkout."""

    def __init__(self, broker: KRaftKafkaContainer, data_dir: Path) -> None:
        self._bootstrap = broker.bootstrap_servers
        self._data_dir = data_dir
        self._running = self._start()

    @property
    def url(self) -> str:
        return self._running.url

    def batch(self, *arguments: str) -> Any:
        done = cli("batch", *arguments, "--json", check=False, LOGSTORE_BOOTSTRAP=self._bootstrap)
        assert done.returncode == 0, done.stderr
        return orjson.loads(done.stdout)

    def kill(self) -> None:
        self._running.kill()

    def revive(self) -> None:
        self._running = self._start()

    def stop(self) -> int:
        return self._running.stop()

    def log(self) -> str:
        return self._running.log()

    def _start(self) -> Running:
        started = Running("node", self._data_dir, "--bootstrap", self._bootstrap, "--http", "127.0.0.1:0")
        try:
            return started.ready()
        except BaseException:
            started.stop()
            raise


class InContainer:
    """A container of the image that `docker/Dockerfile` makes; batch jobs run in another one, on the same volumes."""

    def __init__(self, broker: KRaftKafkaContainer, image: Image, network: Network | None) -> None:
        self._image, self._network, self._port = image, network, free_port()
        self._bootstrap = broker.inner_servers
        self._made = DockerContainer(str(image.id)).with_env("LOGSTORE_BOOTSTRAP", self._bootstrap)
        if network is None:
            self._made.with_env("LOGSTORE_HTTP", f"127.0.0.1:{self._port}").with_kwargs(network_mode="host")
        else:
            self._made.with_network(network).with_network_aliases(ALIAS).with_bind_ports(8480, self._port)
            self._made.with_envs(
                LOGSTORE_HTTP="0.0.0.0:8480", LOGSTORE_INSECURE="true", LOGSTORE_ADVERTISE=f"http://{ALIAS}:8480"
            )

    def start(self) -> Self:
        """Start it and wait until its own health check is content."""
        self._made.start()
        self._wait_healthy()
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def _container(self) -> Any:
        return self._made.get_wrapped_container()

    def batch(self, *arguments: str) -> Any:
        where = {"network_mode": "host"} if self._network is None else {"network": self._network.name}
        client = self._made.get_docker_client().client
        job = client.containers.run(
            self._image, ["batch", *arguments, "--json"], detach=True, volumes_from=[self._container.id],
            environment={"LOGSTORE_BOOTSTRAP": self._bootstrap}, labels={"org.testcontainers": "true"}, **where,
        )  # fmt: skip
        try:
            status = job.wait(timeout=120)["StatusCode"]
            assert status == 0, job.logs().decode()
            return orjson.loads(job.logs(stdout=True, stderr=False))
        finally:
            job.remove(force=True)

    def kill(self) -> None:
        self._container.kill("KILL")
        self._container.wait(timeout=30)

    def revive(self) -> None:
        self._container.start()
        self._wait_healthy()

    def stop(self) -> int:
        self._container.stop(timeout=60)
        return int(self._container.wait(timeout=30)["StatusCode"])

    def remove(self) -> None:
        """Remove it and its volumes."""
        self._made.stop()

    def user(self) -> str:
        """Who its processes are, as the system inside says."""
        return str(self._container.exec_run(["id", "-un"]).output.decode().strip())

    def log(self) -> str:
        return str(self._container.logs(tail=100).decode())

    def _wait_healthy(self) -> None:
        def healthy() -> bool:
            self._container.reload()
            state = self._container.attrs["State"]
            assert state["Running"], self.log()
            return bool(state["Health"]["Status"] == "healthy")

        until("the container is healthy", healthy, 90)


def built(root: Path, client: docker.DockerClient, target: str) -> Image:
    """An image of this checkout; layers that did not change are not built again."""
    image, _ = client.images.build(
        path=str(root),
        dockerfile="docker/Dockerfile",
        target=target,
        tag=f"logstore:checkout-{target}",
        buildargs={"VERSION": logstore.__version__},
        network_mode="host",
        rm=True,
        timeout=1_200,
    )
    return image
