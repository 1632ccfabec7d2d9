"""Lazily: something that is made on first use, by one thread for all that ask meanwhile.

Nobody waits for two attempts: whoever comes while one is going on gets its outcome, the thing or the error. Nothing is
held that anybody else needs.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from logstore.model.errors import UsageError

T = TypeVar("T")
CLOSED = "this Store is closed; open a new one"


class Lazily(Generic[T]):
    """A value that is made when it is asked for first. Thread-safe."""

    def __init__(self, make: Callable[[], T], discard: Callable[[T], object] = lambda _: None) -> None:
        """`discard`: takes what comes of an attempt that nobody waits for any more."""
        self._make, self._discard = make, discard
        self._lock = threading.Lock()
        self._value: T | None = None
        self._attempt: Future[T] | None = None
        self._closed = False

    @property
    def value(self) -> T | None:
        """Value that there is by now; never waits."""
        return self._value

    def get(self) -> T:
        """The value. Raises what making it raises, and UsageError when this is closed."""
        value = self._value
        if value is not None:
            return value
        with self._lock:
            self._check_open()
            attempt, mine = self._attempt, self._attempt is None
            if attempt is None:
                attempt = self._attempt = Future()
        if mine:
            self._try(attempt)
        return attempt.result()

    def close(self) -> T | None:
        """Make nothing more; returns what there is, for the caller to let go."""
        with self._lock:
            self._closed, value, self._value = True, self._value, None
        return value

    def _try(self, attempt: "Future[T]") -> None:
        try:
            value = self._make()
            with self._lock:
                self._attempt, closed = None, self._closed
                self._value = None if closed else value
            if closed:
                self._discard(value)
                self._check_open()
            attempt.set_result(value)
        except BaseException as error:  # it is everybody's who waits, and raised by `result`
            self._attempt = None
            attempt.set_exception(error)

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError(CLOSED)
