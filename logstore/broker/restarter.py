"""Restarter: starts an embedded broker again whenever it has died, on the same data and port.

A thread, so that a start blocks nobody.
"""

import threading
from collections.abc import Callable

from logstore.broker.embedded import EmbeddedKafka
from logstore.model.errors import SetupError

LOOK_S = 0.2
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.5, 30.0
START_S = 30.0


class Restarter(threading.Thread):
    """Broker that is kept running once it was started, until `close`."""

    def __init__(self, kafka: EmbeddedKafka, loud: Callable[[str], None]) -> None:
        """`loud` gets what a person should see, on this thread."""
        super().__init__(name="kafka-keeper", daemon=True)
        self._kafka, self._loud = kafka, loud
        self._ending = threading.Event()

    def run(self) -> None:
        """Restart the broker until `close`; the thread's body."""
        backoff_s = FIRST_BACKOFF_S
        while not self._ending.wait(LOOK_S):
            if self._kafka.alive():
                continue
            self._loud("kafka died and is started again")
            try:
                self._kafka.start(START_S)
                backoff_s = FIRST_BACKOFF_S
            except SetupError as error:
                self._loud(f"kafka does not start, next attempt in {backoff_s:g} s: {error}")
                self._ending.wait(backoff_s)
                backoff_s = min(backoff_s * 2, LAST_BACKOFF_S)

    def close(self, grace_s: float) -> None:
        """Stop keeping it, and stop it: by force after `grace_s`."""
        self._ending.set()
        if self.ident is not None:
            self.join(START_S + 5)
        self._kafka.stop(grace_s)
