"""Lazily: something that is made on first use, by one thread for all that ask meanwhile.

Nobody waits for two attempts: whoever comes while one is going on gets its outcome, the thing or the error. Nothing is
held that anybody else needs.
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from logstore.model.errors import UsageError

T = TypeVar("T")
CLOSED = "this Store is closed; open a new one"


class _Attempt(Generic[T]):
    """One attempt, and what came of it. As a Future has it, which would load what logs for who never logs."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._value: T | None = None
        self._error: BaseException | None = None

    def end(self, value: T | None, error: BaseException | None = None) -> None:
        """Give all that wait the value, or the error."""
        self._value, self._error = value, error
        self._over.set()

    def result(self) -> T:
        """The value, waited for. Raises the error."""
        self._over.wait()
        if self._error is not None:
            raise self._error
        assert self._value is not None, "an attempt ends with a value or an error"
        return self._value


class Lazily(Generic[T]):
    """A value that is made when it is asked for first. Thread-safe."""

    def __init__(self, make: Callable[[], T], discard: Callable[[T], object] = lambda _: None) -> None:
        """`discard`: takes what comes of an attempt that nobody waits for any more."""
        self._make, self._discard = make, discard
        self._lock = threading.Lock()
        self.value: T | None = None  # what there is by now
        self._attempt: _Attempt[T] | None = None
        self._closed = False

    def get(self) -> T:
        """The value. Raises what making it raises, and UsageError when this is closed."""
        value = self.value
        if value is not None:
            return value
        with self._lock:
            self._check_open()
            attempt, mine = self._attempt, self._attempt is None
            if attempt is None:
                attempt = self._attempt = _Attempt()
        if mine:
            self._try(attempt)
        return attempt.result()

    def close(self) -> T | None:
        """Make nothing more; returns what there is, for the caller to let go."""
        with self._lock:
            self._closed, value, self.value = True, self.value, None
        return value

    def _try(self, attempt: _Attempt[T]) -> None:
        try:
            value = self._make()
            with self._lock:
                self._attempt, closed = None, self._closed
                self.value = None if closed else value
            if closed:
                self._discard(value)
                self._check_open()
            attempt.end(value)
        except BaseException as error:  # it is everybody's who waits, and raised by `result`
            self._attempt = None
            attempt.end(None, error)

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError(CLOSED)
