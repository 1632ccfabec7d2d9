"""Table definitions as a client learns and keeps them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

from logstore.client.lazily import Lazily
from logstore.log.write.topic_proof import TopicProof
from logstore.model.errors import EpochChanged, InvalidWrite, NoSuchTable, Unknown, ValueTooLarge, WriteFailed

if TYPE_CHECKING:
    from logstore.model.table import Table


class CachedDefinitions(Protocol):
    """A source of table definitions: `log.registry.Registry`, or what a test puts in its place."""

    def table(self, name: str) -> "Table":
        """A table's definition; raises NoSuchTable, LogUnreachable."""

    def close(self) -> None:
        """Close the source's connections."""


class Tables:
    """Definitions, asked for once each. Thread-safe; to wait for one holds up nobody who wants another."""

    def __init__(self, source: CachedDefinitions, proof: TopicProof | None = None) -> None:
        self.source, self.proof, self._known = source, proof, dict[str, "Lazily[Table]"]()

    def get(self, name: str) -> "Table":
        """The definition; asks the source for a name not met before.

        Raises NoSuchTable, LogUnreachable, EpochChanged where its topic is another one.
        """
        known = self._known.get(name)
        if known is None:
            known = self._known.setdefault(name, Lazily(partial(self._learn, name)))
        try:
            return known.get()
        except (NoSuchTable, EpochChanged):
            self.forget(name)  # names that are none are not kept
            raise

    def _learn(self, name: str) -> "Table":
        table = self.source.table(name)
        if self.proof is not None:
            self.proof.check(table)
        return table

    def forget(self, name: str) -> None:
        """Ask again next time."""
        self._known.pop(name, None)

    def close(self) -> None:
        """Close the source."""
        self.source.close()


@contextmanager
def renewing(forget: Callable[[], object]) -> Iterator[None]:
    """Have a definition asked for again after a failure that may come of it.

    The table was promoted over, or dropped and made again, perhaps with another limit.
    """
    try:
        yield
    except InvalidWrite:  # the table has decided it
        raise
    except (WriteFailed, Unknown, EpochChanged, ValueTooLarge):
        forget()
        raise
