"""Visible.

How long until a write can be read. Open loop: writes are due at fixed times, latency counts from when one was due.

One observation: put, wait for the acknowledgement, read over HTTP with the token of the write, get exactly what was
written.
"""

import http.client
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import quote, urlsplit

from logstore import LogStoreError, Position, Store

THREADS = 16  # each takes every sixteenth write, so that a slow one does not hold up the next
DEADLINE_MS = 10_000


class Watch:
    """One thread's share of the writes."""

    def __init__(self, store: Store, url: str, table: str) -> None:
        self._store, self._table, self._address = store, table, urlsplit(url)
        self.late_ms: list[float] = []
        self.position = Position()

    def run(self, writes: Sequence[tuple[float, bytes, bytes]]) -> "Watch":
        """Make writes (due, key, value). Raises LogStoreError when a read brings anything but what was written."""
        with closing(http.client.HTTPConnection(self._address.netloc, timeout=DEADLINE_MS / 1000 + 5)) as connection:
            connection.connect()
            for due_s, key, value in writes:
                time.sleep(max(0.0, due_s - time.perf_counter()))
                position = self._store.put(self._table, key, value)
                self._read(connection, key, value, position)
                self.late_ms.append((time.perf_counter() - due_s) * 1000)
                self.position |= position
        return self

    def _read(self, connection: http.client.HTTPConnection, key: bytes, value: bytes, position: Position) -> None:
        headers = {"LS-Token": position.token, "LS-Deadline": str(DEADLINE_MS)}
        connection.request("GET", f"/v1/tables/{self._table}/rows/{quote(key, safe='')}", headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200 or body != value:
            raise LogStoreError(
                f"after the write of {key!r} the read with its token answered {answer.status}: {body[:200]!r}"
            )


def measure(
    store: Store, url: str, table: str, writes: Sequence[tuple[bytes, bytes]], rate: float
) -> tuple[list[float], Position]:
    """Latencies in milliseconds, and the position that covers all writes."""
    start_s = time.perf_counter() + 0.2  # every thread is connected by then
    due = [(start_s + number / rate, key, value) for number, (key, value) in enumerate(writes)]
    with ThreadPoolExecutor(THREADS) as threads:
        watches = list(threads.map(lambda i: Watch(store, url, table).run(due[i::THREADS]), range(THREADS)))
    position = Position().merge(watch.position for watch in watches)
    return [late for watch in watches for late in watch.late_ms], position
