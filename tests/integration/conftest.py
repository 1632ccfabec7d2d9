"""The suite that needs a container engine. Without one it fails: `make integration` starts one."""

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import BuildError, DockerException
from docker.models.images import Image
from testcontainers.core.network import Network

from tests.integration.kraft_kafka import KRaftKafkaContainer
from tests.integration.nodes import built

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The container engine."""
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        pytest.fail(
            f"no container engine answers ({error}); `make integration` starts one, or run docker/offline/engine.sh"
        )
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(engine: docker.DockerClient) -> Image:
    """What docker/Dockerfile makes of this checkout: all of it."""
    return _built(engine, "full")


@pytest.fixture(scope="session")
def node_image(engine: docker.DockerClient) -> Image:
    """The smaller image, of nodes alone."""
    return _built(engine, "node")


def _built(engine: docker.DockerClient, target: str) -> Image:
    try:
        return built(ROOT, engine, target)
    except BuildError as error:
        said = "".join(str(line.get("stream", line.get("error", ""))) for line in error.build_log)
        pytest.fail(f"the image cannot be built: {error}\n{said[-4000:]}")


@pytest.fixture
def network(engine: docker.DockerClient) -> Iterator[Network | None]:
    """A network for one test; None on an engine that has host networking only."""
    if not engine.networks.list(names=["bridge"]):
        yield None
        return
    with Network() as made:
        yield made


@pytest.fixture
def broker(network: Network | None) -> Iterator[KRaftKafkaContainer]:
    """A broker for one test, to be hurt."""
    made = KRaftKafkaContainer(network)
    try:
        yield made.start()
    finally:
        made.stop()
