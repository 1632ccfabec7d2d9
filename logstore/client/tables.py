"""Table definitions as a client learns and keeps them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from logstore.model.errors import EpochChanged, Unknown, WriteFailed
from logstore.model.table import Table


class CachedDefinitions(Protocol):
    """A source of table definitions: `log.registry.Registry`, or what a test puts in its place."""

    def table(self, name: str) -> Table:
        """A table's definition; raises NoSuchTable, LogUnreachable."""

    def close(self) -> None:
        """Close the source's connections."""


class Tables:
    """Definitions, asked for once each. Thread-safe."""

    def __init__(self, source: CachedDefinitions) -> None:
        self._source, self._known, self._lock = source, dict[str, Table](), threading.Lock()

    def known(self, name: str) -> Table | None:
        """The definition if it has been asked for before: never waits."""
        return self._known.get(name)

    def get(self, name: str) -> Table:
        """The definition; asks the source for a name not met before. Raises NoSuchTable, LogUnreachable."""
        table = self._known.get(name)
        if table is None:
            with self._lock:
                table = self._known.setdefault(name, self._source.table(name))
        return table

    def forget(self, name: str) -> None:
        """Ask again next time."""
        self._known.pop(name, None)

    def close(self) -> None:
        """Close the source of definitions."""
        self._source.close()


@contextmanager
def renewing(forget: Callable[[], object]) -> Iterator[None]:
    """Have a definition asked for again after a failure that may come of it.

    The table was promoted over, or dropped and made again.
    """
    try:
        yield
    except (WriteFailed, Unknown, EpochChanged):
        forget()
        raise
