"""Testing: pytest fixtures for programs that use a store. `pytest_plugins = ["logstore.testing"]` in a conftest.

memory_store   a `MemoryStore` of the test's own, without tables
dev_store      a `Store` on a real one (`logstore dev`: Kafka, worker, reader), started once for all tests that ask;
               needs the extra `node`
"""

import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson
import pytest

from logstore.client.admin.admin import Admin
from logstore.client.checks import Text
from logstore.client.memory.store import MemoryStore
from logstore.client.store import Store
from logstore.model.errors import SetupError
from logstore.model.table import (
    DEFAULT_DEDUP_RECORDS,
    DEFAULT_DEDUP_WINDOW_MS,
    DEFAULT_MAX_VALUE_BYTES,
)

_END_S = 60.0


class DevStore(Store):
    """A client of a `logstore dev` that was started for tests."""

    def create(
        self,
        table: str,
        *,
        partitions: int | None = None,
        splits: Iterable[Text] = (),
        max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES,
        conditional: bool = False,
        expiring: bool = False,
        wide: bool = False,
        families: Mapping[str, Mapping[str, Any]] | Iterable[str] = (),
        siblings: bool = False,
        multi_row: bool = False,
        dedup_window_ms: int = DEFAULT_DEDUP_WINDOW_MS,
        dedup_records: int = DEFAULT_DEDUP_RECORDS,
    ) -> None:
        """Make a table, as `Admin.create`, which raises the same."""
        cluster = self._need_bootstrap()
        with Admin(str(cluster), kafka=cluster.properties) as admin:
            admin.create(
                table, partitions=partitions, splits=splits, max_value_bytes=max_value_bytes, conditional=conditional,
                expiring=expiring, wide=wide, families=families, siblings=siblings, multi_row=multi_row,
                dedup_window_ms=dedup_window_ms, dedup_records=dedup_records,
            )  # fmt: skip

    def alter(
        self,
        table: str,
        *,
        add_families: Mapping[str, Mapping[str, Any]] | Iterable[str] = (),
        families: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Add column families to a wide table, or change rules of some, as `Admin.alter`, which raises the same."""
        cluster = self._need_bootstrap()
        with Admin(str(cluster), kafka=cluster.properties) as admin:
            admin.alter(table, add_families=add_families, families=families)


@pytest.fixture
def memory_store() -> Iterator[MemoryStore]:
    """A store in memory, closed with the test."""
    with MemoryStore() as store:
        yield store


@pytest.fixture(scope="session")
def dev_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStore]:
    """A client of a store that is started for the tests, ended with them. Raises SetupError when none starts."""
    data = tmp_path_factory.mktemp("logstore") / "data"
    argv = [
        sys.executable, "-P", "-m", "logstore.cli.main", "dev", "--data-dir", str(data), "--http", "127.0.0.1:0",
        "--kafka-port", "0",
    ]  # fmt: skip
    said = data.with_suffix(".err")
    with said.open("wb") as err:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=err)
    assert process.stdout is not None, "it is a pipe"
    try:
        line = process.stdout.readline()
        if not line:
            raise SetupError(f"`logstore dev` does not start: {said.read_text()[-2_000:]}")
        facts = orjson.loads(line)
        with DevStore(facts["bootstrap"], facts["http"]) as store:
            yield store
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_END_S)
        finally:
            process.kill()
            process.stdout.close()
