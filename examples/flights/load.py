"""Load: tables, and the streams into them."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import NamedTuple

from examples.flights.source import Pair, Stream
from examples.flights.steps import Advance
from logstore import ConsistencyTimeout, LogStoreError, Position, Store
from logstore.log.membership.live_workers import LiveWorkers
from logstore.log.tables import ddl
from logstore.log.tables.registry import Registry

SERVED_S = 30.0
APPLIED_S = 120.0
_ASK_MS = 30_000
_PIECE = 20_000  # changes between two movements of the bar


class Loaded(NamedTuple):
    """A stream in the log.

    `middle`: behind its first half; `began_s`, `acked_s`: when writing began and ended, of `time.perf_counter`.
    """

    middle: Position
    position: Position
    began_s: float
    acked_s: float


def create(bootstrap: str, streams: Sequence[Stream]) -> None:
    """Create the tables; returns when they are served. Raises LogStoreError."""
    registry = Registry(bootstrap)
    with ThreadPoolExecutor(len(streams)) as threads:
        changes = list(
            threads.map(lambda stream: ddl.create(registry, stream.table, partitions=stream.partitions), streams)
        )
    slots = registry.slots()
    with LiveWorkers(bootstrap) as live_workers:
        for change in changes:
            lacking = live_workers.await_served(change.revision, change.table, slots, SERVED_S)
            if lacking.reasons or not lacking.workers:
                raise LogStoreError(
                    f"table {change.table.name} is not served: {'; '.join(lacking.reasons) or 'no worker is there'}"
                )


def load(store: Store, stream: Stream, advance: Advance) -> Loaded:
    """Write one stream, its halves one after the other; returns when every change is acknowledged."""
    began_s, half = time.perf_counter(), len(stream.pairs) // 2
    middle = store.put_many(stream.table, chain.from_iterable(_pieces(stream.pairs[:half], advance)))
    end = store.put_many(stream.table, chain.from_iterable(_pieces(stream.pairs[half:], advance)))
    return Loaded(middle, middle | end, began_s, time.perf_counter())


def await_applied(store: Store, table: str, position: Position) -> float:
    """Wait until the readers have seen `position` in every partition; returns when. Raises ConsistencyTimeout."""
    deadline = time.monotonic() + APPLIED_S
    while True:
        try:
            next(store.scan(table, limit=1, keys_only=True, after=position, deadline_ms=_ASK_MS), None)
            return time.perf_counter()
        except ConsistencyTimeout:
            if time.monotonic() > deadline:
                raise


def _pieces(pairs: list[Pair], advance: Advance) -> Iterator[list[Pair]]:
    for start in range(0, len(pairs), _PIECE):
        piece = pairs[start : start + _PIECE]
        yield piece
        advance(len(piece))
