"""Forked processes: what a child lets go of because its parent goes on with it.

The threads of librdkafka do not exist in the child, its locks may be held there for ever, and destroying a client would
wait for those threads. A socket that both processes read from gives each the answers of the other. So the child forgets
what it inherited, never closes it, and connects anew when it needs to (gunicorn --preload, Celery, multiprocessing).
"""

import os
from typing import Any, Protocol
from weakref import WeakSet


class Forked(Protocol):
    """An object that holds connections or locks."""

    def after_fork(self) -> None:
        """Become usable in the child. Runs in the child, with no other thread, and must not block."""


_holders: WeakSet[Any] = WeakSet()
_inherited: list[Any] = []  # sockets and the like: never closed in the child, so that the parent's are not disturbed


def renew_in_child(holder: Forked) -> None:
    """Have `holder.after_fork` called in every child process, as long as it lives."""
    _holders.add(holder)


def keep(thing: object) -> None:
    """Keep an inherited object, so that nothing of it is closed in this process."""
    if thing is not None:
        _inherited.append(thing)


def _in_child() -> None:
    for holder in list(_holders):
        holder.after_fork()


os.register_at_fork(after_in_child=_in_child)
