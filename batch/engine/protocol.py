"""Engine: what runs a plain function over items, one task each, and how a task that fails is tried again.

An error of this store that is not `retriable` ends the job at once: it would come again. What is `retriable` is tried
TRIES times, and everything else that ends a task, its process too, ATTEMPTS times, whichever engine runs it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from logstore.model.errors import LogStoreError

TRIES = 3  # of a task that fails for a passing reason
ATTEMPTS = 4  # of a task whose process dies, or that raises what is no error of this store

T = TypeVar("T")
R = TypeVar("R")

Saw = Callable[[int], None]  # so many tasks are done


class Engine(Protocol):
    """Runner of tasks; nothing of a job is in its memory between two calls."""

    name: str

    def start(self) -> None:
        """Begin what a first task would wait for; asked again it does nothing. Raises SetupError."""

    def run(self, step: str, function: Callable[[T], R], items: Sequence[T], saw: Saw) -> list[R]:
        """Results of `function` over `items`, in order.

        Raises the LogStoreError that a task raised; LogStoreError when a task could not be run in ATTEMPTS attempts.
        """

    def remote_places(self) -> int:
        """Count of tasks that run at once on other machines; 0: all run on this one. Requires: it is started."""

    def at_once(self) -> int:
        """Count of tasks that run at once; 0: it is not known. Requires: it is started."""

    def close(self) -> None:
        """End everything that was started; a later task starts it again."""


def attempt(function: Callable[[T], R], item: T, number: int) -> R | LogStoreError:
    """The result of the attempt of this number (from 1), or the error of ours that ends the task.

    Raises what is worth another attempt.
    """
    try:
        return function(item)
    except LogStoreError as error:
        if error.retriable and number < TRIES:
            raise
        return error


def result(found: R | LogStoreError) -> R:
    """The result. Raises the error that came back in its place."""
    if isinstance(found, LogStoreError):
        raise found
    return found
