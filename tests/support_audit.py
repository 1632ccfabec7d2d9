"""A whole store (`logstore dev`) that can be stopped, hurt and started again, and a batch context on it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
from click.testing import CliRunner
from support_jobs import engines
from support_log import until
from support_store import Running, cli, running

from batch.context import Context
from logstore.log.tables.registry import Registry
from logstore.model.table import Table
from logstore.snapshot.storage import Storage
from logstore.view import paths

OPTIONS = ("--http", "127.0.0.1:0", "--kafka-heap-mb", "256", "--readers", "1")


class Whole:
    """A store on `data`."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._stack = ExitStack()
        self.node: Running
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        self.node = self._stack.enter_context(running("dev", self.data, *OPTIONS))

    def stop(self) -> None:
        """In order."""
        self._stack.close()

    def context(self) -> Context:
        """A batch context whose tasks run in the shared pool."""
        registry = Registry(self.node.bootstrap)
        storage = Storage(paths.default_storage(self.data))
        return Context(self.node.bootstrap, registry, registry.read(), storage, engines=engines(), lease_s=5)

    def create(self, name: str, *more: str) -> Table:
        """A table of two partitions that is served."""
        cli(
            "table",
            "create",
            name,
            *(more if "--partitions" in more else ("--partitions", "2", *more)),
            "--data-dir",
            str(self.data),
        )
        return Registry(self.node.bootstrap).table(name)

    def base(self, table: Table) -> set[Any]:
        """The snapshots that its partitions are served from."""
        rows = httpx.get(f"{self.node.url}/v1/snapshots", timeout=60).json()["snapshots"]
        return {row["base"] for row in rows if row["table"] == table.name}

    def adopted(self, table: Table, name: str) -> None:
        """Wait until everything is served from the snapshot."""
        until(f"{name} is adopted", lambda: self.base(table) == {name})

    def rows(self, table: Table) -> dict[str, int]:
        """Key -> version, as the node serves them."""
        cursor: str | None = ""
        found: dict[str, int] = {}
        while cursor is not None:
            query = {"limit": "1000", **({"cursor": cursor} if cursor else {})}
            page = httpx.get(f"{self.node.url}/v1/tables/{table.name}/rows", params=query, timeout=60).json()
            found.update({row["key"]: row["version"] for row in page["rows"]})
            cursor = page["cursor"]
        return found

    def batch(self, monkeypatch: Any, command: Any, *arguments: str, status: int) -> dict[str, Any]:
        """Run a command of `logstore batch` with the shared pool; returns the JSON it prints."""
        context = self.context()
        with monkeypatch.context() as shared:
            shared.setattr("batch.context.open_context", lambda *_, **__: context)
            shared.setattr(context, "close", lambda: None)
            done = CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == status, done.output
        found: dict[str, Any] = orjson.loads(done.stdout)
        return found


@contextmanager
def whole(data: Path) -> Iterator[Whole]:
    """One that is ready, stopped with the block."""
    store = Whole(data)
    try:
        yield store
    finally:
        store.stop()
