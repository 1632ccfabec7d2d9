"""Published partitions: what the follower's thread knows, in a form that any thread may read from at any moment.

The catalog changes partitions in place. Readers get copies, made whole after each change and exchanged at once, so that
nobody ever sees a view of one generation over the base of another. A copy holds its view and base open for as long as
somebody reads them.
"""

import time
from collections.abc import Callable, Sequence
from copy import copy
from typing import NamedTuple

from logstore.client.read.row import Row
from logstore.log.write.librdkafka import Place, placing
from logstore.model.folding.entry import HEAD_BYTES, TOMBSTONE, VALUE
from logstore.model.table import PartitionKey, Table
from logstore.serve.state.catalog import Catalog
from logstore.serve.state.partition import SNAPSHOT, VIEW, ServedPartition, Views
from logstore.serve.state.waiters import Waiters
from logstore.serve.state.worker_feed import WorkerFeed
from logstore.view.shared.reader import SharedReader, close_idle

_PLAIN = VALUE, TOMBSTONE
_new = tuple.__new__  # of a NamedTuple, without a frame of its own


class NotPlain(Exception):
    """A row that is more than the bytes of its entry: it has an end, siblings, or damage."""


class PublishedPartition:
    """A partition as it was published; its view stands wherever the worker has brought it by now."""

    __slots__ = ("_point", "_stood", "served")

    def __init__(self, served: ServedPartition) -> None:
        """Take over a partition that answers. Requires: nobody changes `served` any more."""
        self.served = served
        self._point = served.open().point
        self._stood = b"", ""  # the state that was seen last, and the token of an answer

    def row(self, key: bytes) -> Row | None:
        """The row of a key, at one committed state. Requires: the key is not empty. Raises Problem, NotPlain."""
        state, entry = self._point(key)
        stood = self._stood
        if state != stood[0]:
            stood = self._note(state)
        served, source = self.served, VIEW
        if entry is None:
            if served.base is None:
                return None
            entry, source = served.base.get(key), SNAPSHOT
            if entry is None:
                return None
        if len(entry) < HEAD_BYTES or entry[0] not in _PLAIN:
            raise NotPlain
        if entry[0] == TOMBSTONE:
            return None
        version = int.from_bytes(entry[1:9], "big")
        return _new(Row, (key, entry[HEAD_BYTES:], version, served.partition, stood[1], source))

    def _note(self, state: bytes) -> tuple[bytes, str]:
        self._stood = stood = state, f"{self.served.head}{self.served.next_offset(state)}"
        return stood


class PublishedTable(NamedTuple):
    """A table, and its partitions that can be read here; None of one that has to be asked for."""

    table: Table
    width: int  # how many partitions it has
    place: Place
    partitions: Sequence[PublishedPartition | None]


class SharedCatalog(Catalog):
    """The catalog of an embedded reader. Its own thread alone calls it; `published` is for all."""

    def __init__(self, node: str, waiters: Waiters) -> None:
        super().__init__(node, waiters, Views(SharedReader.open, shared=True))
        self.published: dict[str, PublishedTable] = {}
        self.on_change: Callable[[], None] = lambda: None
        self._gone_s: dict[PartitionKey, float | None] = {}  # since when nobody follows it; None: somebody does

    def rebuild(self, feeds: Sequence[WorkerFeed]) -> None:
        """Fold what all workers say, and publish it."""
        super().rebuild(feeds)
        now_s = time.monotonic()
        for where in self.served:
            if where in self.followed:
                self._gone_s[where] = None
            elif self._gone_s.get(where, now_s) is None:
                self._gone_s[where] = now_s
        self._gone_s = {where: since for where, since in self._gone_s.items() if where in self.served}
        self.published = {name: self._published(table) for name, table in (self.tables or {}).items()}
        self.on_change()

    def age_s(self, where: PartitionKey) -> float | None:
        """Seconds since a worker that follows a partition was heard last: 0 while one is there, None: never."""
        since_s = self._gone_s.get(where, -1.0)
        if since_s is None:
            return 0.0
        return None if since_s < 0 else time.monotonic() - since_s

    def forget(self) -> None:
        """Let go of everything that is open, at the end: of views also where a traceback still holds them."""
        self.published, self.served, self.fast = {}, {}, {}
        readers = [reader for reader in self.views.opened() if isinstance(reader, SharedReader)]
        self.views.close()
        close_idle(readers)

    def _published(self, table: Table) -> PublishedTable:
        """The table with copies of the partitions that the fast path of a reader would answer from."""
        served = self.fast[table.name.encode()].served
        partitions = [None if one is None or table.wide else PublishedPartition(copy(one)) for one in served]
        return PublishedTable(table, table.partitions, placing(table.partitioning), partitions)
