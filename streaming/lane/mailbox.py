"""Mailbox: steps that other threads have the lane do between two batches, because views belong to the lane alone."""

import queue
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import NamedTuple

from logstore.model.errors import Overloaded
from logstore.model.table import PartitionKey
from streaming.lane.partition import FollowedPartition

WAIT_S = 30.0
MOST = 16

Step = Callable[[FollowedPartition], None]


class _Request(NamedTuple):
    key: PartitionKey
    step: Step
    done: "Future[None]"


class Mailbox:
    """Steps that wait for the lane."""

    def __init__(self) -> None:
        self._requests: queue.Queue[_Request] = queue.Queue(MOST)
        self.hurried = False  # a step comes soon: the lane waits for records for a shorter time

    @contextmanager
    def hurry(self) -> Iterator[None]:
        """Have the lane come round quickly, also where no records come. Requires: one thread does so at a time."""
        self.hurried = True
        try:
            yield
        finally:
            self.hurried = False

    def do(self, key: PartitionKey, step: Step, timeout_s: float = WAIT_S) -> None:
        """Have the step done.

        Raises what it raises, Overloaded when the partition is not followed or the lane does not come round.

        Requires: not the lane's thread; the step takes milliseconds.
        """
        done: Future[None] = Future()
        try:
            self._requests.put(_Request(key, step, done), timeout=timeout_s)
            done.result(timeout_s)
        except (queue.Full, TimeoutError) as error:
            done.cancel()
            raise Overloaded(f"the lane did not come round within {timeout_s:g} s; it is tried again") from error

    def answer(self, followed: Mapping[PartitionKey, FollowedPartition]) -> Iterator[tuple[FollowedPartition, bool]]:
        """Do the steps that are asked for; the lane's thread.

        Yields the partitions they were done to, and whether their positions have changed.
        """
        while not self._requests.empty():
            request = self._requests.get()
            if not request.done.set_running_or_notify_cancel():
                continue
            one = followed.get(request.key)
            if one is None:
                request.done.set_exception(Overloaded("the partition is not followed here any more"))
                continue
            before = one.next_offset
            error = _failure(request.step, one)
            yield one, one.next_offset != before
            request.done.set_exception(error) if error else request.done.set_result(None)


def _failure(step: Step, followed: FollowedPartition) -> Exception | None:
    try:
        step(followed)
    except Exception as error:  # it is the asker's
        return error
    return None
