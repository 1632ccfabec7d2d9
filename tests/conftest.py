from collections.abc import Iterator

import pytest

from logstore.broker.embedded import EmbeddedKafka
from tests.support_dev import Dev


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """One real broker for all tests; each test makes topics of its own."""
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka"), heap_mb=384) as broker:
        yield broker


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One `logstore dev` for all tests of the command; each test makes tables of its own."""
    running = Dev(tmp_path_factory.mktemp("dev") / "data")
    yield running
    running.end()


@pytest.fixture(scope="session")
def users(dev: Dev) -> str:
    """A table that tests share, each with keys of its own."""
    dev("table", "create", "users", "--partitions", "2")
    return "users"
