"""Applied: when a worker said that a partition's view had moved on; heard from its feed, as a reader hears it."""

import threading
import time
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

from logstore.view import paths
from logstore.view.feed.position_records import AppliedKey
from logstore.view.feed.stream import FeedReader, connect

_CHUNK = 1 << 16


class Applied:
    """A thread that listens to worker 0 of a node; use as a context manager."""

    def __init__(self, data_dir: Path, epoch: str, partition: int) -> None:
        """Connect. Raises OSError when there is no worker."""
        self._key, self._times_s = AppliedKey(epoch, partition), list[float]()
        self._sock = connect(paths.feed_path(data_dir, 0))
        self._sock.setblocking(False)
        self._ended, self._thread = threading.Event(), threading.Thread(target=self._listen, name="bench-applied")

    def largest_gap_ms(self, begun_s: float, seconds: float) -> float:
        """Wait some seconds.

        The largest gap since `begun_s`, of `time.perf_counter`. Raises RuntimeError when nothing was applied.
        """
        self._ended.wait(seconds)
        heard = [at_s for at_s in self._times_s if at_s >= begun_s]
        if len(heard) < 2:
            raise RuntimeError("nothing was applied: is anybody writing?")
        return max(later - earlier for earlier, later in pairwise(heard)) * 1000

    def _listen(self) -> None:
        reader = FeedReader()
        self._sock.settimeout(0.2)
        while not self._ended.is_set():
            try:
                data = self._sock.recv(_CHUNK)
            except TimeoutError:
                continue
            if not data:
                return
            now_s = time.perf_counter()
            self._times_s += [now_s for key, _ in reader.decode(data) if key == self._key]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._sock.close()
