"""Shared tail: one consumer of a process, on a thread of its own, that follows partitions for whoever asks.

    follow, leave  ->  commands  ->  thread: Tail.take  ->  deliver(number of the follow, records or why there are none)

A partition that is followed anew gets a new number, by which what was under way from before is told apart.
"""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from logstore.log.read.tail import FetchedBatch, Tail, Trouble
from logstore.model.errors import LogStoreError
from logstore.model.folding.fold import Records
from logstore.process import logs

_TAKE_S, _IDLE_S = 0.05, 0.5
_QUEUED_KBYTES = 16_384
_GROUP = "logstore"  # commits nothing

log = logs.get(__name__)

Deliver = Callable[[int, Records | str], None]
_Command = Callable[[], None]


class SharedTail:
    """The consumer and its thread. `deliver` is called on that thread."""

    def __init__(self, bootstrap: str, deliver: Deliver) -> None:
        self._bootstrap, self._deliver = bootstrap, deliver
        self._commands: SimpleQueue[_Command | None] = SimpleQueue()
        self._numbers: dict[tuple[str, int], int] = {}  # of the thread alone
        self._tail: Tail | None = None
        self._thread = threading.Thread(target=self._run, name="change-feed", daemon=True)
        self._thread.start()

    def follow(self, topic: str, partition: int, offset: int, number: int) -> None:
        """Follow a partition from `offset` on, as the follow of this number."""
        self._commands.put(lambda: self._follow(topic, partition, offset, number))

    def leave(self, topic: str, partition: int) -> None:
        """Stop following a partition."""
        self._commands.put(lambda: self._leave(topic, partition))

    @property
    def is_alive(self) -> bool:
        """False once the thread has ended, by `close` or by a fault that everybody who followed was told."""
        return self._thread.is_alive()

    def close(self, timeout_s: float) -> None:
        """End the thread and let the connections go."""
        self._commands.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while self._obey():
                self._take()
        except Exception as error:  # the edge of a thread: whoever follows is told, and may begin again
            log.exception("the log is not followed any more for the change feed")
            for number in list(self._numbers.values()):
                self._deliver(number, str(error))
        finally:
            if self._tail is not None:
                self._tail.close()

    def _obey(self) -> bool:
        """Run the commands there are, waiting for one while nothing is followed; False at the end."""
        wait_s: float | None = None if self._numbers else _IDLE_S
        while True:
            try:
                command = self._commands.get(block=wait_s is not None, timeout=wait_s)
            except Empty:
                return True
            if command is None:
                return False
            command()
            wait_s = None

    def _take(self) -> None:
        if self._tail is None or not self._numbers:
            return
        for event in self._tail.take(_TAKE_S):
            if not isinstance(event, FetchedBatch | Trouble):
                continue
            number = self._numbers.get((event.topic, event.partition))
            if number is not None:
                self._deliver(number, event.records if isinstance(event, FetchedBatch) else event.detail)

    def _follow(self, topic: str, partition: int, offset: int, number: int) -> None:
        if self._tail is None:
            self._tail = Tail(self._bootstrap, group=_GROUP, queued_kbytes=_QUEUED_KBYTES)
        try:
            self._tail.leave(topic, partition)
            self._tail.follow(topic, partition, offset)
        except LogStoreError as error:
            self._deliver(number, str(error))
        else:
            self._numbers[topic, partition] = number

    def _leave(self, topic: str, partition: int) -> None:
        if self._numbers.pop((topic, partition), None) is not None and self._tail is not None:
            self._tail.leave(topic, partition)
