"""Writer: somebody who goes on changing flights while snapshots are made; the truth follows."""

import random
import threading
from types import TracebackType
from typing import Self

import orjson

from examples.flights.reads import Truth
from examples.flights.source import FLIGHTS
from logstore import Store

AT_ONCE = 50  # changes in one call
PAUSE_S = 0.1
JOIN_S = 60.0


class Writer:
    """A thread that writes to every other flight: the others are as a snapshot has them, however long it takes.

    Use as a context manager: leaving ends it. `written`: how many changes were acknowledged.
    """

    def __init__(self, store: Store, truth: Truth, rng: random.Random) -> None:
        """Start with `with`. Nobody else may change `truth` meanwhile."""
        self._store, self._truth, self._rng = store, truth, rng
        self._ended, self._thread = threading.Event(), threading.Thread(target=self._run, name="writer")
        self._error: Exception | None = None
        self.written = 0

    def _run(self) -> None:
        keys = sorted(self._truth.flights)[::2]
        try:
            while not self._ended.wait(PAUSE_S):
                self._write(self._rng.sample(keys, min(AT_ONCE, len(keys))))
        except Exception as error:  # raised in the thread that waits for this one
            self._error = error

    def _write(self, keys: list[bytes]) -> None:
        flights = self._truth.flights
        pairs = [
            (key, orjson.dumps({**orjson.loads(flights[key]), "seen": self.written + i})) for i, key in enumerate(keys)
        ]
        position = self._store.put_many(FLIGHTS, pairs)
        flights.update(pairs)
        self._truth.changed(position)
        self.written += len(pairs)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it. Raises what stopped it before."""
        self._ended.set()
        self._thread.join(JOIN_S)
        if self._error is not None and error is None:
            raise self._error
