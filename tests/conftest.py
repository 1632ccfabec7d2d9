from collections.abc import Iterator

import pytest

from logstore.log.embedded import EmbeddedKafka


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """One real broker for all tests; each test makes topics of its own."""
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka"), heap_mb=384) as broker:
        yield broker
